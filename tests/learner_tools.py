# SPDX-License-Identifier: MIT
"""Calls of learners that are interrupted at a chosen line."""

import linecache
import sys
from collections.abc import Callable
from pathlib import Path

import crnn

PACKAGE = Path(crnn.__file__).parent


def interrupted_at(line: int, call: Callable[[], object], *within: Path) -> bool:
    """Call, and raise KeyboardInterrupt at one of the lines of crnn that run, 0 the first. Whether there were so many.

    ``within``: files or folders whose lines count; all of crnn if not given. A compiled context manager is not
    interrupted: no handler of a signal runs where one is left.
    """
    counted = tuple(str(path) for path in within or (PACKAGE,))
    left = line

    def trace(frame, event, _):
        nonlocal left
        code = frame.f_code
        if not code.co_filename.startswith(counted):
            return None
        if event == "line":
            left -= 1
            if left < 0 and "with self._exclusive" not in linecache.getline(code.co_filename, frame.f_lineno):
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
