# SPDX-License-Identifier: MIT
"""RNN: a stack of recurrent layers on arrays. Knows no text, no loss and no optimiser.

    h_t = act( x_t W_xh + h_{t-1} W_hh + b_h )        for every layer; the next layer's x is this one's h
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn import parallel
from crnn._core import cells, gemm
from crnn.initial import initial_matrix, uniform_draws
from crnn.inputs import Dense, EmbeddedDense, EmbeddedRows, LayerInput, Rows
from crnn.params import Parameters, ParameterViews, check_dtype

Array = NDArray[Any]
Ids = NDArray[np.int32]

CELLS = {"tanh": cells.TANH, "relu": cells.RELU}


def check_size(name: str, value: object) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    return int(value)


@dataclass(eq=False)
class Tape:
    """What a forward pass leaves for the backward pass: lists have one entry a layer.

    Made by `RNN.forward`. A tape handed to a second forward pass of the same shape is written over instead of a new
    one being made: memory that is warm and already there.
    """

    x: Array  # (T, B, D) real, or (T, B) ids
    h0: Array  # (L, B, H)
    h: list[Array]  # (T, B, H) each
    h0_next: Array  # (L, B, H), the state after the last step
    inputs: list[LayerInput]
    recurrent: list[gemm.Packed]  # W_hh
    # Only a backward pass fills these.
    da: list[Array] = field(default_factory=list)  # (T, B, H), gradients at the pre-activations
    dh0: Array | None = None  # (L, B, H)
    recurrent_t: list[gemm.Packed] = field(default_factory=list)  # W_hh.T
    scratches: dict[int, Array] = field(default_factory=dict)  # by part of the work

    def scratch(self, part: int) -> Array:
        """Memory of its own for each thread's share of the weight gradients."""
        if part not in self.scratches:
            self.scratches[part] = gemm.grad_scratch(self.h0.dtype)
        return self.scratches[part]

    @property
    def steps(self) -> int:
        return int(self.x.shape[0])

    @property
    def batch(self) -> int:
        return int(self.x.shape[1])


