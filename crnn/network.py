# SPDX-License-Identifier: MIT
"""RNN: a stack of recurrent layers on arrays. Knows no text, no loss and no optimiser.

    h_t = cell( x_t W_xh + b_h, h_{t-1} W_hh )        for every layer; the next layer's x is this one's h
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn import parallel
from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.cells import Recurrence, Slice, cell_parameters, recurrence_of
from crnn.dropout import Masks, check_probability
from crnn.files import PathLike
from crnn.initial import Draw, initial_matrix, uniform_draws
from crnn.inputs import Dense, LayerInput, first_input
from crnn.params import Parameters, ParameterViews, check_dtype
from crnn.state import State, StateLike
from crnn.streaming import Streamable, StreamParts
from crnn.tape import AHEAD_BYTES, LayerTape, Tape

Array = NDArray[Any]
Ids = NDArray[np.int32]
Shapes = dict[str, tuple[int, ...]]

def check_size(name: str, value: object) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


class RNN(Streamable, ParameterViews):
    """A stack of recurrent layers.

    Conventions
    -----------
    Arrays are time-major and C-contiguous, in the network's ``dtype``: x (T, B, D), y (T, B, output_size), with T time
    steps, B rows of a batch, D input_size, H hidden_size. x may also be integer ids (T, B) from 0 to D-1, which stand
    for one-hot vectors and cost a row look-up. output_size is H, or 2*H when bidirectional, the forward half first.

    state is an array (L*directions, B, H), layer by layer, each with its directions; an LSTM's is a pair (h, c) of such
    arrays. Where layers have different sizes, a list of arrays (B, H_l) stands in place of the array.

    lengths, integers (B,) in any order: sequence b has the steps 0 .. lengths[b]-1. Outputs beyond are 0, nothing is
    computed there, and the state after the last step is that after each sequence's own last one.

    Parameters are named ``layer0.W_xh`` (D, G*H), ``layer0.W_hh`` (H, G*H), ``layer0.b_h`` (G*H,), ``layer1.W_xh`` and
    so on, with G gates in blocks: LSTM i, f, g, o; GRU r, z, n (PyTorch's order). A GRU with ``reset_after`` also has
    ``layer0.b_hn`` (H,). The other direction's are ``layer0.reverse.W_xh`` ...; a learnt initial state is ``layer0.h0``
    (H,), and ``layer0.c0``; with an embedding of size E there is ``embedding`` (D, E) in front, ``layer0.W_xh`` is
    (E, G*H), and x must be ids. Results have the same bits for every ``threads``, on every instruction set and at every
    position in the batch.

    Parameters
    ----------
    input_size : int
    hidden_size : int or sequence of int
        Units, of all layers or of each.
    num_layers : int, optional
        1 if not given, or as many as there are sizes.
    cell : {"tanh", "relu", "lstm", "gru"}
    bidirectional : bool
        A second recurrence in every layer reads from each sequence's last step to its first.
    reset_after : bool
        GRU: the reset gate acts after the recurrent product (PyTorch, cuDNN), or before it (Cho et al. 2014).
    forget_bias : float
        LSTM: what the forget gate's bias starts at. Jozefowicz, Zaremba, Sutskever 2015.
    embedding_size : int, optional
        Ids select rows of a trained matrix instead of standing for one-hot vectors.
    dropout : float
        Probability with which an element of a layer's output is dropped on its way to the next layer, in forward
        passes that are given a ``dropout_seed``; the others are scaled up.
    variational : bool
        One mask for all steps of a sequence. Gal, Ghahramani 2016.
    recurrent_dropout : float
        The same for h on its way through W_hh, always one mask for all steps.
    learn_state : bool
        The state before the first step, where none is given, is a parameter.
    dtype : {"float32", "float64"}
    recurrent_init, input_init : str
        A name in `crnn.initial.RULES`: orthogonal, identity, glorot, uniform (the textbook's 1/sqrt(n)), unit, zeros;
        with a gain in front if wanted, as in ``"0.5*identity"``; for each gate's block by itself. Biases start at zero,
        an embedding with variance 1. ``cell="relu", recurrent_init="identity"`` is the IRNN of Le, Jaitly, Hinton 2015.
    seed : int
        The same seed gives the same weights on every machine.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(input_size=3, hidden_size=4, cell="gru", bidirectional=True, seed=0)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> y, state = net(x, lengths=[5, 3])
    >>> y.shape, state.shape
    ((5, 2, 8), (2, 2, 4))
    >>> y, state, tape = net.forward(x)
    >>> dx, dstate = net.backward(tape, np.ones_like(y))
    >>> net.grads["layer0.reverse.W_hh"].shape
    (4, 12)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        cell: str = "tanh",
        *,
        bidirectional: bool = False,
        reset_after: bool = True,
        forget_bias: float = 1.0,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        learn_state: bool = False,
        dtype: str = "float32",
        recurrent_init: str = "orthogonal",
        input_init: str = "glorot",
        seed: int = 0,
        _parameters: Parameters | None = None,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_sizes = check_sizes(hidden_size, num_layers)
        self.cell = cell
        self.bidirectional = check_flag("bidirectional", bidirectional)
        self.reset_after = check_flag("reset_after", reset_after)
        if not isinstance(forget_bias, int | float) or not np.isfinite(forget_bias):
            raise ValueError(f"forget_bias: expected a finite number, got {forget_bias!r}")
        self.forget_bias = float(forget_bias)
        self.embedding_size = None if embedding_size is None else check_size("embedding_size", embedding_size)
        self.dropout = check_probability("dropout", dropout)
        self.variational = check_flag("variational", variational)
        self.recurrent_dropout = check_probability("recurrent_dropout", recurrent_dropout)
        self.learn_state = check_flag("learn_state", learn_state)
        self.dtype = check_dtype(dtype)
        self.recurrent_init, self.input_init = recurrent_init, input_init
        self._recurrence = recurrence_of(cell, self.reset_after)
        self._parameters = _parameters or Parameters(self.parameter_shapes(**self.config()), self.dtype)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        draw, gates = uniform_draws(seed), self.gates
        for name, values in self.params.items():
            kind = name.rpartition(".")[2]
            if kind in ("W_hh", "W_xh"):
                argument = "recurrent_init" if kind == "W_hh" else "input_init"
                H = values.shape[1] // gates
                for gate in range(gates):
                    block = initial_matrix(getattr(self, argument), draw, (values.shape[0], H), argument)
                    values[:, gate * H : (gate + 1) * H] = block
            elif kind == "embedding":
                values[...] = initial_matrix("unit", draw, values.shape, "embedding")
            elif kind == "b_h":
                self._recurrence.initialise_bias(values, self.forget_bias)

    def initialise_rows(self, draw: Draw) -> None:
        """Weights of the size that rows need which one-hot ids select: see `crnn.initial.unit`."""
        for prefix in ("layer0.", "layer0.reverse.")[: self.directions]:
            for block in np.split(self.params[prefix + "W_xh"], self.gates, axis=1):  # views
                block[...] = initial_matrix("unit", draw, block.shape, "input_init")

    @staticmethod
    def parameter_shapes(
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        cell: str = "tanh",
        *,
        bidirectional: bool = False,
        reset_after: bool = True,
        embedding_size: int | None = None,
        learn_state: bool = False,
        **_: object,
    ) -> Shapes:
        """Names and shapes of a stack's parameters, in their order in the flat buffer."""
        shapes: Shapes = {}
        recurrence = recurrence_of(cell, reset_after)
        if embedding_size is not None:
            shapes["embedding"] = (input_size, check_size("embedding_size", embedding_size))
            input_size = embedding_size
        for layer, H in enumerate(check_sizes(hidden_size, num_layers)):
            for direction in (".", ".reverse.") if bidirectional else (".",):
                prefix = f"layer{layer}{direction}"
                for name, shape in cell_parameters(recurrence.cell, input_size, H).items():
                    shapes[prefix + name] = shape
                if learn_state:
                    shapes |= {prefix + name: (H,) for name in (("h0", "c0") if recurrence.has_c else ("h0",))}
            input_size = 2 * H if bidirectional else H
        return shapes

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any]) -> Shapes:
        """Names and shapes of the parameters of a network with this `config`."""
        return cls.parameter_shapes(**config)

    def save(self, path: PathLike) -> None:
        """Write the network to a safetensors file, whole or not at all. `crnn.load` reads it."""
        from crnn.serialize import save

        save(self, path)

    def _stream_parts(self) -> StreamParts:
        return StreamParts(self)

    @property
    def hidden_size(self) -> int | list[int]:
        """Units of every layer, or a list of them where they differ."""
        return list(self.hidden_sizes) if len(set(self.hidden_sizes)) > 1 else self.hidden_sizes[0]

    @property
    def num_layers(self) -> int:
        return len(self.hidden_sizes)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def gates(self) -> int:
        """G: 1, GRU 3, LSTM 4."""
        return self._recurrence.gates

    @property
    def output_size(self) -> int:
        """Size of y: the top layer's units, of both directions."""
        return self.hidden_sizes[-1] * self.directions

    def config(self) -> dict[str, Any]:
        """The arguments that make a network of this shape. JSON-able."""
        names = (
            "input_size", "hidden_size", "num_layers", "cell", "bidirectional", "reset_after", "forget_bias",
            "embedding_size", "dropout", "variational", "recurrent_dropout", "learn_state", "dtype", "recurrent_init",
            "input_init",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def astype(self, dtype: str) -> RNN:
        """A copy of the network in another precision."""
        copy = RNN(**(self.config() | {"dtype": dtype, "recurrent_init": "zeros", "input_init": "zeros"}))
        copy.recurrent_init, copy.input_init = self.recurrent_init, self.input_init
        copy.flat_params[...] = self.flat_params
        return copy

    def __repr__(self) -> str:
        return f"RNN({self.describe()}, dtype={self.dtype!r})"

    def describe(self) -> str:
        """The arguments that matter, as one would write them."""
        shown = ["input_size", "hidden_size", "num_layers", "cell", "embedding_size"]
        options = ("bidirectional", "dropout", "variational", "recurrent_dropout", "learn_state")
        shown += [name for name in options if getattr(self, name)]
        shown += ["reset_after"] * (self.cell == "gru" and not self.reset_after)
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)

    # ---- forward --------------------------------------------------------------------------------------------------

    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
    ) -> tuple[Array, StateLike]:
        """Output (T, B, output_size) and the state after the last step, both fresh; nothing is dropped."""
        tape = self._run_forward(x, state, lengths, threads, None, None, keep=False)
        return tape.y, tape.after.value

    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
        tape: Tape | None = None,
        dropout_seed: int | None = None,
    ) -> tuple[Array, StateLike, Tape]:
        """Run all steps and keep what `backward` needs.

        Parameters
        ----------
        x : array (T, B, D), or integer ids (T, B)
            T and B at least 1. Not modified; the tape keeps it, so leave it alone until `backward`.
        state : see the class, optional
            State before the first step; zeros, or the learnt one, if not given.
        lengths : integers (B,), optional
            Steps of each sequence, from 1 to T; all T if not given.
        threads : int
            Threads to split the batch over.
        tape : Tape, optional
            One from an earlier call, to be written over if it has the right shape.
        dropout_seed : int, optional
            Training: drop with masks that this seed draws. Not given: nothing is dropped.

        Returns
        -------
        y : array (T, B, output_size)
            Outputs of the top layer. Belongs to the tape.
        state
            State after the last step. Belongs to the tape.
        tape : Tape
            For `backward`.
        """
        masks = None if dropout_seed is None else Masks(dropout_seed)
        tape = self._run_forward(x, state, lengths, threads, tape, masks, keep=True)
        return tape.y, tape.after.value, tape

    def _run_forward(
        self,
        x: ArrayLike,
        state: StateLike | None,
        lengths: ArrayLike | None,
        threads: int,
        tape: Tape | None,
        masks: Masks | None,
        *,
        keep: bool,
    ) -> Tape:
        threads = parallel.check_threads(threads)
        tape = self._new_tape(self._check_input(x), state, tape, lengths=lengths, threads=threads, keep=keep)
        self._draw_masks(tape, masks)
        self._pack_forward(tape)
        parallel.run(tape.parts, lambda part: self._forward_rows(tape, tape.part(part)))
        return tape

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

    def _new_state(self, batch: int) -> State:
        sizes = [H for H in self.hidden_sizes for _ in range(self.directions)]
        return State(sizes, self._recurrence.has_c, batch, self.dtype)

    def _new_tape(
        self,
        x: Array,
        state: StateLike | None,
        tape: Tape | None,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
        keep: bool = True,
        widest: int = 0,
    ) -> Tape:
        """A tape, or the given one if it fits, with x and the state before the first step in place.

        ``widest``: rows of the largest weight matrix that is not the network's own.
        """
        parts = min(threads, x.shape[1])
        given = None if lengths is None else Lengths(lengths, len(x), parts)
        if given is not None and x.shape[1] != given.B:
            raise ValueError(f"lengths: expected shape ({x.shape[1]},), got ({given.B},)")
        if not (
            tape is not None
            and tape.x.shape == x.shape
            and tape.x.dtype == x.dtype
            and tape.keep == keep
            and (keep or (tape.lengths is None) == (given is None))
        ):
            weights = (shape[0] for shape in self._parameters.shapes.values() if len(shape) == 2)
            tape = self._make_tape(x, keep, given is not None, max(widest, *weights))
        tape.x = tape.layers[0].x = x
        tape.lengths, tape.parts = given, parts
        for source, _ in tape.layers[0].directions:
            source.take(x)
        tape.from_start = state is None
        if state is not None:
            tape.before.fill("state", state)
        else:
            for name, arrays in tape.before.parts:
                for array, cell in zip(arrays, tape.recurrences, strict=True):
                    array[...] = self.params.get(f"{cell.prefix}{name}0", 0)
        return tape

    def _make_tape(self, x: Array, keep: bool, with_lengths: bool, widest: int) -> Tape:
        T, B = x.shape[:2]
        before, after = self._new_state(B), self._new_state(B)
        layers: list[LayerTape] = []
        for layer, H in enumerate(self.hidden_sizes):
            below = layers[-1].y if layers else None
            dropped = below is not None and self.dropout > 0
            if below is not None:
                x = gemm.aligned_empty(below.shape, self.dtype) if dropped else below
            row_bytes = max(1, B * self.gates * H * np.dtype(self.dtype).itemsize)
            span = T if with_lengths else max(1, AHEAD_BYTES // row_bytes)
            directions: list[tuple[LayerInput, Recurrence]] = []
            for reverse in (False, True)[: self.directions]:
                prefix = f"layer{layer}.reverse." if reverse else f"layer{layer}."
                cell = self._recurrence(prefix, T, B, H, self.dtype, reverse=reverse, keep=keep, span=span)
                place = layer * self.directions + reverse
                cell.h0 = before.h[place]
                if before.c is not None:
                    cell.c0 = before.c[place]
                width = self.gates * H
                source = (
                    Dense(prefix, x, width)
                    if layer
                    else first_input(x, self.params.get("embedding"), prefix, self.input_size, width, self.dtype)
                )
                directions.append((source, cell))
            y = directions[0][1].h
            if self.bidirectional:
                y = gemm.aligned_empty((T, B, 2 * H), self.dtype)
            layers.append(LayerTape(x, directions, y, below if dropped else None))
        return Tape(x=layers[0].x, widest=widest, keep=keep, layers=layers, before=before, after=after)

    def _draw_masks(self, tape: Tape, masks: Masks | None) -> None:
        """Masks for a training pass, in a fixed order; none otherwise."""
        for layer in tape.layers:
            layer.mask = None
            if layer.below is not None and masks is not None:
                T, B, K = layer.below.shape
                layer.mask = masks.draw(self.dropout, (1 if self.variational else T, B, K), self.dtype)
            for _, cell in layer.directions:
                drop = masks is not None and self.recurrent_dropout > 0
                cell.take_mask(
                    masks.draw(self.recurrent_dropout, cell.h0.shape, self.dtype) if drop and masks else None
                )

    def _pack_forward(self, tape: Tape) -> None:
        for source, cell in zip(tape.sources, tape.recurrences, strict=True):
            source.pack_forward(self.params)
            cell.pack_forward(self.params)

    def _forward_rows(self, tape: Tape, part: Slice) -> None:
        for number, layer in enumerate(tape.layers):
            layer.forward(part, tape.after, number * self.directions)

    # ---- backward -------------------------------------------------------------------------------------------------

    def backward(
        self, tape: Tape, dy: ArrayLike | None, dstate: StateLike | None = None, *, threads: int = 1
    ) -> tuple[Array | None, StateLike]:
        """Backpropagation through all steps of a tape, with the parameters as they were in its forward pass.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        dy : array (T, B, output_size), or None
            Gradient of the loss at y; read only where there are steps. Not modified. None, with a ``dstate``:
            zero, for a loss of the state alone.
        dstate : see the class, optional
            Gradient of the loss at the state after the last step; zero if not given.
        threads : int

        Returns
        -------
        dx : array (T, B, D), or None for ids
        dstate
            Gradient at the state before the first step. Both belong to the tape; the parameters' gradients are added
            to `grads`.
        """
        threads = parallel.check_threads(threads)
        arriving = None
        if dy is not None or dstate is None:
            arriving = np.asarray(dy)
            if arriving.shape != tape.y.shape:
                raise ValueError(f"dy: expected shape {tape.y.shape}, got {arriving.shape}")
            arriving = self._real("dy", arriving)
        dafter = None
        if dstate is not None:
            dafter = self._new_state(tape.batch)
            dafter.fill("dstate", dstate)
        self._pack_backward(tape)
        assert tape.dbefore is not None

        def rows(number: int) -> None:
            part = tape.part(number)
            tape.dy[:, part.rows] = 0 if arriving is None else arriving[:, part.rows]
            self._backward_rows(tape, dafter, part)

        parallel.run(tape.parts, rows)
        parallel.run(threads, lambda part: self._weight_gradients(tape, part, threads))
        self._finish_gradients(tape)
        return self._dx(tape), tape.dbefore.value

    def _dx(self, tape: Tape) -> Array | None:
        """The gradient at a real x, zero where there are no steps."""
        dx = tape.sources[0].dx if tape.x.ndim == 3 else None
        if dx is not None and tape.lengths is not None:
            dx[tape.lengths.padding()] = 0
        return dx

    def _pack_backward(self, tape: Tape) -> None:
        if not tape.keep:
            raise ValueError("tape: expected one from forward, got one that keeps nothing for a backward pass")
        first_time = tape.dbefore is None
        if tape.dbefore is None:
            tape.dbefore = self._new_state(tape.batch)
        for place, cell in enumerate(tape.recurrences):
            cell.dh0 = tape.dbefore.h[place]
            if tape.dbefore.c is not None:
                cell.dc = tape.dbefore.c[place]
            cell.pack_backward(self.params)
        if first_time:
            for number, layer in enumerate(tape.layers):
                layer.dy = np.empty(layer.y.shape, self.dtype) if self.bidirectional else layer.directions[0][1].dh
                layer.dy.fill(0)  # masks multiply what lies beyond a sequence's end, too, though it is never looked at
                if number:  # what goes back to x arrives at the output of the layer below
                    layer.directions[0][0].dx = tape.layers[number - 1].dy
        for source in tape.sources:
            source.pack_backward(self.params)

    def _backward_rows(self, tape: Tape, dafter: State | None, part: Slice) -> None:
        """From the top layer down; on entry the top layer's dy is there."""
        for number in reversed(range(self.num_layers)):
            tape.layers[number].backward(part, dafter, number * self.directions)

    def _weight_gradients(self, tape: Tape, part: int, parts: int) -> None:
        """This part's columns of all weights' gradients."""
        scratch = tape.scratch(part)
        for source, cell in zip(tape.sources, tape.recurrences, strict=True):
            source.weight_gradients(self.grads, cell.da, scratch, part, parts, tape.lengths)
            cell.weight_gradients(self.grads, scratch, part, parts, tape.lengths)

    def _finish_gradients(self, tape: Tape) -> None:
        """What needs all rows, or all columns of a weight gradient."""
        for source, cell in zip(tape.sources, tape.recurrences, strict=True):
            source.finish(self.grads)
            cell.finish_gradients(self.grads, tape.from_start)


def check_sizes(hidden_size: int | Sequence[int], num_layers: int | None) -> tuple[int, ...]:
    """The units of each layer."""
    if isinstance(hidden_size, str) or not isinstance(hidden_size, Sequence | np.ndarray):
        return (check_size("hidden_size", hidden_size),) * check_size(
            "num_layers", 1 if num_layers is None else num_layers
        )
    sizes = tuple(check_size("hidden_size", size) for size in hidden_size)
    if not sizes or (num_layers is not None and check_size("num_layers", num_layers) != len(sizes)):
        raise ValueError(f"hidden_size: expected a size for each of {num_layers or 'the'} layers, got {list(sizes)}")
    return sizes
