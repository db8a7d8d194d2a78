# SPDX-License-Identifier: MIT
"""Interrupts: Ctrl-C, SIGTERM and SIGHUP take effect where weights, optimizer and log agree with each other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "Interrupts"]


class Interrupted(KeyboardInterrupt):
    """Training was ended by a signal; everything has been saved as after Ctrl-C.

    Attributes
    ----------
    signum : int
        The signal: SIGINT for Ctrl-C, SIGTERM, or SIGHUP, which a closed terminal sends.
    """

    def __init__(self, signum: int) -> None:
        import signal

        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def status(self) -> int:
        """The conventional exit status of a program that this signal ended: 130, 143 or 129."""
        return 128 + self.signum


class Interrupts:
    """Context manager that defers signals to the next `check`.

    A second signal raises `Interrupted` immediately, once; further ones are ignored, so that the work of the first two
    is saved undisturbed. Only default handlers are replaced, and only in the main thread: a handler that an application
    has installed, or ``nohup``, stays in place.
    """

    def __init__(self) -> None:
        self._signum: int | None = None  # of the first signal
        self._raised = False
        self._deferred = 0  # depth of `deferred` blocks
        self._replaced: dict[int, Any] = {}  # handlers to restore

    def __enter__(self) -> Interrupts:
        import signal  # imported here because it would slow down `import crnn`

        defaults: dict[str, Any] = {
            "SIGINT": signal.default_int_handler,
            "SIGTERM": signal.SIG_DFL,
            "SIGHUP": signal.SIG_DFL,  # Windows has none
        }
        if threading.current_thread() is threading.main_thread():
            for name, default in defaults.items():
                signum = getattr(signal, name, None)
                if signum is not None and signal.getsignal(signum) is default:
                    self._replaced[signum] = default
                    signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        self.shield()
        for signum, handler in self._replaced.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is None:
            self._signum = signum
        elif not self._deferred and not self._raised:
            self._raised = True
            raise Interrupted(self._signum)

    @property
    def signum(self) -> int | None:
        """The first signal that has come since `__enter__`."""
        return self._signum

    @property
    def pending(self) -> bool:
        """Whether a signal has come since `__enter__`."""
        return self._signum is not None

    def check(self) -> None:
        """Raise Interrupted if a signal has come since `__enter__`."""
        if self._signum is not None:
            self._raised = True
            raise Interrupted(self._signum)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A block in which no signal raises, for changes that must not be separated."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def shield(self) -> None:
        """From now on no signal raises; `check` still does."""
        self._raised = True
