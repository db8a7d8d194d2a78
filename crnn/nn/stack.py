# SPDX-License-Identifier: MIT
"""Stack: forward and backward pass of a network's layers over one window. Independent of losses, optimizers and files.

    h_t = cell( x_t W_xh + b_h, h_{t-1} W_hh )        for every layer; the next layer's x is this one's h, or with the
                                                      option dense_layers the h of all layers below it

The methods are called in this order: new_tape, draw_masks, pack_forward, forward for each slice of the batch;
pack_backward, backward for each slice, weight_gradients for each range of columns, finish_gradients. Methods that take
a slice or a part may run in different threads. The caller starts the threads, so that `crnn.models.passes.predictor`
can compute the head's part of a slice in the same thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import gemm
from crnn._core.arrays import checked_ids, pinned
from crnn._core.rows import Lengths
from crnn.array_input import as_array, check_finite, in_precision, is_finite, real_numbers
from crnn.checks import Array
from crnn.nn.cells import CELLS
from crnn.nn.config import NetworkConfig
from crnn.nn.dropout import Masks
from crnn.nn.inputs import Dense, EmbeddedDense, LayerInput, first_input
from crnn.nn.params import Parameters
from crnn.nn.precision import check_can_train, check_trainable
from crnn.nn.program import Phase, WindowProgram, run_phases
from crnn.nn.recurrence import Recurrence
from crnn.nn.slices import Slice
from crnn.nn.state import State, StateLike
from crnn.nn.tape import CHUNK_BYTES, COPIED_BYTES, LayerTape, ShardTape, Tape, TapeLayout
from crnn.stream.state import check_state

Arrays = dict[str, Array]

# Inference keeps the padding of batches with at most so many rows (t, b), or so many times the sum of the lengths, if
# the outputs of the layers below the top take at most so many bytes.
FEW_ROWS = 256
MOST_PADDED = 3
PADDED_BYTES = 1 << 22
PADDED_CHUNKS = 4  # times CHUNK_BYTES, since padding is not touched: 5 % faster at H = 64


class PackedDirection(NamedTuple):
    """The packed weights of one direction of a layer."""

    cell: dict[str, Any]  # as in `Recurrence.weights`
    source: tuple[gemm.Packed, Array] | None  # W_xh and b_h of an input that is `Dense`


class Stack:
    """The layers that a configuration describes. Borrows the parameters and the gradients."""

    config: NetworkConfig
    parameters: Parameters
    params: Arrays  # by name, shapes as `NetworkConfig.shapes` lists them
    grads: Arrays  # the same names and shapes
    cell: type[Recurrence]
    state_sizes: list[int]  # H of every layer and direction
    _prefixes: list[tuple[str, int, int, bool]]  # as `NetworkConfig.prefixes` lists them
    _matrix_rows: int  # of the largest weight matrix
    _packed: dict[str, PackedDirection]  # of a frozen network, by the prefix of the parameters' names
    frozen: bool  # whether the parameters are read-only, so that they need to be packed only once

    def __init__(self, config: NetworkConfig, parameters: Parameters) -> None:
        self.config, self.parameters = config, parameters
        self.params, self.grads = parameters.values, parameters.grads
        self.frozen, self._packed = config.precision is not None, {}
        self.cell = CELLS[config.cell]
        self._prefixes = config.prefixes()
        shapes = [shape for name, shape in parameters.shapes.items() if name != "embedding"]  # whose gradient is a sum
        self._matrix_rows = max(shape[0] for shape in shapes if len(shape) == 2)
        self.state_sizes = [H for H in config.hidden_sizes for _ in range(config.directions)]

    # ---- arguments ------------------------------------------------------------------------------------------------

    def check_padded(
        self, x: ArrayLike, lengths: ArrayLike | None, keep: bool = True
    ) -> tuple[Array, Lengths | None]:
        """x as `check_input` returns it, finite, and the lengths; None if no sequence ends before the last step.

        With lengths, x is packed unless they say otherwise: a batch for inference, that is without ``keep``, keeps its
        padding if it has little. Padding may have any values.
        """
        checked, given = self._check_lengths(x, lengths, keep)
        if checked.ndim == 3 and not (given is not None and not given.packed and is_finite(checked)):
            of_steps = checked if given is None or given.packed else given.as_packed().pack(checked)
            check_finite("x", of_steps, place=given is None)
        return checked, given

    def _check_lengths(self, x: ArrayLike, lengths: ArrayLike | None, keep: bool) -> tuple[Array, Lengths | None]:
        """`check_padded`, except that x may be not finite."""
        if lengths is None:
            return self.check_input(x), None
        array = self._as_input(x)
        steps, batch = array.shape[:2]
        pin = pinned(array)  # the conversion of lengths may run any code
        given = Lengths(as_array("lengths", lengths), steps, 1)
        if batch != given.B:
            raise ValueError(f"lengths: expected shape ({batch},), got ({given.B},)")
        if given.rows == steps * batch:
            return self.check_input(array), None
        if not keep and self._keeps_padding(given):
            if array.dtype != self.config.dtype:  # no padding is checked
                padding = given.padding()
                array = np.where(padding if array.ndim == 2 else padding[:, :, None], array.dtype.type(0), array)
            return self.check_input(array), given
        given = given.as_packed()
        packed = given.pack(array)
        del pin
        return self.check_input(packed), given

    def check_input(self, x: ArrayLike, name: str = "x") -> Array:
        """x as the kernels take it: C-contiguous, (T, B, D) in the network's dtype, or ids (T, B) as int32.

        Ids are a copy, others are borrowed if possible. Raises ValueError for a wrong shape, an id out of range or
        a number that overflows, TypeError for what is not numbers; they call x ``name``.
        """
        array = self._as_input(x, name)
        if array.dtype.kind in "iu":
            return checked_ids(name, array, self.config.input_size)
        return in_precision(name, array, self.config.dtype)

    def _keeps_padding(self, lengths: Lengths) -> bool:
        """Whether inference is faster, and takes little more memory, on arrays with padding than on packed ones.

        Then there is nothing to copy, and gates are computed in chunks that stay in cache.
        """
        rows, config = lengths.T * lengths.B, self.config
        if rows > max(FEW_ROWS, MOST_PADDED * lengths.rows):
            return False
        between = config.directions * sum(config.hidden_sizes) - config.hidden_sizes[-1]  # h that are not the output
        if config.dense_layers:
            between += sum(K for _, K, _, reverse in self._prefixes[config.directions :] if not reverse)
        return rows * between * np.dtype(config.dtype).itemsize <= PADDED_BYTES

    def _as_input(self, x: ArrayLike, name: str = "x") -> Array:
        """x as an array of real numbers (T, B, D), or of integers (T, B)."""
        array = as_array(name, x)
        if array.dtype.kind not in "iu":
            array = real_numbers(name, array)
        self._check_shape(array, name)
        return array

    def _check_shape(self, x: Array, name: str = "x") -> None:
        """Raise ValueError or TypeError unless x has the shape of an input, and integers if only ids are accepted."""
        D = self.config.input_size
        if x.dtype.kind in "iu":
            if x.ndim != 2 or 0 in x.shape:
                raise ValueError(f"{name}: expected ids of shape (T, B), T and B at least 1, got shape {x.shape}")
        elif self.config.embedding_size is not None:
            raise TypeError(f"{name}: expected integer ids (T, B) for the embedding, got {x.dtype}")
        elif x.ndim != 3 or 0 in x.shape[:2] or x.shape[2] != D:
            raise ValueError(f"{name}: expected shape (T, B, {D}), got {x.shape}")

    def new_state(self, batch: int) -> State:
        """A state for ``batch`` rows, not initialised."""
        return State(self.state_sizes, self.cell.has_c, batch, self.config.dtype)

    def _check_state(self, state: StateLike, batch: int) -> list[Array]:
        """Copies of the arrays of a state given by a user. Raises ValueError and TypeError."""
        return check_state("state", state, self.state_sizes, self.cell.has_c, batch, self.config.dtype)

    def last_output(self, state: State) -> Array:
        """y (B, output_size) of the step after which this is the state, of a network that reads forward."""
        return np.concatenate(state.h, axis=1) if self.config.dense_layers else state.h[-1]

    # ---- tapes ----------------------------------------------------------------------------------------------------

    def new_tape(
        self,
        x: Array,
        state: StateLike | None,
        tape: Tape | None,
        *,
        lengths: Lengths | None = None,
        threads: int = 1,
        keep: bool = True,
        max_rows: int = 0,
        precision: str | None = None,
        tokens: int | None = None,
    ) -> Tape:
        """A tape that holds x and the state before the first step.

        Parameters
        ----------
        x : array (T, B, D), or ids (T, B)
            As `check_input` returns it; borrowed until the backward pass. With ``lengths`` packed: (1, M, D) or (1, M).
        state : see `RNN`, or None
            Copied. None: the trainable initial state, or zeros.
        tape : Tape or None
            Reused if it has the right shape. Raises ValueError for a tape of another network.
        lengths : Lengths, optional
            Packed, as x is; without ``keep`` they and x may have padding.
        threads : int
            Slices that the batch is split into.
        keep : bool
            Whether a backward pass follows.
        max_rows : int
            Rows of the largest weight matrix whose gradient the caller will compute in the tape's scratch.
        precision : str, optional
            One of `crnn.nn.precision.TRAINING`: of the products and their gradients, if not that of the arrays. Raises
            ValueError for another one, and where the network cannot be trained in it.
        tokens : int, optional
            As in `TapeLayout`; if not given, T*B.
        """
        check_can_train(precision, self.config.dtype, self.config.precision)
        pin = pinned(x)  # first: the conversions of the other arguments may run any code
        if tape is not None:
            self.check_own(tape)
        steps, batch = x.shape[:2] if lengths is None else (lengths.T, lengths.B)
        given = None  # set before the tape changes
        if tape is not None and tape.batch == batch and tape.after.is_value(state):
            tape.after.check_finite("state")
            given = tape.after.arrays
        elif state is not None:
            given = self._check_state(state, batch)
        owns_x = lengths is None and x.nbytes <= COPIED_BYTES
        tokens = steps * batch if tokens is None else tokens
        layout = TapeLayout(x.shape, x.dtype, steps, batch, keep, owns_x, precision, tokens)
        if tape is None or tape.layout != layout:
            chunk_bytes = CHUNK_BYTES if lengths is None else PADDED_CHUNKS * CHUNK_BYTES
            if owns_x:
                x = self._own(x)
            max_rows = max(max_rows, self._matrix_rows)
            old, tape = tape, self._make_tape(x, layout, chunk_bytes, max_rows)
            if old is not None and not keep and not old.keep and old.precision == precision:
                tape.take_packed(old)
        tape.complete = False
        tape.set_x(x, pin)
        tape.parts = min(threads, batch)
        tape.lengths = None if lengths is None else lengths.split(tape.parts)
        tape.from_initial_state = given is None
        if given is not None:
            tape.before.set_arrays(given)
        elif not self.config.trainable_initial_state:
            tape.before.clear()
        else:
            for name, arrays in tape.before.parts:
                for array, cell in zip(arrays, tape.recurrences, strict=True):
                    array[...] = self.params.get(f"{cell.prefix}{name}0", 0)
        return tape

    @staticmethod
    def _own(x: Array) -> Array:
        """A copy in memory that belongs to a tape."""
        copy = gemm.aligned_empty(x.shape, x.dtype)
        copy[...] = x
        return copy

    def check_own(self, tape: Tape) -> None:
        """Raise TypeError unless this is a tape, ValueError unless this network made it."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected a tape from forward, got {type(tape).__name__}")
        if tape.stack is not self:
            raise ValueError("tape: expected one that this network has made, got that of another network")

    def _make_tape(self, x: Array, layout: TapeLayout, chunk_bytes: int, max_rows: int) -> Tape:
        """A new tape for windows like that of x. ``chunk_bytes``: of a chunk of steps. Others as in `new_tape`."""
        config, dtype = self.config, self.config.dtype
        before, after = self.new_state(layout.batch), self.new_state(layout.batch)
        layers: list[LayerTape] = []
        for number in range(len(config.hidden_sizes)):
            below = layers[-1].y if layers else x if x.ndim == 3 else None
            dropped = config.dropout > 0 if layers else layout.keep and config.input_dropout > 0
            if below is not None:
                x = gemm.aligned_empty(below.shape, dtype) if dropped else below
            layer = self._make_layer(number, x, layout, before, chunk_bytes)
            if dropped and below is not None:
                layer.below = below
            layers.append(layer)
        return Tape(
            stack=self,
            x=layers[0].input,
            max_rows=max_rows,
            layout=layout,
            layers=layers,
            before=before,
            after=after,
        )

    def _make_layer(
        self, number: int, x: Array, layout: TapeLayout, before: State, chunk_bytes: int
    ) -> LayerTape:
        """Layer ``number`` of a new tape, which reads x (T, B, K) or ids (T, B), maybe packed."""
        config, dtype, keep, training = self.config, self.config.dtype, layout.keep, layout.precision
        T, rows, H = *x.shape[:2], config.hidden_sizes[number]
        width = self.cell.gates * H
        step_bytes = max(1, rows * width * np.dtype(dtype).itemsize)
        chunk_steps = max(1, chunk_bytes // step_bytes)
        directions: list[tuple[LayerInput, Recurrence]] = []
        for index in range(number * config.directions, (number + 1) * config.directions):
            prefix, _, _, reverse = self._prefixes[index]
            cell = self.cell(
                prefix,
                T,
                rows,
                before.batch,
                H,
                dtype,
                precision=training or config.precision_of(prefix + "W_hh"),
                reverse=reverse,
                keep=keep,
                chunk_steps=chunk_steps,
            )
            precision = training or config.precision_of(prefix + "W_xh")
            cell.h0 = before.h[index]
            if before.c is not None:
                cell.c0 = before.c[index]
            source = (
                Dense(prefix, x, width, precision)
                if number
                else first_input(
                    x, layout.tokens, self.params.get("embedding"), prefix, config.input_size, width, dtype,
                    precision, dropped=keep and config.input_dropout + config.embedding_dropout > 0
                )
            )
            directions.append((source, cell))
        carried = x.shape[2] if config.dense_layers and number else 0
        y = directions[0][1].h
        if carried or config.bidirectional:
            y = gemm.aligned_empty((T, rows, carried + config.directions * H), dtype)
        return LayerTape(x, directions, y, carried)

    def run_phases(
        self, tape: Tape, key: Hashable, phases: Callable[[], Sequence[Phase]], repeatable: bool = True
    ) -> None:
        """Run the phases of a pass over a tape, or repeat the kernel calls that it made before: see `run_phases`.

        ``key``: the name of the pass and the numbers that it depends on. ``repeatable``: whether it only calls kernels,
        as far as it is not the tape that decides it.
        """
        programs = tape.programs if repeatable and tape.repeatable else None
        run_phases(programs, key, (self.params, self.grads), phases)

    def program(self, tape: Tape, key: Hashable) -> WindowProgram | None:
        """What `run_phases` would repeat on this tape, whose x and state may have been replaced by others."""
        program = tape.programs.get(key)
        return program if program is not None and program.uses((self.params, self.grads)) else None

    # ---- forward --------------------------------------------------------------------------------------------------

    def draw_masks(self, tape: Tape, masks: Masks | None) -> None:
        """Draw the dropout masks of a training pass, in a fixed order. None: nothing is dropped."""
        config = self.config
        if not config.drops:
            masks = None
        if masks is None and not tape.masked:
            return
        tape.masked = masks is not None
        for number, layer in enumerate(tape.layers):
            layer.mask = None
            if number and layer.below is not None and masks is not None:
                layer.mask = self._draw_rows(masks, config.dropout, tape, layer.below.shape[2])
            for _, cell in layer.directions:
                mask = None
                if masks is not None and config.recurrent_dropout > 0:
                    mask = masks.draw(config.recurrent_dropout, cell.h0.shape, config.dtype)
                cell.set_mask(mask)
        self._mask_input(tape, masks)
        for cell in tape.recurrences:
            mask, w = None, self.params.get(cell.prefix + "W_hh")
            if masks is not None and config.weight_dropout > 0 and w is not None:
                mask = masks.draw(config.weight_dropout, w.shape, config.dtype)
            cell.set_weight_mask(mask, w)

    def _draw_rows(self, masks: Masks, p: float, tape: Tape, K: int) -> Array:
        """The next mask of an array (T, B, K), or packed, of a tape."""
        same = self.config.variational_dropout
        dtype = self.config.dtype
        return masks.draw_rows(p, tape.steps, tape.batch, K, dtype, same_for_all_steps=same, lengths=tape.lengths)

    def _mask_input(self, tape: Tape, masks: Masks | None) -> None:
        """Draw the mask of the first layer's input: of its elements, and of ids as a whole."""
        config, layer, mask = self.config, tape.layers[0], None
        embedding = self.params.get("embedding")
        if masks is not None and config.input_dropout > 0:
            if tape.x.ndim == 2 and embedding is None:
                raise ValueError(
                    f"input_dropout: expected 0 for ids without an embedding_size, got {config.input_dropout}"
                )
            K = layer.x.shape[2] if embedding is None else embedding.shape[1]
            mask = self._draw_rows(masks, config.input_dropout, tape, K)
        if masks is not None and config.embedding_dropout > 0 and embedding is not None:
            of_ids = masks.draw_ids(config.embedding_dropout, len(embedding), tape.x, config.dtype)
            mask = of_ids if mask is None else mask * of_ids
        layer.mask = mask
        for source, _ in layer.directions:
            if isinstance(source, EmbeddedDense):
                source.mask = mask

    def pack_forward(self, tape: Tape) -> None:
        """Pack the weights for the products of the forward pass. Those of read-only parameters are packed once."""
        trains = tape.precision is not None
        keeps = self.frozen and not trains
        for source, cell in zip(tape.sources, tape.recurrences, strict=True):
            packed = self._packed.get(cell.prefix) if keeps else None
            if packed is None:
                cell.pack_forward(self.params, trains)
            else:
                cell.weights = packed.cell
            if isinstance(source, Dense) and packed is not None and packed.source is not None:
                source.weights, source.bias = packed.source
            else:
                source.pack_forward(self.params, trains)
            if keeps and packed is None:
                of_source = (source.weights, source.bias) if isinstance(source, Dense) else None
                self._packed[cell.prefix] = PackedDirection(cell.weights, of_source)

    def forward(self, tape: Tape, part: Slice) -> None:
        """Run all layers and steps for one slice of the batch."""
        for number, layer in enumerate(tape.layers):
            layer.forward(part, tape.after, number * self.config.directions)

    # ---- backward -------------------------------------------------------------------------------------------------

    def check_complete(self, tape: Tape) -> None:
        """Raise TypeError or ValueError unless the tape holds a whole forward pass of this network."""
        self.check_own(tape)
        if not tape.complete:
            raise ValueError("tape: expected one of a finished forward pass, got one whose last has failed")

    def pack_backward(self, tape: Tape) -> None:
        """Pack the weights for the products of the backward pass, and allocate its arrays the first time.

        Raises ValueError for a tape that was made with ``keep=False``, and for a network that is for inference.
        """
        check_trainable(self.config.precision)
        if not tape.keep:
            raise ValueError("tape: expected one from forward, got one that keeps nothing for a backward pass")
        first_time = tape.dbefore is None
        dbefore = self.new_state(tape.batch) if tape.dbefore is None else tape.dbefore
        for index, cell in enumerate(tape.recurrences):
            cell.dh0 = dbefore.h[index]
            if dbefore.c is not None:
                cell.dc = dbefore.c[index]
            cell.pack_backward(self.params)
        if first_time:
            for number, layer in enumerate(tape.layers):
                own = layer.gathers
                layer.dy = np.empty(layer.y.shape, self.config.dtype) if own else layer.directions[0][1].dh
                if number:  # the gradient at x is the gradient at the output of the layer below
                    layer.directions[0][0].dx = tape.layers[number - 1].dy
            tape.dbefore = dbefore  # last: an interrupt before it is followed by another first time
        for source in tape.sources:
            source.pack_backward(self.params)

    def backward(self, tape: Tape, dafter: State | None, part: Slice) -> None:
        """Backpropagate through all layers and steps of one slice of the batch.

        On entry ``tape.dy`` is the gradient at y; ``dafter`` is the gradient at the state after the last step, None is
        zero.
        """
        for number in reversed(range(len(tape.layers))):
            tape.layers[number].backward(part, dafter, number * self.config.directions)

    def weight_gradients(self, tape: Tape, part: int, parts: int, shard: ShardTape | None = None) -> None:
        """ACCUMULATE the gradients of all weights in `grads`, for the columns that belong to ``part`` of ``parts``.

        ``shard``: sum over its rows only.
        """
        scratch, (sources, lengths, _) = tape.scratch(part), shard or ShardTape(tape.sources, tape.lengths)
        for source, cell in zip(sources, tape.recurrences, strict=True):
            source.weight_gradients(self.grads, cell.da, scratch, part, parts, lengths)
            cell.weight_gradients(self.grads, scratch, part, parts, lengths)

    def finish_gradients(self, tape: Tape, shard: ShardTape | None = None) -> None:
        """ACCUMULATE the gradients that need all rows, or all columns of a weight gradient. ``shard``: as above."""
        sources, _, rows = shard or ShardTape(tape.sources, tape.lengths)
        for source, cell in zip(sources, tape.recurrences, strict=True):
            source.finish_gradients(self.grads)
            cell.finish_gradients(self.grads, tape.from_initial_state, rows)

    def dx(self, tape: Tape) -> Array | None:
        """The gradient at a real x, packed if x is; None for ids. Belongs to the tape."""
        return tape.sources[0].dx if tape.x.ndim == 3 else None