class RNN(ParameterViews):
    """A stack of recurrent layers.

    Conventions
    -----------
    Arrays are time-major and C-contiguous, in the network's ``dtype``: x (T, B, D), y (T, B, H), state (L, B, H), with
    T steps, B rows of a batch, D input_size, H hidden_size, L num_layers. x may also be integer ids (T, B) from 0 to
    D-1, which stand for one-hot vectors and cost a row look-up. Parameters are named ``layer0.W_xh`` (D, H),
    ``layer0.W_hh`` (H, H), ``layer0.b_h`` (H,), ``layer1.W_xh`` (H, H) and so on; with an embedding of size E there is
    ``embedding`` (D, E) in front, ``layer0.W_xh`` is (E, H), and x must be ids. Results have the same bits for every
    ``threads``, on every instruction set and at every position in the batch.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
    embedding_size : int, optional
        Ids select rows of a trained matrix instead of standing for one-hot vectors.
    cell : {"tanh", "relu"}
    dtype : {"float32", "float64"}
    recurrent_init, input_init : str
        A name in `crnn.initial.RULES`: orthogonal, identity, glorot, uniform (the textbook's 1/sqrt(n)), unit, zeros;
        with a gain in front if wanted, as in ``"0.5*identity"``. Biases start at zero, an embedding with variance 1.
    seed : int
        The same seed gives the same weights on every machine.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(input_size=3, hidden_size=4, seed=0)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> y, state = net(x)
    >>> y.shape, state.shape
    ((5, 2, 4), (1, 2, 4))
    >>> y, state, tape = net.forward(x)
    >>> dx, dstate = net.backward(tape, np.ones_like(y))
    >>> net.grads["layer0.W_hh"].shape
    (4, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str = "tanh",
        *,
        embedding_size: int | None = None,
        dtype: str = "float32",
        recurrent_init: str = "orthogonal",
        input_init: str = "glorot",
        seed: int = 0,
        _parameters: Parameters | None = None,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        if not isinstance(cell, str) or cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
        self.cell = cell
        self.dtype = check_dtype(dtype)
        self.recurrent_init, self.input_init = recurrent_init, input_init
        self.embedding_size = None if embedding_size is None else check_size("embedding_size", embedding_size)
        shapes = self.parameter_shapes(self.input_size, self.hidden_size, self.num_layers, self.embedding_size)
        self._parameters = _parameters or Parameters(shapes, self.dtype)
        self._act = CELLS[cell]
        draw = uniform_draws(seed)
        for name, values in self.params.items():
            if name.endswith(".W_hh"):
                values[...] = initial_matrix(recurrent_init, draw, values.shape, "recurrent_init")
            elif name.endswith(".W_xh"):
                values[...] = initial_matrix(input_init, draw, values.shape, "input_init")
            elif name == "embedding":
                values[...] = initial_matrix("unit", draw, values.shape, "embedding")

    @staticmethod
    def parameter_shapes(
        input_size: int, hidden_size: int, num_layers: int, embedding_size: int | None = None
    ) -> dict[str, tuple[int, ...]]:
        """Names and shapes of a stack's parameters, in their order in the flat buffer."""
        shapes: dict[str, tuple[int, ...]] = {}
        if embedding_size is not None:
            shapes["embedding"] = (input_size, embedding_size)
            input_size = embedding_size
        for layer in range(num_layers):
            shapes[f"layer{layer}.W_xh"] = (hidden_size if layer else input_size, hidden_size)
            shapes[f"layer{layer}.W_hh"] = (hidden_size, hidden_size)
            shapes[f"layer{layer}.b_h"] = (hidden_size,)
        return shapes

    def __repr__(self) -> str:
        return (
            f"RNN(input_size={self.input_size}, hidden_size={self.hidden_size}, num_layers={self.num_layers}, "
            f"cell={self.cell!r}, embedding_size={self.embedding_size}, dtype={self.dtype!r})"
        )

    # ---- forward --------------------------------------------------------------------------------------------------

    def __call__(
        self, x: ArrayLike, state: ArrayLike | None = None, *, threads: int = 1
    ) -> tuple[Array, Array]:
        """Output (T, B, H) and state (L, B, H) after the last step, both fresh. See `forward`."""
        y, state_after, _ = self.forward(x, state, threads=threads)
        return y, state_after

    def forward(
        self, x: ArrayLike, state: ArrayLike | None = None, *, threads: int = 1, tape: Tape | None = None
    ) -> tuple[Array, Array, Tape]:
        """Run all steps.

        Parameters
        ----------
        x : array (T, B, D), or integer ids (T, B)
            T and B at least 1. Not modified; the tape keeps it, so leave it alone until `backward`.
        state : array (L, B, H), optional
            State before the first step; zeros if not given.
        threads : int
            Threads to split the batch over.
        tape : Tape, optional
            One from an earlier call, to be written over if it has the right shape.

        Returns
        -------
        y : array (T, B, H)
            Hidden states of the top layer. Belongs to the tape.
        state : array (L, B, H)
            State after the last step. Belongs to the tape.
        tape : Tape
            For `backward`.
        """
        threads = parallel.check_threads(threads)
        tape = self._new_tape(self._check_input(x), state, tape)
        self._pack_forward(tape)
        batch = tape.batch
        parts = min(threads, batch)
        parallel.run(parts, lambda part: self._forward_rows(tape, *parallel.share(batch, part, parts)))
        return tape.h[-1], tape.h0_next, tape

    def _check_input(self, x: ArrayLike) -> Array:
        array = np.asarray(x)
        if array.dtype.kind in "iu":
            if array.ndim != 2 or 0 in array.shape:
                raise ValueError(f"x: expected ids of shape (T, B), T and B at least 1, got shape {array.shape}")
            if array.dtype != np.int32 and (array.min() < 0 or array.max() >= self.input_size):
                raise ValueError(
                    f"x: expected ids from 0 to {self.input_size - 1}, got {array.min()} to {array.max()}"
                )
            array = np.ascontiguousarray(array, np.int32)
            gemm.need_ids("x", array, self.input_size)  # NumPy's min and max take longer than a small window's step
            return array
        if self.embedding_size is not None:
            raise TypeError(f"x: expected integer ids (T, B) for the embedding, got {array.dtype}")
        if array.ndim != 3 or 0 in array.shape[:2] or array.shape[2] != self.input_size:
            raise ValueError(f"x: expected shape (T, B, {self.input_size}), got {array.shape}")
        return self._real("x", array)

    def _real(self, name: str, array: Array) -> Array:
        """Contiguous, in the network's dtype. Another precision is an oversight: refused, not rounded."""
        if array.dtype != self.dtype:
            raise TypeError(f"{name}: expected {self.dtype}, got {array.dtype}")
        return np.ascontiguousarray(array)

    def _check_state(self, name: str, state: ArrayLike, batch: int) -> Array:
        array = np.asarray(state)
        expected = (self.num_layers, batch, self.hidden_size)
        if array.shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
        return self._real(name, array)

    def _new_tape(self, x: Array, state: ArrayLike | None, tape: Tape | None) -> Tape:
        L, H = self.num_layers, self.hidden_size
        steps, batch = x.shape[:2]
        if tape is not None and tape.x.shape == x.shape and tape.x.dtype == x.dtype:
            tape.x = x
            tape.inputs[0].take(x)
        else:
            h = [gemm.aligned_empty((steps, batch, H), self.dtype) for _ in range(L)]
            tape = Tape(
                x=x,
                h0=gemm.aligned_empty((L, batch, H), self.dtype),
                h=h,
                h0_next=gemm.aligned_empty((L, batch, H), self.dtype),
                inputs=[self._first_input(x), *(Dense(layer, h[layer - 1], H) for layer in range(1, L))],
                recurrent=[gemm.Packed(H, H, self.dtype) for _ in range(L)],
            )
        tape.h0[...] = 0 if state is None else self._check_state("state", state, batch)
        return tape

    def _first_input(self, x: Array) -> LayerInput:
        if x.ndim == 3:
            return Dense(0, x, self.hidden_size)
        if self.embedding_size is None:
            return Rows(x, self.input_size, self.hidden_size, self.dtype)
        embedding = self.params["embedding"]
        kind = EmbeddedRows if self.input_size <= x.size else EmbeddedDense
        return kind(x, embedding, self.hidden_size)

    def _pack_forward(self, tape: Tape) -> None:
        for layer, source in enumerate(tape.inputs):
            source.pack_forward(self.params)
            tape.recurrent[layer].pack(self.params[f"layer{layer}.W_hh"])

    def _forward_rows(self, tape: Tape, b0: int, b1: int) -> None:
        for layer, source in enumerate(tape.inputs):
            h = tape.h[layer]
            source.forward_rows(h, tape.h0[layer], tape.recurrent[layer], self._act, b0, b1)
            tape.h0_next[layer, b0:b1] = h[-1, b0:b1]

    # ---- backward -------------------------------------------------------------------------------------------------

    def backward(
        self, tape: Tape, dy: ArrayLike, dstate: ArrayLike | None = None, *, threads: int = 1
    ) -> tuple[Array | None, Array]:
        """Backpropagation through all steps of a tape, with the parameters as they were in its forward pass.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        dy : array (T, B, H)
            Gradient of the loss at y. Not modified.
        dstate : array (L, B, H), optional
            Gradient of the loss at the state after the last step; zero if not given.
        threads : int

        Returns
        -------
        dx : array (T, B, D), or None for ids
        dstate : array (L, B, H)
            Gradient at the state before the first step. Both belong to the tape; the parameters' gradients are added
            to `grads`.
        """
        threads = parallel.check_threads(threads)
        shape = tape.h[-1].shape
        dy = np.asarray(dy)
        if dy.shape != shape:
            raise ValueError(f"dy: expected shape {shape}, got {dy.shape}")
        dy = self._real("dy", dy)
        if dstate is not None:
            dstate = self._check_state("dstate", dstate, tape.batch)
        self._pack_backward(tape)
        assert tape.dh0 is not None
        parts = min(threads, tape.batch)

        def rows(part: int) -> None:
            b0, b1 = parallel.share(tape.batch, part, parts)
            tape.da[-1][:, b0:b1] = dy[:, b0:b1]
            self._backward_rows(tape, dstate, b0, b1)

        parallel.run(parts, rows)
        parallel.run(threads, lambda part: self._weight_gradients(tape, part, threads))
        self._finish_gradients(tape)
        return (tape.inputs[0].dx if tape.x.ndim == 3 else None), tape.dh0

    def _pack_backward(self, tape: Tape) -> None:
        if not tape.da:
            H = self.hidden_size
            tape.da = [gemm.aligned_empty(h.shape, self.dtype) for h in tape.h]
            tape.dh0 = gemm.aligned_empty(tape.h0.shape, self.dtype)
            tape.recurrent_t = [gemm.Packed(H, H, self.dtype) for _ in tape.h]
            for source, da in zip(tape.inputs[1:], tape.da, strict=False):
                source.dx = da  # what arrives at the h of the layer below
        for layer, source in enumerate(tape.inputs):
            source.pack_backward(self.params)
            tape.recurrent_t[layer].pack_transposed(self.params[f"layer{layer}.W_hh"])

    def _backward_rows(self, tape: Tape, dstate: Array | None, b0: int, b1: int) -> None:
        """From the top layer down; on entry the top layer's da holds dy."""
        assert tape.dh0 is not None
        for layer in reversed(range(self.num_layers)):
            da = tape.da[layer]
            if dstate is not None:
                da[-1, b0:b1] += dstate[layer, b0:b1]
            cells.rnn_backward(da, tape.dh0[layer], tape.h[layer], tape.recurrent_t[layer], self._act, b0, b1)
            tape.inputs[layer].backward_rows(da, b0, b1)

    def _weight_gradients(self, tape: Tape, part: int, parts: int) -> None:
        """This part's columns of dW_hh += sum over t of h[t-1].T @ da[t], of db_h += sum of da, and of dW_xh."""
        scratch = tape.scratch(part)
        n0, n1 = parallel.share(self.hidden_size, part, parts, gemm.line_width(self.dtype))
        for layer, source in enumerate(tape.inputs):
            da, h = tape.da[layer], tape.h[layer]
            dw_hh, db_h = self.grads[f"layer{layer}.W_hh"], self.grads[f"layer{layer}.b_h"]
            source.weight_gradients(self.grads, da, scratch, part, parts)
            gemm.linear_backward_weight(dw_hh, tape.h0[layer : layer + 1], da[:1], scratch, n0, n1)
            gemm.linear_backward_weight(dw_hh, h[:-1], da[1:], scratch, n0, n1)
            gemm.bias_backward(db_h, da, n0, n1)

    def _finish_gradients(self, tape: Tape) -> None:
        """What needs all columns of a weight gradient."""
        tape.inputs[0].finish(self.grads)
