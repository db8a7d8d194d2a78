# SPDX-License-Identifier: MIT
"""A pool of worker threads that run the parts of a window. Threads are started when they are first needed.

Work is split over rows of the batch or columns of weights. No sum is split, so results do not depend on the number of
threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

Part = Callable[[int], None]


class _Pool:
    """Daemon threads that take jobs from one queue. Several threads may submit jobs at the same time.

    A job is (function, part, results): when function(part) has returned, None is put into ``results``, or the
    exception that it raised.
    """

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Part, int, SimpleQueue[BaseException | None]]] = SimpleQueue()
        self.size: int = 0  # number of threads
        self.lock: threading.Lock = threading.Lock()

    def grow(self, size: int) -> None:
        """Start threads until there are ``size``."""
        with self.lock:
            while self.size < size:
                threading.Thread(target=self._work, name=f"crnn-{self.size}", daemon=True).start()
                self.size += 1

    def _work(self) -> None:
        """Run jobs for ever."""
        while True:
            function, part, results = self.jobs.get()
            try:
                function(part)
            except BaseException as error:
                results.put(error)
            else:
                results.put(None)


_pool = _Pool()


def _replace_pool() -> None:
    """Use a new pool in a forked child process, which has none of its parent's threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_pool)


def run(threads: int, function: Part) -> None:
    """Call ``function(part)`` for all parts 0 .. threads-1 in parallel, part 0 in this thread, and wait for them.

    Raises one of the exceptions that the calls have raised, after all calls have ended.
    """
    if threads == 1:
        function(0)
        return
    pool = _pool
    pool.grow(threads - 1)
    results: SimpleQueue[BaseException | None] = SimpleQueue()
    for part in range(1, threads):
        pool.jobs.put((function, part, results))
    failure: BaseException | None = None
    try:
        function(0)
    except BaseException as error:
        failure = error
    pending = threads - 1
    while pending:  # also after an exception, because the workers still write into the caller's arrays
        try:
            failure = results.get() or failure
            pending -= 1
        except KeyboardInterrupt as error:
            failure = error
    if failure is not None:
        raise failure


def part_range(n: int, part: int, parts: int, unit: int = 1) -> tuple[int, int]:
    """The range (start, stop) of 0 .. n-1 that belongs to ``part`` of ``parts``: multiples of ``unit``, or n."""
    units = -(-n // unit)
    return min(n, units * part // parts * unit), min(n, units * (part + 1) // parts * unit)
