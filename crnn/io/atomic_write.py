# SPDX-License-Identifier: MIT
"""Atomic writing of files: `replacing` writes one, `check_writable` tries beforehand whether it could be written.

Both follow the same rules:

- Symbolic links are followed: the file that they lead to is replaced, and they stay.
- Only a regular file is replaced, and only one that may be written: no folder, FIFO, device or socket.
- The new file keeps the mode, owner, group and extended attributes of the old one, where the system allows it.
- A file with several names (hard links) is written in place, so that all its names have the new content. So is one that
  cannot be renamed over, such as a single file mounted into a container.
- Temporary files lie in the same folder, under short names. Those that killed processes left are removed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import operator
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO

from crnn.checks import check_path
from crnn.io.system_lock import try_lock

__all__ = ["PathLike", "check_writable", "replacing"]

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_TEMPORARY = re.compile(r"\.crnn-[0-9a-f]{16}\.tmp")
_FLAGS = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT")  # each system has some of them
_OPEN = functools.reduce(operator.or_, (getattr(os, flag, 0) for flag in _FLAGS))
# A file mounted by itself; another user's file in a sticky folder.
_CANNOT_RENAME = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES)
_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@contextlib.contextmanager
def replacing(path: PathLike, *, like: os.stat_result | None = None) -> Iterator[BinaryIO]:
    """Context manager for a binary file that replaces ``path`` when the block ends.

    The file is written under a temporary name in the same folder, flushed to the disk and renamed; then the folder is
    flushed. After an exception the old file is unchanged and the temporary one is removed. Raises OSError, which names
    ``path``, if the file cannot be written; TypeError and ValueError for what is not a path.

    ``like``: the status of the file whose content, in another form, is written. A file that is new can be read and
    written by those who could do that there, but for those whom the process's umask excludes.
    """
    with _errors_naming(path):
        target, old = _find(path)
        mode = 0o666 if like is None else stat.S_IMODE(like.st_mode) & 0o666 | 0o600
        with _temporary(target, old, mode) as (file, unfinished):
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # an open file cannot be renamed there; elsewhere its lock protects it until it is renamed
            _put_in_place(unfinished, target)
        _flush_folder(os.path.dirname(target))


def check_writable(path: PathLike) -> str:
    """Try whether `replacing` could write ``path``, and change nothing.

    Creates and removes a temporary file in the folder, so that missing permissions, a read-only or a full disk are
    found before work starts.

    Returns
    -------
    str
        The absolute path of the file that would be written, all symbolic links followed.

    Raises
    ------
    OSError
        ``path`` cannot be written: the error names it. IsADirectoryError for a folder, FileNotFoundError if its folder
        does not exist, PermissionError without permission, OSError for a FIFO, device or socket and a full disk.
    TypeError, ValueError
        ``path`` is not a path: neither str, bytes nor path object; or it contains NUL.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> check_writable(os.path.join(folder, "m.safetensors")) == os.path.join(os.path.realpath(folder), "m.safetensors")
    True
    >>> os.listdir(folder)
    []
    >>> check_writable(folder)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    IsADirectoryError: [Errno 21] expected a file, got a folder: '...'
    """
    with _errors_naming(path):
        target, old = _find(path)
        with _temporary(target, old) as (file, _):
            file.write(b"crnn")
            file.flush()
    return target


# ---- the file to replace ---------------------------------------------------------------------------------------------


def _find(path: PathLike) -> tuple[str, os.stat_result | None]:
    """The absolute path of the file that ``path`` leads to, and its status, or None if it does not exist yet."""
    name = os.fsdecode(check_path("path", path))
    if not name or name.endswith(os.sep) or (os.altsep and name.endswith(os.altsep)):
        raise IsADirectoryError(errno.EISDIR, "expected the name of a file", name)
    target = os.path.realpath(name)
    try:
        old = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, f"expected a folder that exists, got {folder}", name) from None
        return target, None
    if not stat.S_ISREG(old.st_mode):
        what = _SPECIAL.get(stat.S_IFMT(old.st_mode), "a special file")
        number = errno.EISDIR if stat.S_ISDIR(old.st_mode) else errno.EINVAL
        raise OSError(number, f"expected a file, got {what}", name)
    if not _same_file(name, target):  # /dev/fd/3 of a deleted file
        raise OSError(errno.EINVAL, "expected a file with a name", name)
    os.close(os.open(target, os.O_WRONLY | _OPEN))  # a file that may not be written is not replaced either
    return target, old


def _same_file(name: str, target: str) -> bool:
    """Whether two paths lead to the same file. Another process may be replacing it, so it is looked at repeatedly."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(name), os.stat(target)):
                return True
    return False


