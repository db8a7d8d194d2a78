# SPDX-License-Identifier: MIT
"""WindowProgram: the kernel calls of a pass over a window, recorded the second time and repeated from then on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from crnn import _parallel as parallel
from crnn._core.program import Program, same_values

MOST_PROGRAMS = 8  # of a tape: a number that a pass depends on may be another one in every window

Phase = tuple[int, Callable[[int], object]]  # parts, and what is called with the number of each, maybe in threads


class WindowProgram:
    """Kernel calls in phases, whose parts run in different threads. A phase begins when the one before has ended.

    Small networks spend more time on the checks and the Python code between kernel calls than in the kernels.
    """

    _arrays: list[Any]  # what the program was recorded with, see `run_phases`
    _phases: list[list[Program]]  # a program for each part

    def __init__(self, arrays: Sequence[dict[str, Any]]) -> None:
        self._arrays, self._phases = [array for named in arrays for array in named.values()], []

    def uses(self, arrays: Sequence[dict[str, Any]]) -> bool:
        """Whether the program was recorded with these very arrays."""
        return same_values(self._arrays, arrays)

    def record(self, parts: int, function: Callable[[int], object]) -> None:
        """Call ``function(part)`` for each part, and add the kernel calls as a phase. They must be all that it does."""
        if parts > 1 or not self._phases or len(self._phases[-1]) > 1:
            self._phases.append([Program() for _ in range(parts)])
        programs = self._phases[-1]
        parallel.run(parts, lambda part: programs[part].record(function, part))

    def run(self) -> None:
        """Repeat all phases."""
        for programs in self._phases:
            if len(programs) == 1:
                programs[0].run()
            else:
                parallel.run(len(programs), lambda part, of_part=programs: of_part[part].run())


def run_phases(
    programs: dict[Hashable, WindowProgram | None] | None,
    key: Hashable,
    arrays: Sequence[dict[str, Any]],
    phases: Callable[[], Iterable[Phase]],
) -> None:
    """Run the phases of a pass over a tape.

    Parameters
    ----------
    programs : dict, or None
        The tape's programs, if the pass is repeatable; the program for ``key`` is run if there is one. It is recorded
        the second time, since many tapes are used once.
    key : hashable
        The pass, and the numbers that it depends on.
    arrays : sequence of dict
        The arrays that are not the tape's: a program that was recorded with others is recorded again.
    phases : callable
        Returns the phases, each (parts, function). Is not called if a program is repeated.
    """
    if programs is None:
        for parts, function in phases():
            parallel.run(parts, function)
        return
    program = programs.get(key)
    if program is not None and program.uses(arrays):
        program.run()
        return
    first_time = key not in programs
    if first_time and len(programs) >= MOST_PROGRAMS:
        programs.clear()
    program = WindowProgram(arrays)
    for parts, function in phases():
        if first_time:
            parallel.run(parts, function)
        else:
            program.record(parts, function)
    programs[key] = None if first_time else program
