# SPDX-License-Identifier: MIT
"""A window whose rows are in several shards: one forward and backward pass for all, and weight gradients of each shard.

Rows are bit-identical at any position of a batch, so the gradients are those of a pass for each shard alone. Products
with all rows are faster, because they read the weights once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from crnn._core import loss
from crnn.checks import Array
from crnn.models.outputs.blocks import rows_of_block
from crnn.models.outputs.head import Head, HeadTape
from crnn.models.outputs.predictor import Predictor, Workspace
from crnn.nn.config import DROPOUTS
from crnn.nn.dropout import ShardMasks
from crnn.nn.inputs import EmbeddedRows
from crnn.nn.program import run_phases
from crnn.nn.recurrence import Recurrence
from crnn.nn.state import StateLike
from crnn.nn.tape import Tape

__all__ = ["ShardSpace", "ShardedWindow", "window_in_shards"]

OF_ROWS = ("dropout", "output_dropout", "recurrent_dropout")  # others drop weights or tokens, in each shard others
Range = tuple[int, int]


class ShardSpace:
    """Workspaces for all rows, and for shards by their number of rows."""

    whole: Workspace
    of_rows: dict[int, Workspace]

    def __init__(self) -> None:
        self.whole, self.of_rows = Workspace(), {}


def window_in_shards(
    predictor: Predictor,
    x: Array,
    targets: Array,
    sizes: Sequence[int],
    space: ShardSpace,
    state: StateLike | None,
    seeds: Sequence[list[int]],
    threads: int,
    precision: str | None,
) -> ShardedWindow | None:
    """Run all rows forward and backward. Returns None, before anything is computed, if they need a pass per shard.

    Parameters
    ----------
    x, targets : arrays (T, B)
        Ids and targets, as the kernels take them.
    sizes : sequence of int
        Rows of the shards, one after another.
    space : ShardSpace
    state, threads, precision
        As in `Predictor.start`.
    seeds : sequence of list of int
        Of the dropout masks of each shard.
    """
    head, config = predictor.head, predictor.net.stack.config
    if type(head) is not Head or any(getattr(config, name) for name in DROPOUTS if name not in OF_ROWS):
        return None
    T, B = x.shape
    if rows_of_block(T * B, head.columns, head.b_y.itemsize) < T * B:  # outputs of all rows are not kept
        return None
    if config.embedding_size is not None and len({config.input_size <= T * rows for rows in (B, *sizes)}) > 1:
        return None  # the embedding of all rows is read in another way than that of a shard, see `first_input`
    tape, head_tape = predictor.start(
        x,
        state,
        space.whole,
        threads=threads,
        masks=ShardMasks(seeds, sizes),
        keep=True,
        precision=precision,
        outputs=False,
    )
    for cell in tape.recurrences:
        cell.overwrite_gates = not cell.keep_dh
    run_phases(None, (), (), lambda: predictor.phases_of_rows(tape, head_tape, targets, 1.0, threads))
    ranges = list(itertools.pairwise([0, *itertools.accumulate(sizes)]))
    return ShardedWindow(predictor, tape, head_tape, targets, ranges, space, threads)


class ShardedWindow:
    """A window after its passes."""

    def __init__(
        self,
        predictor: Predictor,
        tape: Tape,
        head_tape: HeadTape,
        targets: Array,
        ranges: Sequence[Range],
        space: ShardSpace,
        threads: int,
    ) -> None:
        self._predictor, self._tape, self._head_tape, self._targets = predictor, tape, head_tape, targets
        self._ranges, self._space, self._threads = ranges, space, threads

    @property
    def after(self) -> StateLike:
        """The state of all rows after the last step. Belongs to the workspace."""
        return self._tape.after.value

    def gradients(self, shard: int) -> tuple[float, int]:
        """ACCUMULATE the gradients of a shard. Returns the sum of its losses, and the number of its targets."""
        predictor, rows, threads = self._predictor, slice(*self._ranges[shard]), self._threads
        tape, head_tape = self._tapes_of(rows)
        stack, head = predictor.net.stack, predictor.head

        def columns(part: int) -> None:
            stack.weight_gradients(tape, part, threads)
            head.weight_gradients(head_tape, tape.y, tape.scratch(part), part, threads, None)

        run_phases(None, (), (), lambda: [(threads, columns), (1, lambda _: stack.finish_gradients(tape))])
        losses = np.ascontiguousarray(self._head_tape.losses[:, rows])
        return loss.sum(losses.reshape(-1)), head.loss.count(self._targets[:, rows])

    def _tapes_of(self, rows: slice) -> tuple[Tape, HeadTape]:
        """Tapes with what the gradients of weights need of these rows."""
        whole, predictor = self._tape, self._predictor
        space = self._space.of_rows.setdefault(rows.stop - rows.start, Workspace())
        x = np.ascontiguousarray(whole.x[:, rows])
        tape, head_tape = predictor.start(x, None, space, keep=True, precision=whole.precision, outputs=False)
        if tape.dbefore is None:  # a new one: allocate what a backward pass writes
            for cell in tape.recurrences:
                cell.overwrite_gates = True
            predictor.net.stack.pack_backward(tape)
        tape.from_initial_state = whole.from_initial_state
        for cell, of_all in zip(tape.recurrences, whole.recurrences, strict=True):
            take_rows(cell, of_all, rows)
        for source, of_whole in zip(tape.sources, whole.sources, strict=True):
            if isinstance(source, EmbeddedRows) and isinstance(of_whole, EmbeddedRows):
                source.weights_t = of_whole.weights_t
            elif source.x.ndim == 3:
                source.x[...] = of_whole.x[:, rows]
                if source.dx is not None and of_whole.dx is not None:
                    source.dx[...] = of_whole.dx[:, rows]
        head_tape.outputs[...] = self._head_tape.outputs[:, rows]
        head_tape.mask = self._head_tape.mask
        if self._head_tape.mask is not None:
            assert self._head_tape.dropped is not None
            head_tape.dropped = np.ascontiguousarray(self._head_tape.dropped[:, rows])
        return tape, head_tape


def take_rows(cell: Recurrence, whole: Recurrence, rows: slice) -> None:
    """Copy into a cell's arrays what the gradients of its weights need of some rows of a pass."""
    cell.h[...], cell.h0[...] = whole.h[:, rows], whole.h0[rows]
    cell.da[...], cell.dh0[...] = whole.da[:, rows], whole.dh0[rows]
    if cell.dc is not None and whole.dc is not None:
        cell.dc[...] = whole.dc[rows]
    for name, array in cell.gradients.items():
        array[...] = whole.gradients[name][:, rows] if array.ndim == 3 else whole.gradients[name][rows]
    if "hn" in cell.kept:
        cell.kept["hn"][...] = whole.kept["hn"][:, rows]
    cell.mask = None if whole.mask is None else whole.mask[rows]
    if whole.h_masked is not None and whole.h0_masked is not None:
        cell.h_masked = np.ascontiguousarray(whole.h_masked[:, rows])
        cell.h0_masked = np.ascontiguousarray(whole.h0_masked[rows])
