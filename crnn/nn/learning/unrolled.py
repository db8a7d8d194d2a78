# SPDX-License-Identifier: MIT
"""Unrolled: a network and its readout over some steps, forward step by step and backward in one go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from crnn import _parallel as parallel
from crnn._core import arrays as kernels
from crnn._core import gemm
from crnn.checks import Array
from crnn.nn.inputs import Dense, LayerInput
from crnn.nn.learning.readout import Readout
from crnn.nn.program import Phase, WindowProgram
from crnn.nn.stack import Stack
from crnn.nn.state import State
from crnn.nn.tape import Tape

__all__ = ["Unrolled"]

MOST_SCALES = 4  # of which the backward pass is recorded: windows with missing targets, and the first ones, have others
WEIGHTS_TO_PACK = 1 << 20  # for each thread that packs

PACK, STEP = ("pack",), ("step",)  # keys of programs


class Unrolled:
    """A tape of T steps of B streams, and the arrays of the readout.

    Kernel calls are recorded the first time, and repeated from then on (`crnn.nn.program`). The weights have to be
    packed, by `pack`, after each change; that is done once for all that share them.

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
    packed : Unrolled, optional
        Of the same network, whose packed weights this one uses as well.

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

    def __init__(
        self,
        stack: Stack,
        readout: Readout,
        steps: int,
        batch: int,
        *,
        ids: bool,
        threads: int,
        packed: Unrolled | None = None,
    ) -> None:
        self._stack, self._readout, self._threads = stack, readout, threads
        dtype = stack.config.dtype
        shape = (steps, batch) if ids else (steps, batch, stack.config.input_size)
        zeros = gemm.aligned_zeros(shape, "int32" if ids else dtype)
        self.tape = stack.new_tape(zeros, None, None, threads=threads, max_rows=readout.rows)
        for cell in self.tape.recurrences:
            cell.overwrite_gates = True  # a forward pass precedes every backward pass
        first = self.tape.sources[0]
        if type(first) is Dense:
            first.wants_dx = False
        self._own = readout.new_tape(self.tape)
        self.inputs, self.before = self.tape.x, self.tape.before
        self.outputs, self._losses = readout.outputs(self._own, self.tape), readout.losses(self._own)
        self.steps = steps
        self.targets = readout.new_targets(steps, batch)
        self._version: object = None  # of the weights that are packed
        self._packed = packed
        self._shares = False  # whether this uses the weights of `_packed`, except those of `_unshared`
        self._unshared: list[LayerInput] = []
        self._programs: dict[tuple[Any, ...], WindowProgram] = {}  # by what is done, and its arguments
        self._scales: deque[float] = deque()  # those that are recorded
        self._candidates: deque[float] = deque(maxlen=MOST_SCALES)  # the last ones that are not
        self._recordable = all(source.repeatable for source in self.tape.sources)

    def _run(self, key: tuple[Any, ...], phases: Callable[[], Sequence[Phase]], record: bool = True) -> None:
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

    def pack(self) -> None:
        """Pack the weights if they have changed."""
        version = self._stack.parameters.changes.version
        if self._version is version:
            return
        self._version = None
        if self._packed is None:
            self._run(PACK, self._packing)
        else:
            self._packed.pack()
            if not self._shares:
                self._share(self._packed)
            if self._unshared:
                self._run(PACK, lambda: [(1, self._pack_unshared)])
        self._version = version

    def _share(self, packed: Unrolled) -> None:
        """Use the packed weights of another one, which are the current ones."""
        tape, other = self.tape, packed.tape
        self._stack.pack_backward(tape)  # allocates; what it packs is replaced
        self._readout.share_packed(self._own, packed._own)
        for cell, other_cell in zip(tape.recurrences, other.recurrences, strict=True):
            cell.weights, cell.weights_t = other_cell.weights, other_cell.weights_t
        unshared = []
        for source, other_source in zip(tape.sources, other.sources, strict=True):
            if type(source) is type(other_source):
                for name in source.packed:
                    setattr(source, name, getattr(other_source, name))
            else:  # ids of few steps are taken from an embedding in another way than those of many
                unshared.append(source)
        self._unshared, self._shares = unshared, True

    def _pack_unshared(self, _: int) -> None:
        for source in self._unshared:
            source.pack_forward(self._stack.params, False)
            source.pack_backward(self._stack.params)

    def _packing(self) -> Sequence[Phase]:
        packings: list[Callable[[], None]] = [
            partial(self._readout.pack, self._own),
            partial(self._stack.pack_backward, self.tape),
            partial(self._stack.pack_forward, self.tape),
        ]
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

    def step(self) -> None:
        """Run the one step of a tape of one, and set `before` to the state after it."""
        program = self._programs.get(STEP)
        if program is not None:
            program.run()
            return
        rows = partial(self._forward_rows, 0, 1)
        self._run(STEP, lambda: [(self.tape.parts, rows), (1, partial(self._copy_state, 1, self.before))])

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
        key = ("learn", scale, from_initial_state, forward)
        program = self._programs.get(key)
        if program is not None:  # as `_run` finds it, without what it takes
            program.run()
            return

        def rows(number: int) -> None:
            if forward:
                self._forward_rows(0, self.steps, number)
            self._backward_rows(scale, None, number)

        def phases() -> Sequence[Phase]:
            return [(self.tape.parts, rows), *self._gradient_phases()]

        self.tape.from_initial_state = from_initial_state
        self._run(key, phases, self._is_frequent(scale))

    def _is_frequent(self, scale: float) -> bool:
        """Whether a backward pass of this scale is recorded: once one of the last few that were not had it."""
        if scale in self._scales:
            return True
        if scale not in self._candidates:
            self._candidates.append(scale)
            return False
        self._scales.append(scale)
        if len(self._scales) > MOST_SCALES:
            oldest = self._scales.popleft()
            for key in [key for key in self._programs if key[0] in ("learn", "backward") and key[1] == oldest]:
                del self._programs[key]
        return True

    def backward(self, scale: float, *, continues: bool = False) -> None:
        """Backpropagate scale * (the sum of the losses) through all steps, which have been run.

        ``continues``: whether `after_gradient` is the gradient at the state after the last step; otherwise it is zero.
        `before_gradient` has that at the state before the first one. Those of the weights are computed by `gradients`.
        """
        rows = partial(self._backward_rows, scale, self.after_gradient if continues else None)
        self._run(("backward", scale, continues), lambda: [(self.tape.parts, rows)], self._is_frequent(scale))

    def _backward_rows(self, scale: float, after: State | None, number: int) -> None:
        part = self.tape.part(number)
        for cell in self.tape.recurrences:
            cell.clear_gradients(part.b0, part.b1)
        self._readout.backward(self._own, self.tape, self.targets, scale, part)
        self._stack.backward(self.tape, after, part)

    @cached_property
    def after_gradient(self) -> State:
        """The gradient at the state after the last step; written by the caller."""
        return self._stack.new_state(self.before.batch)

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
        own = into is self.before and steps == self.steps
        copy = partial(self._copy_state, steps, into)
        self._run(("state", steps) if own else (), lambda: [(1, copy)], own)

    def _copy_state(self, steps: int, into: State, _: int) -> None:
        last = slice(steps - 1, steps)
        for index, cell in enumerate(self.tape.recurrences):
            kernels.copy_rows(into.h[index][None], cell.h[last], 0, into.batch)
            if into.c is not None:
                kernels.copy_rows(into.c[index][None], cell.kept["c"][last], 0, into.batch)

    def states(self, steps: int) -> list[Array]:
        """The arrays (B, H) of the state after so many steps, in the order of `State.arrays`; writable."""
        if not steps:
            return self.before.arrays
        cells = self.tape.recurrences
        found = [cell.h[steps - 1] for cell in cells]
        return found + ([cell.kept["c"][steps - 1] for cell in cells] if self.before.c is not None else [])
