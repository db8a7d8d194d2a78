# SPDX-License-Identifier: MIT
"""Interrupts: Ctrl-C takes effect at the end of the current update."""

from __future__ import annotations

import threading
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """Context manager that defers Ctrl-C to the next `check`, so that weights, optimizer and log are consistent.

    A second Ctrl-C raises KeyboardInterrupt immediately. Only Python's default handler is replaced, and only in the
    main thread; a handler that an application has installed stays in place.
    """

    def __init__(self) -> None:
        self.pending: bool = False
        self._installed = False

    def __enter__(self) -> Interrupts:
        import signal  # imported here because it would slow down `import crnn`

        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            import signal

            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed since `__enter__`."""
        if self.pending:
            raise KeyboardInterrupt
