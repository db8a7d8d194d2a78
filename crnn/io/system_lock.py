# SPDX-License-Identifier: MIT
"""The operating system's lock on an open file, which is released when the process dies."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import msvcrt
elif sys.platform != "emscripten":
    import fcntl

__all__ = ["try_lock"]


def try_lock(file: int) -> None:
    """Lock a file, exclusively, until it is closed. Raises OSError, mostly BlockingIOError, if that cannot be done now.

    In WebAssembly there is only one process, which needs no locks, and the system has none.
    """
    if sys.platform == "win32":
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    elif sys.platform != "emscripten":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
