# SPDX-License-Identifier: MIT
"""The last steps of a learner: what they read, their targets, and the gradient of their losses.

    KeptWindow      an update after every window: the forward pass of each step is kept until then
    RereadWindow    updates before a window is full: each runs the window forward again, with the current weights
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from crnn._core.arrays import StepCopies, checked_ids
from crnn.checks import Array
from crnn.nn.learning.readout import Readout
from crnn.nn.learning.unrolled import Unrolled
from crnn.nn.stack import Stack

__all__ = ["KeptWindow", "RereadWindow", "Window"]

MOST_TAPES = 64  # that are kept, of windows between resets

Maker = Callable[[int, Unrolled | None], Unrolled]  # makes one of so many steps, with the packed weights of another


class Window(ABC):
    """Up to T steps of B streams.

    Attributes
    ----------
    steps : int
        n: those in the window.
    fresh : int
        Those of them that came after the last update.
    starts : list of int
        The steps before which a stream was reset, ascending.
    """

    steps: int
    fresh: int
    starts: list[int]
    _inputs: Array  # (T or more, B, D), or ids (T or more, B); the window begins at `_first`
    _targets: Array  # (T or more, B, ...)
    _resets: Array  # bool (T or more, B): streams that were reset before a step
    _first: int
    _again: Again

    def __init__(self, stack: Stack, readout: Readout, make: Maker, size: int, interval: int, batch: int) -> None:
        self._stack, self._readout = stack, readout
        self._size, self._interval = size, interval
        self._trains_start = stack.config.trainable_initial_state
        self.steps = self.fresh = self._first = 0
        self.starts = []

    def of_steps(self, array: Array, start: int, stop: int) -> Array:
        """The rows of `inputs`, `targets` or `resets` of these steps."""
        rows: Array = array[self._first + start : self._first + stop]
        return rows

    @property
    def inputs(self) -> Array:
        """(T, B, D), or ids (T, B); the first n steps are those of the window."""
        return self.of_steps(self._inputs, 0, self._size)

    @property
    def targets(self) -> Array:
        """(T, B, ...), as `inputs`."""
        return self.of_steps(self._targets, 0, self._size)

    @property
    def resets(self) -> Array:
        """bool (T, B): streams that were reset before a step."""
        return self.of_steps(self._resets, 0, self._size)

    @property
    def due(self) -> bool:
        """Whether it is time for an update."""
        return self.fresh >= self._interval

    @property
    @abstractmethod
    def room(self) -> int:
        """How many steps `run` may be given."""

    @abstractmethod
    def run(self, x: Array) -> None:
        """Read steps x (m, B, ...), whose targets are missing at first; not if an update is due."""

    @abstractmethod
    def outputs(self, m: int) -> Array:
        """The outputs (m, B, V) of the last m steps, which are not more than the last call of `run` was given."""

    @abstractmethod
    def losses(self, start: int, stop: int) -> Array | None:
        """The losses (stop - start, B) of these steps, which `outputs` could return; None if they are not known."""

    @abstractmethod
    def set_targets(self, first: int, targets: Array) -> None:
        """Set the targets of the steps from ``first`` on, which `outputs` could return."""

    @property
    @abstractmethod
    def state(self) -> list[Array]:
        """The arrays (B, H) of the state after the last step, in the order of `State.arrays`; writable."""

    def reset(self, streams: Array) -> None:
        """Put the streams (B,) that are True, of which there are some, into the initial state, before the next step."""
        set_initial(self._stack, self.state, streams)
        self._resets[self._first + self.steps] |= streams
        if self.steps not in self.starts:
            self.starts.append(self.steps)

    def weight(self) -> float:
        """See `Readout.weight`: of the targets in the window."""
        return self._readout.weight(self.of_steps(self._targets, 0, self.steps))

    @abstractmethod
    def backward(self, scale: float) -> None:
        """ACCUMULATE the gradient of scale * (the sum of the losses) of all steps."""

    @abstractmethod
    def take_back(self) -> None:
        """Take back the last call of `run`, of one step, after which nothing was done."""

    @abstractmethod
    def begin_next(self) -> None:
        """After an update: keep the steps that the next one will need."""

    @abstractmethod
    def forget(self) -> None:
        """Forget all steps, but not the state."""

    # ---- files ----------------------------------------------------------------------------------------------------

    def check_steps(self, steps: int, fresh: int) -> None:
        """Raise ValueError unless a window can have so many steps, of which so many are fresh."""
        if not (fresh <= min(steps, self._interval) and steps - fresh <= self._size - self._interval):
            raise ValueError(f"window: expected at most {self._size} steps, got {steps}, {fresh} of them fresh")

    def stored(self, steps: int | None = None) -> dict[str, Array]:
        """The arrays that `restore` takes, finite; of another number of steps only their shapes and dtypes count."""
        n = self.steps if steps is None else steps
        targets = self.targets[:n]
        arrays = {"inputs": self.inputs[:n], "targets": targets, "resets": self.resets}
        if targets.dtype.kind == "f":
            arrays["missing"] = np.isnan(targets)
            arrays["targets"] = np.where(arrays["missing"], targets.dtype.type(0), targets)
        return arrays | self._stored_states(n)

    @abstractmethod
    def _stored_states(self, n: int) -> dict[str, Array]:
        """The states in a file, of n steps."""

    def restore(self, stored: Mapping[str, Array], steps: int, fresh: int) -> None:
        """Set what `stored` returned, of the shapes and dtypes that it says, in a window that has read nothing.

        Raises ValueError for ids or targets that cannot be, and for resets after the steps.
        """
        inputs, targets, resets = stored["inputs"], stored["targets"], stored["resets"]
        if inputs.dtype.kind == "i":
            checked_ids("window.inputs", inputs, self._stack.config.input_size)
        if "missing" in stored:
            targets[stored["missing"]] = np.nan
        if steps:
            self._readout.check_targets("window.targets", targets)
        if resets[steps + 1 :].any():
            raise ValueError("window.resets: expected none after the steps of the window")
        self.inputs[:steps], self.targets[:steps], self.resets[:] = inputs, targets, resets
        self._restore_states(stored, steps)
        self.steps, self.fresh = steps, fresh
        self.starts = np.flatnonzero(resets.any(axis=1)).tolist()

    @abstractmethod
    def _restore_states(self, stored: Mapping[str, Array], n: int) -> None:
        """Set the states, and compute the outputs that `outputs` could return."""


class KeptWindow(Window):
    """A window with one update at its end."""

    steps: int
    fresh: int
    starts: list[int]

    def __init__(self, stack: Stack, readout: Readout, make: Maker, size: int, interval: int, batch: int) -> None:
        super().__init__(stack, readout, make, size, interval, batch)
        self._tape = make(size, None)
        self._inputs, self._targets = self._tape.inputs, self._tape.targets
        self._resets = np.zeros((size, batch), bool)
        self._tape.before.clear()
        before = [array[None] for array in self._tape.before.arrays]
        self._again = Again(self, stack, lambda steps: make(steps, self._tape), before)
        self.reset(np.ones(batch, bool))

    @property
    def room(self) -> int:
        return self._size - self.steps

    def run(self, x: Array) -> None:
        first, stop = self.steps, self.steps + len(x)
        self._tape.pack()
        self._inputs[first:stop] = x
        self._tape.forward(first, stop)
        self.steps = self.fresh = stop

    def outputs(self, m: int) -> Array:
        return self._tape.outputs[self.steps - m : self.steps]

    def losses(self, start: int, stop: int) -> Array | None:
        return self._tape.losses(start, stop)

    def set_targets(self, first: int, targets: Array) -> None:
        self._targets[first : first + len(targets)] = targets

    @property
    def state(self) -> list[Array]:
        return self._tape.states(self.steps)

    def backward(self, scale: float) -> None:
        mixed = self._trains_start and bool(self.starts) and not self._resets[0].all()
        if self.steps < self._size or self.starts not in ([], [0]) or mixed:
            # The state after a step has been replaced, or gradients stop between steps
            self._again.backward(0, scale)
        else:
            self._tape.learn(scale, from_initial_state=self._trains_start and bool(self.starts))

    def _stored_states(self, n: int) -> dict[str, Array]:
        return {f"before.{i}": array for i, array in enumerate(self._tape.before.arrays)}

    def _restore_states(self, stored: Mapping[str, Array], n: int) -> None:
        tape = self._tape
        tape.before.set_arrays([stored[f"before.{i}"] for i in range(len(tape.before.arrays))])
        tape.pack()
        for t in range(n):
            if t and self._resets[t].any():
                set_initial(self._stack, tape.states(t), self._resets[t])
            tape.forward(t, t + 1)
        if 0 < n < self._size and self._resets[n].any():  # before a step that was taken back
            set_initial(self._stack, tape.states(n), self._resets[n])

    def take_back(self) -> None:
        self.steps -= 1
        self.fresh = self.steps

    def begin_next(self) -> None:
        self.forget()

    def forget(self) -> None:
        if self.steps:
            self._tape.state_after(self.steps, self._tape.before)
            self._readout.set_missing(self._targets)  # of the next steps
            if self.starts:
                self._resets[:] = False
                self.starts = []
        self.steps = self.fresh = 0


class RereadWindow(Window):
    """A window with updates before it is full."""

    steps: int
    fresh: int
    starts: list[int]

    def __init__(self, stack: Stack, readout: Readout, make: Maker, size: int, interval: int, batch: int) -> None:
        super().__init__(stack, readout, make, size, interval, batch)
        self._step = make(1, None)
        rows = 2 * size  # so that steps need not be moved after every update
        self._inputs = np.zeros((rows, *self._step.inputs.shape[1:]), self._step.inputs.dtype)
        self._targets, self._resets = readout.new_targets(rows, batch), np.zeros((rows, batch), bool)
        self._step.before.clear()
        # before each step
        self._states = [np.zeros((rows, *array.shape), array.dtype) for array in self._step.before.arrays]
        before = [array[None] for array in self._step.before.arrays]
        missing = readout.new_targets(1, batch)
        self._keep = StepCopies(
            [*self._states, self._inputs, self._targets], [*before, self._step.inputs, missing]
        )
        self._set_target = StepCopies([self._targets], [self._step.targets])
        self._again = Again(self, stack, lambda steps: make(steps, self._step), self._states)
        self.reset(np.ones(batch, bool))

    @property
    def room(self) -> int:
        return 1

    def run(self, x: Array) -> None:
        tape, row = self._step, self._first + self.steps
        tape.pack()
        tape.inputs[...] = x
        self._keep.run(row, 0, 1)
        tape.step()
        self.steps, self.fresh = self.steps + 1, self.fresh + 1

    def outputs(self, m: int) -> Array:
        return self._step.outputs

    def losses(self, start: int, stop: int) -> Array | None:
        return self._step.losses(0, 1)

    def set_targets(self, first: int, targets: Array) -> None:
        self._step.targets[...] = targets
        self._set_target.run(self._first + first, 0, 1)

    @property
    def state(self) -> list[Array]:
        return self._step.before.arrays

    def backward(self, scale: float) -> None:
        self._again.backward(self._first, scale)

    def _stored_states(self, n: int) -> dict[str, Array]:
        now = {f"state.{i}": array for i, array in enumerate(self.state)}
        return now | {f"before.{i}": self.of_steps(history, 0, n) for i, history in enumerate(self._states)}

    def _restore_states(self, stored: Mapping[str, Array], n: int) -> None:
        tape = self._step
        for i, history in enumerate(self._states):
            history[:n] = stored[f"before.{i}"]
        if n:
            tape.before.set_arrays([history[n - 1] for history in self._states])
            tape.inputs[0], tape.targets[0] = self._inputs[n - 1], self._targets[n - 1]
            tape.pack()
            tape.forward(0, 1)
        tape.before.set_arrays([stored[f"state.{i}"] for i in range(len(self._states))])

    def take_back(self) -> None:
        self.steps -= 1
        self.fresh -= 1
        self._step.before.set_arrays([history[self._first + self.steps] for history in self._states])

    def begin_next(self) -> None:
        steps = self.steps
        kept = min(steps, self._size - self._interval)
        dropped = steps - kept
        starts = [start - dropped for start in self.starts if start >= dropped] if self.starts else []
        # In one statement, so that what an interrupt leaves can be called again
        self._first, self.steps, self.fresh, self.starts = self._first + dropped, kept, 0, starts
        if self._first > self._size:  # move the steps to the front
            for array in (self._inputs, self._targets, *self._states):
                array[:kept] = self.of_steps(array, 0, kept).copy()
            resets = np.zeros_like(self._resets)
            resets[:kept] = self.of_steps(self._resets, 0, kept)
            self._resets, self._first = resets, 0

    def forget(self) -> None:
        if self.steps:  # otherwise the resets are those before the first step
            self.starts = []
            self._resets[:] = False
            self._first = 0
        self.steps = self.fresh = 0


@dataclass(eq=False, slots=True)
class Part:
    """A tape for some steps of a window, and what copies them and the state before them to it."""

    tape: Unrolled
    steps: StepCopies
    before: StepCopies


class Again:
    """Runs a window forward again and back: one tape for the steps between two resets, through which no gradient goes.

    Parameters
    ----------
    window : Window
    stack : Stack
    make : callable
        Makes a tape of so many steps.
    states : sequence of arrays
        (T, B, H): states from which windows begin, in the order of `State.arrays`.
    """

    def __init__(self, window: Window, stack: Stack, make: Callable[[int], Unrolled], states: Sequence[Array]) -> None:
        self._window, self._stack, self._make, self._states = window, stack, make, states
        self._trains_start = stack.config.trainable_initial_state
        self._parts: OrderedDict[tuple[int, int], Part] = OrderedDict()

    def backward(self, state: int, scale: float) -> None:
        """`Window.backward`. ``state``: which of the states is that before the first step."""
        window = self._window
        starts = window.starts
        if not starts or (starts == [0] and not self._trains_start):
            part = self._begin(0, window.steps, 0)
            part.before.run(0, state, 1)
            part.tape.learn(scale, forward=True)
            return
        bounds = [0, *(start for start in starts if 0 < start < window.steps), window.steps]
        if all(window.resets[start].all() for start in starts if start < window.steps):
            self._backward_apart(bounds, state, scale)
        else:
            self._backward_between(bounds, state, scale)

    def _begin(self, start: int, stop: int, number: int) -> Part:
        """A part with these steps of the window. ``number``: of those of the same length, if each needs its own tape.
        """
        key, window = (stop - start, number), self._window
        part = self._parts.get(key)
        if part is None:
            tape = self._make(stop - start)
            before = StepCopies([array[None] for array in tape.before.arrays], self._states)
            part = Part(tape, StepCopies([tape.inputs, tape.targets], [window._inputs, window._targets]), before)
            self._parts[key] = part
            if len(self._parts) > MOST_TAPES:
                self._parts.popitem(last=False)
        else:
            self._parts.move_to_end(key)
        part.tape.pack()
        part.steps.run(0, window._first + start, stop - start)
        return part

    def _backward_apart(self, bounds: Sequence[int], state: int, scale: float) -> None:
        """`backward` of a window whose resets are of all streams.

        No state and no gradient passes them, so each part is run forward and back before the next one, and parts of
        the same length share a tape.
        """
        window = self._window
        everyone = np.ones(window.resets.shape[1], bool)
        for start, stop in reversed(list(pairwise(bounds))):  # in this order gradients are summed
            part = self._begin(start, stop, 0)
            begins = start in window.starts
            if begins and self._trains_start:
                set_initial(self._stack, part.tape.before.arrays, everyone)
            elif begins:
                part.tape.before.clear()
            else:
                part.before.run(0, state, 1)
            initial = self._trains_start and begins
            part.tape.learn(scale, from_initial_state=initial, forward=True)

    def _backward_between(self, bounds: Sequence[int], state: int, scale: float) -> None:
        """`backward` of a window with resets, of which some are not of all streams."""
        window, lengths, tapes = self._window, Counter[int](), list[Unrolled]()
        for start, stop in pairwise(bounds):
            part = self._begin(start, stop, lengths[stop - start])
            tape = part.tape
            lengths[stop - start] += 1
            if tapes:
                tape.before.set_arrays(tapes[-1].states(tapes[-1].steps))
            else:
                part.before.run(0, state, 1)
            if start in window.starts:
                set_initial(self._stack, tape.before.arrays, window.resets[start])
            tape.forward(0, tape.steps)
            tapes.append(tape)
        for number in reversed(range(len(tapes))):
            tape, streams = tapes[number], window.resets[bounds[number]]
            tape.backward(scale, continues=number + 1 < len(tapes))
            gradient = tape.before_gradient
            if number:
                after = tapes[number - 1].after_gradient
                after.set_arrays(gradient.arrays)
                for array in after.arrays:
                    array[streams] = 0
            trained = self._trains_start and bool(streams.any())
            if trained:
                for array in gradient.arrays:
                    array[~streams] = 0
            tape.gradients(from_initial_state=trained)


def set_initial(stack: Stack, arrays: Sequence[Array], streams: Array) -> None:
    """Set the rows of a state (B, H) whose streams (B,) are True to the initial state."""
    names = ["h", "c"] if stack.cell.has_c else ["h"]
    values = [stack.params.get(f"layer{layer}.{name}0") for name in names for layer in range(len(stack.state_sizes))]
    for array, initial in zip(arrays, values, strict=True):
        array[streams] = 0 if initial is None else initial
