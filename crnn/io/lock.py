# SPDX-License-Identifier: MIT
"""FileLock: at most one process, and one run in it, writes a file. A process that dies releases its locks."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import weakref

from crnn.io.atomic_write import PathLike
from crnn.io.system_lock import try_lock

__all__ = ["FileLock"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # such file systems exist
_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An exclusive lock on a path, which need not exist.

    The system's lock is taken on a hidden, empty file in the same folder, not on the file itself, because files are
    replaced as a whole. It is removed by `release`. A killed process leaves it behind, but not locked. A file with
    several names (hard links), which is not replaced as a whole, is locked itself too. On a file system without locks,
    nothing is locked.
    """

    path: str  # of the hidden file
    target: str

    def __init__(self, path: PathLike) -> None:
        self.target = os.path.realpath(os.fsdecode(path))
        folder, name = os.path.split(self.target)
        hidden = f".{name}.crnn-lock"
        if len(os.fsencode(hidden)) > 255:
            import hashlib  # not earlier: `import crnn` does not wait for it

            hidden = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.crnn-lock"
        self.path = os.path.join(folder, hidden)
        self._file: int | None = None
        self._linked: int | None = None  # the target, if it has several names

    def acquire(self) -> None:
        """Take the lock. Raises BlockingIOError if another run has it, and OSError."""
        while True:
            file = _opened(self.path)
            try:
                _lock(file)
                status = os.fstat(file)
                current = os.path.samestat(status, os.stat(self.path))
            except FileNotFoundError:
                current = False
            except BaseException:
                os.close(file)
                raise
            if current:
                break
            os.close(file)  # its owner removed it while it was opened here
        self._file = file
        _held.add(self)
        try:
            self._lock_target()
        except BaseException:
            self.release()
            raise

    def _lock_target(self) -> None:
        """Lock the target itself, if it has several names."""
        if sys.platform == "win32":
            return  # a lock would keep others from reading it there
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.target).st_nlink > 1:
                self._linked = os.open(self.target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                _lock(self._linked)

    def release(self) -> None:
        """Release the lock, if it is held, and remove the hidden file."""
        file, self._file = self._file, None
        linked, self._linked = self._linked, None
        _held.discard(self)
        if linked is not None:
            os.close(linked)
        if file is None:
            return
        if sys.platform == "win32":
            os.close(file)  # an open file cannot be removed there
        with contextlib.suppress(OSError):
            if sys.platform == "win32" or os.path.samestat(os.fstat(file), os.stat(self.path)):  # not another run's
                os.unlink(self.path)
        if sys.platform != "win32":
            os.close(file)

    def _forget(self) -> None:
        """In a forked child: leave the lock to the parent."""
        for file in (self._file, self._linked):
            if file is not None:
                os.close(file)
        self._file = self._linked = None


def _opened(path: str) -> int:
    flags = os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NOINHERIT", 0)
    try:
        return os.open(path, os.O_RDWR | flags, 0o666)
    except PermissionError:  # left behind by another user
        return os.open(path, os.O_RDONLY | flags, 0o666)


def _lock(file: int) -> None:
    try:
        try_lock(file)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise BlockingIOError(error.errno, "in use") from None
        if error.errno not in _NO_LOCKS:
            raise


def _forget_locks() -> None:
    """A forked child does not own its parent's locks: it must not keep them when the parent dies."""
    for lock in list(_held):
        lock._forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
