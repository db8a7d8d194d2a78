# SPDX-License-Identifier: MIT
"""Unrolled: a network and its readout over some steps, forward step by step and backward in one go."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

from crnn import _parallel as parallel
from crnn._core import arrays as kernels
from crnn._core import gemm
from crnn.checks import Array
from crnn.nn.learning.readout import Readout
from crnn.nn.program import Phase, WindowProgram
from crnn.nn.stack import Stack
from crnn.nn.state import State
from crnn.nn.tape import Tape

__all__ = ["Unrolled"]

MOST_SCALES = 4  # of which the backward pass is recorded: windows with missing targets have others
WEIGHTS_TO_PACK = 1 << 20  # for each thread that packs


class Unrolled:
    """A tape of T steps of B streams, and the arrays of the readout.

    Kernel calls are recorded the first time, and repeated from then on (`crnn.nn.program`). The weights have to be
    packed, by `pack`, after each change.

    Parameters
    ----------
    stack : Stack
        Of a network that reads forward, without dropout.
    readout : Readout
    steps, batch : int
        T and B.
    ids : bool
        Whether inputs are ids.
    threads : int

    Attributes
    ----------
    steps : int
        T.
    outputs : array (T, B, V)
        Those of the steps that have been run; the backward pass may overwrite them.
    inputs : array (T, B, D), or ids (T, B)
        Written by the caller.
    targets : array (T, B, ...)
        Written by the caller.
    before : State
        Before the first step; written by the caller.
    """

    tape: Tape
    steps: int
    inputs: Array
    outputs: Array
    targets: Array
    before: State

    def __init__(self, stack: Stack, readout: Readout, steps: int, batch: int, *, ids: bool, threads: int) -> None:
        self._stack, self._readout, self._threads = stack, readout, threads
        dtype = stack.config.dtype
        shape = (steps, batch) if ids else (steps, batch, stack.config.input_size)
        zeros = gemm.aligned_zeros(shape, "int32" if ids else dtype)
        self.tape = stack.new_tape(zeros, None, None, threads=threads, max_rows=readout.rows)
        for cell in self.tape.recurrences:
            cell.overwrite_gates = True  # a forward pass precedes every backward pass
        self._own = readout.new_tape(self.tape)
        self.inputs, self.before = self.tape.x, self.tape.before
        self.outputs, self._losses = readout.outputs(self._own, self.tape), readout.losses(self._own)
        self.steps = steps
        self.targets = readout.new_targets(steps, batch)
        self._version: object = None  # of the weights that are packed
        self._programs: dict[Hashable, WindowProgram] = {}
        self._scales: set[float] = set()
        self._recordable = all(source.repeatable for source in self.tape.sources)

    def _run(self, key: Hashable, phases: Callable[[], Sequence[Phase]], record: bool = True) -> None:
        """Repeat the kernel calls of ``key``, or make and, if they will be repeated, record them."""
        program = self._programs.get(key)
        if program is not None:
            program.run()
            return
        if not (record and self._recordable):
            for parts, function in phases():
                parallel.run(parts, function)
            return
        program = WindowProgram(())
        for parts, function in phases():
            program.record(parts, function)
        self._programs[key] = program

    def pack(self, *, backward: bool) -> None:
        """Pack the weights if they have changed, for a forward pass or for both."""
        version = self._stack.parameters.changes.version
        if self._version is version:
            return
        self._version = None
        self._run(("pack", backward), lambda: self._packing(backward))
        self._version = version

    def _packing(self, backward: bool) -> Sequence[Phase]:
        packings: list[Callable[[], None]] = [
            partial(self._readout.pack, self._own, backward=backward),
            partial(self._stack.pack_forward, self.tape),
        ]
        if backward:
            packings.insert(1, partial(self._stack.pack_backward, self.tape))
        size = sum(values.size for values in self._stack.params.values())
        packers = min(self._threads, len(packings), max(1, size // WEIGHTS_TO_PACK))

        def pack(part: int) -> None:
            for packing in packings[part::packers]:
                packing()

        return [(packers, pack)]

    def forward(self, t0: int, t1: int) -> None:
        """Run the steps t0 .. t1-1, when those before have been run."""
        program = self._programs.get(("forward", t0, t1))
        if program is not None:  # as `_run` finds it, without what it takes
            program.run()
            return
        rows = partial(self._forward_rows, t0, t1)
        self._run(("forward", t0, t1), lambda: [(self.tape.parts, rows)], t1 - t0 in (1, self.steps))

    def _forward_rows(self, t0: int, t1: int, number: int) -> None:
        part = self.tape.part(number)
        for layer in self.tape.layers:
            layer.forward_steps(part, t0, t1)
        self._readout.forward(self._own, self.tape.y, t0, t1, part)

    def losses(self, t0: int, t1: int) -> Array | None:
        """The losses (t1 - t0, B) of the steps t0 .. t1-1, which belong to the tape; None if they are not known."""
        if self._losses is None:
            return None
        program = self._programs.get(("losses", t0, t1))
        if program is not None:
            program.run()
        else:
            rows = partial(self._loss_rows, t0, t1)
            self._run(("losses", t0, t1), lambda: [(self.tape.parts, rows)], t0 == 0 or t1 - t0 == 1)
        return self._losses[t0:t1]

    def _loss_rows(self, t0: int, t1: int, number: int) -> None:
        self._readout.forward_losses(self._own, self.targets, t0, t1, self.tape.part(number))

    def learn(self, scale: float, *, from_initial_state: bool = False, forward: bool = False) -> None:
        """`backward` and `gradients` in one go; with ``forward`` the forward pass of all steps before."""

        def rows(number: int) -> None:
            if forward:
                self._forward_rows(0, self.steps, number)
            self._backward_rows(scale, None, number)

        def phases() -> Sequence[Phase]:
            return [(self.tape.parts, rows), *self._gradient_phases()]

        self.tape.from_initial_state = from_initial_state
        self._run(("learn", scale, from_initial_state, forward), phases, self._is_frequent(scale))

    def _is_frequent(self, scale: float) -> bool:
        """Whether a backward pass of this scale is recorded."""
        if len(self._scales) < MOST_SCALES:
            self._scales.add(scale)
        return scale in self._scales

    def backward(self, scale: float, after: State | None = None) -> None:
        """Backpropagate scale * (the sum of the losses) through all steps, which have been run.

        ``after``: the gradient at the state after the last step; None is zero. `before_gradient` has that at the state
        before the first one. Those of the weights are computed by `gradients`.
        """
        rows = partial(self._backward_rows, scale, after)
        record = after is None and self._is_frequent(scale)
        self._run(("backward", scale) if record else None, lambda: [(self.tape.parts, rows)], record)

    def _backward_rows(self, scale: float, after: State | None, number: int) -> None:
        part = self.tape.part(number)
        self._readout.backward(self._own, self.tape, self.targets, scale, part)
        self._stack.backward(self.tape, after, part)

    @property
    def before_gradient(self) -> State:
        """The gradient at `before`."""
        assert self.tape.dbefore is not None
        return self.tape.dbefore

    def gradients(self, from_initial_state: bool) -> None:
        """ACCUMULATE the gradients of all weights.

        ``from_initial_state``: whether `before` is the trainable initial state, if there is one, and `before_gradient`
        its gradient.
        """
        self.tape.from_initial_state = from_initial_state
        self._run(("gradients", from_initial_state), lambda: self._gradient_phases())

    def _gradient_phases(self) -> list[Phase]:
        stack, tape, threads = self._stack, self.tape, self._threads

        def columns(part: int) -> None:
            stack.weight_gradients(tape, part, threads)
            self._readout.weight_gradients(self._own, tape, tape.scratch(part), part, threads)

        return [(threads, columns), (1, lambda _: stack.finish_gradients(tape))]

    def state_after(self, steps: int, into: State) -> None:
        """Copy the state after so many steps, which have been run, 1 or more."""

        def copy(_: int) -> None:
            for index, cell in enumerate(self.tape.recurrences):
                last = slice(steps - 1, steps)
                kernels.copy_rows(into.h[index][None], cell.h[last], 0, into.batch)
                if into.c is not None:
                    kernels.copy_rows(into.c[index][None], cell.kept["c"][last], 0, into.batch)

        own = into is self.before and steps == self.steps
        self._run(("state", steps) if own else None, lambda: [(1, copy)], own)

    def states(self, steps: int) -> list[Array]:
        """The arrays (B, H) of the state after so many steps, in the order of `State.arrays`; writable."""
        if not steps:
            return self.before.arrays
        cells = self.tape.recurrences
        found = [cell.h[steps - 1] for cell in cells]
        return found + ([cell.kept["c"][steps - 1] for cell in cells] if self.before.c is not None else [])
