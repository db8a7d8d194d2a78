# SPDX-License-Identifier: MIT
"""The digest of a model file, SHA-256, for which a second thread can be used: it takes longer than reading the file."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from crnn.io import json_header

if TYPE_CHECKING:
    from queue import SimpleQueue

__all__ = ["Digest"]


class Digest:
    """SHA-256 of a header without ``sha256``, and then of tensors: name, dtype, shape, little-endian bytes.

    A context manager, at whose end no thread of it is left.

    Parameters
    ----------
    header : mapping
    in_thread : bool
        Compute it in a second thread, if one can be started. The bytes must then stay as they are until the end.
    """

    def __init__(self, header: Mapping[str, Any], in_thread: bool = False) -> None:
        import hashlib  # not earlier: `import crnn` does not wait for it

        self._total = hashlib.sha256(_canonical({key: value for key, value in header.items() if key != "sha256"}))
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        if in_thread:
            from queue import SimpleQueue

            self._parts: SimpleQueue[bytes | bytearray | memoryview | None] = SimpleQueue()
            self._start()

    def begin(self, name: str, dtype: np.dtype[Any], shape: Iterable[int]) -> None:
        """Begin a tensor. They come in the order of their names."""
        self.add(_canonical([name, dtype.name, list(shape)]))

    def add(self, part: bytes | bytearray | memoryview) -> None:
        """The next bytes of the tensor."""
        if self._thread is None:
            self._total.update(part)
        else:
            self._parts.put(part)

    def add_array(self, name: str, array: NDArray[Any]) -> None:
        """A whole tensor."""
        self.begin(name, array.dtype, array.shape)
        self.add(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        """The digest of all that was added, in hexadecimal. Nothing can be added after it."""
        self._end()
        if self._failure is not None:
            raise self._failure
        return self._total.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="crnn-digest")
        try:
            thread.start()
        except RuntimeError:  # none can be started: at the end of the program, or in WebAssembly
            return
        self._thread = thread

    def _work(self) -> None:
        try:
            while (part := self._parts.get()) is not None:
                self._total.update(part)
        except BaseException as error:  # raised by `hexdigest`: an incomplete digest would call a good file damaged
            self._failure = error

    def _end(self) -> None:
        """Wait until the thread has done all parts, and has ended."""
        if self._thread is not None:
            self._parts.put(None)
            self._thread.join()
            self._thread = None


def _canonical(value: Any) -> bytes:
    return json_header.dumps(value, sort_keys=True, separators=(",", ":")).encode()