@contextlib.contextmanager
def _errors_naming(path: PathLike) -> Iterator[None]:
    """Errors of the system name ``path``, not a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or _is_temporary(error.filename)):
            error.filename = os.fsdecode(path)
            del error.filename2  # set to None, it would be printed
        raise


# ---- the temporary file ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _temporary(target: str, old: os.stat_result | None, mode: int = 0o666) -> Iterator[tuple[BinaryIO, str]]:
    """A new file in the folder of ``target``, and its path. It is removed in the end if it still has that name.

    ``mode``: if there is no old file; the umask is applied to it.
    """
    folder = os.path.dirname(target)
    _sweep(folder)
    path = ""
    try:
        while True:
            path = os.path.join(folder, f".crnn-{os.urandom(8).hex()}.tmp")
            # Nobody else may read it before it has the mode of the old file.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, mode if old is None else 0o600)
            with os.fdopen(descriptor, "wb") as file:
                if not _lock(descriptor) or not os.fstat(descriptor).st_nlink:
                    continue  # swept by another process before it was locked
                if old is not None:
                    _copy_status(descriptor, target, old)
                yield file, path
                return
    finally:
        if path:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _is_temporary(path: object) -> bool:
    return isinstance(path, str) and _TEMPORARY.fullmatch(os.path.basename(path)) is not None


def _lock(descriptor: int) -> bool:
    """Lock a temporary file as long as it is open. False if another process has locked it."""
    if sys.platform != "win32":
        try:
            try_lock(descriptor)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks, where no file is swept
            return True
    return True


def _sweep(folder: str) -> None:
    """Remove the temporary files of processes that were killed: those that no process has locked."""
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:  # closed even if a signal raises
            paths = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
        for path in paths:
            with contextlib.suppress(OSError):
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: str) -> None:
    """Remove a temporary file unless it is in use. Raises OSError if it is, or if that cannot be determined."""
    if sys.platform == "win32":
        os.unlink(path)  # an error for a file that is open
        return
    descriptor = os.open(path, os.O_RDWR | _OPEN)
    try:
        try_lock(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.unlink(path)
    finally:
        os.close(descriptor)


def _copy_status(descriptor: int, target: str, old: os.stat_result) -> None:
    """Give a new file the owner, group, extended attributes and mode of the old one, where the system allows it."""
    if sys.platform == "win32":
        return
    mode = stat.S_IMODE(old.st_mode)
    for user, group in ((-1, old.st_gid), (old.st_uid, -1)):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, user, group)
    if os.fstat(descriptor).st_gid != old.st_gid:
        mode = mode & ~0o2070 | (mode & 0o007) << 3  # what was for one group is not for another
    if sys.platform == "linux" and hasattr(os, "listxattr"):  # a Python may be built without
        with contextlib.suppress(OSError):
            for name in os.listxattr(target):  # among them access control lists
                with contextlib.suppress(OSError):
                    os.setxattr(descriptor, name, os.getxattr(target, name))
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, mode)


# ---- the new file in its place ---------------------------------------------------------------------------------------


def _put_in_place(unfinished: str, target: str) -> None:
    """Rename a complete temporary file to ``target``, or copy it into ``target`` if that must stay the same file."""
    try:
        links = os.stat(target).st_nlink if sys.platform != "win32" else 1
    except FileNotFoundError:
        links = 0
    if links <= 1:
        try:
            os.replace(unfinished, target)
            return
        except OSError as error:
            if not links or error.errno not in _CANNOT_RENAME or sys.platform == "win32":
                raise
    _copy_into(unfinished, target)


def _copy_into(unfinished: str, target: str) -> None:
    """Overwrite ``target`` in place. Until that is complete, the new content is also in a file that nothing sweeps."""
    whole = unfinished.removesuffix(".tmp") + ".whole"
    changed = False
    os.rename(unfinished, whole)
    try:
        import shutil  # not earlier: `import crnn` does not wait for it

        with open(whole, "rb") as source, open(target, "r+b") as file:
            _reserve(file.fileno(), os.path.getsize(whole))
            changed = True
            shutil.copyfileobj(source, file)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        changed = False
    except BaseException as error:
        if changed:
            note = f"written in part, because it has several names or cannot be renamed over; all of it is in {whole}"
            error.add_note(f"{target}: {note}")
            if isinstance(error, OSError):
                error.strerror = f"{error.strerror}; {note}"
        raise
    finally:
        if not changed:
            os.unlink(whole)


def _reserve(descriptor: int, size: int) -> None:
    """Raise OSError, with the file unchanged, if the disk has no room for ``size`` bytes."""
    if not size or not hasattr(os, "posix_fallocate"):
        return
    old_size = os.fstat(descriptor).st_size
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.ftruncate(descriptor, old_size)
        raise


def _flush_folder(folder: str) -> None:
    """Flush a folder, so that a renamed file keeps its new name after a power cut, where the system supports it."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
