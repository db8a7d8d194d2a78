# SPDX-License-Identifier: MIT
"""ByteProgress: how far work on bytes has come, as a bar in a terminal and otherwise as lines, on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from crnn.cli.common import say
from crnn.training.progress import Pace
from crnn.training.reporter import REFRESH, SECONDS, UNTOLD, bar_class, is_terminal
from crnn.training.wording import short_number, short_time

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["ByteProgress", "ReadProgress"]


class ReadProgress:
    """Is called with the number of bytes that have been read of what may have no end, and says it now and then.

    Parameters
    ----------
    what : str
        What is read.
    quiet : bool
        Say nothing.
    """

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what, self._quiet = what, quiet
        self._next = time.perf_counter() + UNTOLD

    def __call__(self, done: int) -> None:
        now = time.perf_counter()
        if not self._quiet and now >= self._next:
            self._next = now + SECONDS
            say(f"{self._what}: {done:,} bytes read, waiting for its end")


class ByteProgress:
    """Context manager that is called with the number of bytes done, and of all.

    Parameters
    ----------
    what : str
        What the bytes are of, such as the name of a file.
    quiet : bool
        Show nothing.
    """

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        self._what, self._quiet = what, quiet
        self._bar: tqdm[Any] | None = None
        self._terminal = is_terminal(sys.stderr)
        self._start = time.perf_counter()
        self._pace = Pace(0, self._start)
        self._next = self._start + (REFRESH if self._terminal else UNTOLD)

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if self._quiet or (now < self._next and done < total):
            return
        left = self._pace.left(done, total, now)
        speed = done / max(now - self._start, 1e-9)
        facts = f"{short_number(speed)}B/s"
        if left is not None and done < total:
            facts += f", {short_time(left)} left"
        if self._terminal:
            self._next = now + REFRESH
            self._show(done, total, facts)
        elif now >= self._next:
            self._next = now + SECONDS
            say(f"{self._what}: {100 * done // total} % of {total:,} bytes, {facts}")

    def _show(self, done: int, total: int, facts: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._bar is None:
                self._bar = bar_class()(total=total, bar_format=" ", leave=False, file=sys.stderr)
            self._bar.bar_format = f"{{percentage:3.0f}} % |{{bar}}| {facts}"
            self._bar.n = done
            self._bar.refresh()
