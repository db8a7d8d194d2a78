# SPDX-License-Identifier: MIT
"""The last steps of a learner: what they read, their targets, and the gradient of their losses.

    KeptWindow      an update after every window: the forward pass of each step is kept until then
    RereadWindow    updates before a window is full: each runs the window forward again, with the weights of now
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from crnn._core.arrays import checked_ids
from crnn.checks import Array
from crnn.nn.learning.readout import Readout
from crnn.nn.learning.unrolled import Unrolled
from crnn.nn.stack import Stack
from crnn.nn.state import State

__all__ = ["KeptWindow", "RereadWindow", "Window"]

MOST_TAPES = 32  # that are kept, of windows between resets

Maker = Callable[[int], Unrolled]  # makes one of so many steps


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

    def __init__(self, stack: Stack, readout: Readout, make: Maker, size: int, interval: int, batch: int) -> None:
        self._stack, self._readout = stack, readout
        self._size, self._interval = size, interval
        self._trains_start = stack.config.trainable_initial_state
        self._again = Again(stack, make)
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
        self._tape = make(size)
        self._inputs, self._targets = self._tape.inputs, self._tape.targets
        self._resets = np.zeros((size, batch), bool)
        self._tape.before.clear()
        self.reset(np.ones(batch, bool))

    @property
    def room(self) -> int:
        return self._size - self.steps

    def run(self, x: Array) -> None:
        first, stop = self.steps, self.steps + len(x)
        self._tape.pack(backward=True)
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
            self._again.backward(self, self._tape.before.arrays, scale)
        else:
            self._tape.learn(scale, from_initial_state=self._trains_start and bool(self.starts))

    def _stored_states(self, n: int) -> dict[str, Array]:
        return {f"before.{i}": array for i, array in enumerate(self._tape.before.arrays)}

    def _restore_states(self, stored: Mapping[str, Array], n: int) -> None:
        tape = self._tape
        tape.before.set_arrays([stored[f"before.{i}"] for i in range(len(tape.before.arrays))])
        tape.pack(backward=True)
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
        self._step = make(1)
        rows = 2 * size  # so that steps need not be moved after every update
        self._inputs = np.zeros((rows, *self._step.inputs.shape[1:]), self._step.inputs.dtype)
        self._targets, self._resets = readout.new_targets(rows, batch), np.zeros((rows, batch), bool)
        self._step.before.clear()
        # before each step
        self._states = [np.zeros((rows, *array.shape), array.dtype) for array in self._step.before.arrays]
        self.reset(np.ones(batch, bool))

    @property
    def room(self) -> int:
        return 1

    def run(self, x: Array) -> None:
        tape, row = self._step, self._first + self.steps
        tape.pack(backward=False)
        for history, array in zip(self._states, tape.before.arrays, strict=True):
            history[row] = array
        tape.inputs[0] = self._inputs[row] = x[0]
        self._readout.set_missing(self._targets[row])
        tape.forward(0, 1)
        tape.state_after(1, tape.before)
        self.steps, self.fresh = self.steps + 1, self.fresh + 1

    def outputs(self, m: int) -> Array:
        return self._step.outputs

    def losses(self, start: int, stop: int) -> Array | None:
        return self._step.losses(0, 1)

    def set_targets(self, first: int, targets: Array) -> None:
        self._targets[self._first + first] = self._step.targets[0] = targets[0]

    @property
    def state(self) -> list[Array]:
        return self._step.before.arrays

    def backward(self, scale: float) -> None:
        self._again.backward(self, [history[self._first] for history in self._states], scale)

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
            tape.pack(backward=False)
            tape.forward(0, 1)
        tape.before.set_arrays([stored[f"state.{i}"] for i in range(len(self._states))])

    def take_back(self) -> None:
        self.steps -= 1
        self.fresh -= 1
        self._step.before.set_arrays([history[self._first + self.steps] for history in self._states])

    def begin_next(self) -> None:
        kept = min(self.steps, self._size - self._interval)
        dropped = self.steps - kept
        starts = [start - dropped for start in self.starts if start >= dropped]
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


class Again:
    """Runs a window forward again and back: one tape for the steps between two resets, through which no gradient goes.
    """

    def __init__(self, stack: Stack, make: Maker) -> None:
        self._stack, self._make = stack, make
        self._trains_start = stack.config.trainable_initial_state
        self._tapes: OrderedDict[tuple[int, int], Unrolled] = OrderedDict()

    def _tape(self, number: int, steps: int) -> Unrolled:
        """A tape of so many steps, for the part of a window with this number."""
        tape = self._tapes.pop((number, steps), None) or self._make(steps)
        self._tapes[number, steps] = tape
        if len(self._tapes) > MOST_TAPES:
            self._tapes.popitem(last=False)
        return tape

    def backward(self, window: Window, before: Sequence[Array], scale: float) -> None:
        """`Window.backward`. ``before``: the arrays of the state before the first step."""
        starts = window.starts
        if not starts or (starts == [0] and not self._trains_start):
            tape = self._begin(window, 0, 0, window.steps)
            tape.before.set_arrays(before)
            tape.learn(scale, forward=True)
            return
        self._backward_between(window, before, scale)

    def _begin(self, window: Window, number: int, start: int, stop: int) -> Unrolled:
        """A tape with these steps of a window."""
        tape = self._tape(number, stop - start)
        tape.pack(backward=True)
        tape.inputs[...] = window.of_steps(window._inputs, start, stop)
        tape.targets[...] = window.of_steps(window._targets, start, stop)
        return tape

    def _backward_apart(self, window: Window, bounds: Sequence[int], before: Sequence[Array], scale: float) -> None:
        """`backward` of a window whose resets are of all streams.

        No state and no gradient passes them, so each part is run forward and back before the next one, and parts of
        the same length can share a tape.
        """
        everyone = np.ones(window.resets.shape[1], bool)
        vectors = "dvectors" in self._stack.cell.info.arrays  # whose gradients a tape sums from one packing to the next
        for number, (start, stop) in reversed(list(enumerate(pairwise(bounds)))):  # in this order gradients are summed
            tape = self._begin(window, number if vectors else 0, start, stop)
            if start in window.starts:
                set_initial(self._stack, tape.before.arrays, everyone)
            else:
                tape.before.set_arrays(before)
            initial = self._trains_start and start in window.starts
            tape.learn(scale, from_initial_state=initial, forward=True)

    def _backward_between(self, window: Window, before: Sequence[Array], scale: float) -> None:
        """`backward` of a window with resets."""
        bounds = [0, *(start for start in window.starts if 0 < start < window.steps), window.steps]
        if all(window.resets[start].all() for start in window.starts if start < window.steps):
            self._backward_apart(window, bounds, before, scale)
            return
        tapes: list[Unrolled] = []
        for number, (start, stop) in enumerate(pairwise(bounds)):
            tape = self._begin(window, number, start, stop)
            if tapes:
                tapes[-1].state_after(tapes[-1].steps, tape.before)
            else:
                tape.before.set_arrays(before)
            if start in window.starts:
                set_initial(self._stack, tape.before.arrays, window.resets[start])
            tape.forward(0, tape.steps)
            tapes.append(tape)
        after: State | None = None
        for number in reversed(range(len(tapes))):
            tape, streams = tapes[number], window.resets[bounds[number]]
            tape.backward(scale, after)
            gradient = tape.before_gradient
            if number:
                after = self._stack.new_state(gradient.batch)
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
