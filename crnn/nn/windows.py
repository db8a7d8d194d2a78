# SPDX-License-Identifier: MIT
"""Inference in windows of time: long sequences without arrays for all of their steps.

The state is carried from window to window, so results are bit-identical to those of a single pass. A layer that reads
backward needs all steps at once: bidirectional networks are not computed in windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from crnn import _parallel as parallel
from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.nn.slices import Slice
from crnn.nn.stack import Stack
from crnn.nn.state import State, StateLike
from crnn.nn.tape import Tape

# Bytes of the largest array of a window: of the outputs of a layer, or in a window in which sequences end, whose gates
# are not computed in chunks, of the gates. Large enough that the 0.1 ms that a window costs do not matter.
OUTPUT_BYTES = 1 << 18
GATE_BYTES = 1 << 20
# Of a whole batch: below, a single pass is faster and takes little memory.
WHOLE_BYTES = 1 << 22


class Window(NamedTuple):
    """A range of steps, and the rows that they have in arrays (T, B, ...), or packed (1, M, ...)."""

    start: int  # first step
    stop: int
    sequences: int  # that have the first step: the longest ones
    lengths: Array | None  # of these sequences within the window; None: all steps
    packed: slice | None  # of the rows of packed arrays

    def of(self, array: Array) -> Array:
        """View of the rows of this window: (stop - start, sequences, ...), or packed."""
        if self.packed is None:
            return array[self.start : self.stop]
        rows = array[:, self.packed]
        if self.lengths is not None:
            return rows
        return rows.reshape(self.stop - self.start, self.sequences, *array.shape[2:])


# Called with a window, its tape and a part of its sequences, once they are computed; from several threads.
Each = Callable[[Window, Tape, Slice], None]


def saves_memory(stack: Stack, x: Array, lengths: Lengths | None) -> bool:
    """Whether a batch can be computed in windows, and is so large that it should be. Arguments as in `run_windows`."""
    of_row = np.dtype(stack.config.dtype).itemsize * stack.config.widest
    if lengths is not None:
        of_row *= stack.cell.gates
    return not stack.config.bidirectional and x.shape[0] * x.shape[1] * of_row > WHOLE_BYTES


def run_windows(
    stack: Stack, x: Array, state: StateLike | None, lengths: Lengths | None, threads: int, each: Each | None = None
) -> State:
    """Run all steps of a network that reads forward, for inference. Returns the state after the last step, fresh.

    Parameters
    ----------
    stack : Stack
    x : array (T, B, D), or ids (T, B), packed with ``lengths``
        As `Stack.check_input` returns it.
    state : see `RNN`, or None
        Before the first step. None: the trainable initial state, or zeros.
    lengths : Lengths, optional
    threads : int
    each : callable, optional
        Is called with the sequences in the order of their places: the longest first.
    """
    batch = x.shape[1] if lengths is None else lengths.B
    ranked = None if lengths is None else lengths.ranked()
    before = stack.new_state(batch)
    tape: Tape | None = None
    if state is not None:
        before.assign("state", state)
        if ranked is not None:
            before.reorder(ranked)
    for window in _windows(stack, x, lengths):
        given = None if state is None and window.start == 0 else before.rows(0, window.sequences)
        of_window = None
        if window.lengths is not None:
            of_window = Lengths(window.lengths, window.stop - window.start, 1, packed=True)
        inputs = window.of(x)
        if tape is not None and (tape.x.shape != inputs.shape or tape.lengths is not None or of_window is not None):
            tape = None  # frees its memory before that of the next one is allocated
        fresh = tape is None
        tape = stack.new_tape(inputs, given, tape, lengths=of_window, threads=threads, keep=False)
        if fresh:
            stack.pack_forward(tape)
        _run_window(stack, window, tape, each)
        before.assign_rows(tape.after)
    if lengths is not None:
        after = stack.new_state(batch)
        before.reorder(lengths.places, into=after)
        return after
    return before


def _run_window(stack: Stack, window: Window, tape: Tape, each: Each | None) -> None:
    """Run the steps of one window, split over threads."""

    def rows(number: int) -> None:
        part = tape.part(number)
        stack.forward(tape, part)
        if each is not None:
            each(window, tape, part)

    parallel.run(tape.parts, rows)


def _windows(stack: Stack, x: Array, lengths: Lengths | None) -> Iterator[Window]:
    """The windows of a batch, in the order of time."""
    size = np.dtype(stack.config.dtype).itemsize * stack.config.widest
    most, most_ending = OUTPUT_BYTES // size, GATE_BYTES // (size * stack.cell.gates)
    if lengths is None:
        T, B = x.shape[:2]
        steps = max(1, most // B)
        for t in range(0, T, steps):
            yield Window(t, min(t + steps, T), B, None, None)
        return
    counts, start = lengths.lengths[lengths.ranked()], 0
    active, row = len(counts), 0
    while active:
        shortest = int(counts[active - 1]) - start
        steps, of_window = max(1, most // active), None
        if shortest >= min(steps, max(1, most_ending // active)):  # until one ends
            steps = min(steps, shortest)
            end = row + steps * active
        else:
            steps = min(max(1, most_ending // active), int(counts[0]) - start)
            of_window = np.minimum(counts[:active] - start, steps)
            end = row + int(of_window.sum())
        yield Window(start, start + steps, active, of_window, slice(row, end))
        start, row = start + steps, end
        active = int(np.searchsorted(-counts, -start, side="left"))  # with more than `start` steps
