# SPDX-License-Identifier: MIT
"""Threads for the kernels: a few workers that wait for parts of a window. Nothing starts before it is needed.

Work is split over batch rows or weight columns, never over a sum, so results do not depend on ``threads``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

Part = Callable[[int], None]


class _Pool:
    """Daemon threads that take (function, part, answers) from one queue. Callers may share it."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Part, int, SimpleQueue[BaseException | None]]] = SimpleQueue()
        self.size = 0
        self.lock = threading.Lock()

    def grow(self, size: int) -> None:
        with self.lock:
            while self.size < size:
                threading.Thread(target=self._work, name=f"crnn-{self.size}", daemon=True).start()
                self.size += 1

    def _work(self) -> None:
        while True:
            function, part, answers = self.jobs.get()
            try:
                function(part)
            except BaseException as error:
                answers.put(error)
            else:
                answers.put(None)


_pool = _Pool()


def _forget_threads() -> None:
    """A forked child has none of its parent's threads: it starts its own when it needs them."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def run(threads: int, function: Part) -> None:
    """Call ``function(part)`` for part 0 .. threads-1, part 0 in this thread, and wait for all of them."""
    if threads == 1:
        function(0)
        return
    pool = _pool
    pool.grow(threads - 1)
    answers: SimpleQueue[BaseException | None] = SimpleQueue()
    for part in range(1, threads):
        pool.jobs.put((function, part, answers))
    failure: BaseException | None = None
    try:
        function(0)
    except BaseException as error:
        failure = error
    waiting = threads - 1
    while waiting:  # whatever happens: the workers are still writing into the caller's arrays
        try:
            failure = answers.get() or failure
            waiting -= 1
        except KeyboardInterrupt as error:
            failure = error
    if failure is not None:
        raise failure


def part_range(n: int, part: int, parts: int, unit: int = 1) -> tuple[int, int]:
    """The range of 0 .. n that belongs to ``part`` of ``parts``, in whole units but for the last."""
    units = -(-n // unit)
    return min(n, units * part // parts * unit), min(n, units * (part + 1) // parts * unit)
