# SPDX-License-Identifier: MIT
"""Ranks: several processes that run the same program, joined by an engine's communicator.

Every message has a kind and a number. So a rank that fails tells the others, whatever they are waiting for, and no rank
takes a message for another one. It also has its rank and length: an adapter that returns messages in another order, one
of them twice, or padded or cut to one length, would give wrong sums otherwise.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar, cast

from crnn.checks import as_integer

__all__ = ["Communicator", "RankError", "Ranks", "as_ranks", "on_all_ranks"]

F = TypeVar("F", bound=Callable[..., Any])

START, TOTAL, SIGNALS, STATE, ANSWER, WEIGHTS, DONE, FAILED = range(8)  # kinds of messages
HEADER = struct.Struct("<4sBQQQ")  # mark, kind, number, rank, length of the data
MARK = b"crnn"
LONGEST = 1000  # characters of another rank's error


class RankError(ConnectionError):
    """Another rank has failed, or the ranks can no longer exchange data; the message says which and why.

    What this rank has trained is in its model, as after every end of a training. The last checkpoint is intact.
    """


class Communicator(Protocol):
    """What ``comm`` must have: of mpi4py's communicators, for example.

    Other engines need a class of a few lines, see docs/data-parallel.md.
    """

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """The number of processes."""
        ...

    def allgather(self, data: bytes, /) -> Sequence[bytes]:
        """The data of all processes, in the order of their ranks. Every process calls it, and waits for the others."""
        ...


class Ranks:
    """The processes of a training, of which this is one. All call the same methods in the same order.

    Parameters
    ----------
    comm : Communicator

    Attributes
    ----------
    rank, size : int
        Of the communicator.
    leads : bool
        Whether this is rank 0, which alone writes files, shows progress and calls callbacks.
    """

    comm: Communicator
    rank: int
    size: int
    leads: bool

    def __init__(self, comm: Communicator) -> None:
        self.comm, self.rank, self.size = comm, int(comm.rank), int(comm.size)
        self.leads = self.rank == 0
        self._number = 0  # of exchanges
        self._depth = 0  # of `together`
        self._closed = False  # no more messages: the others do not wait for one
        self._lost = False
        self._agreed: BaseException | None = None  # that all ranks raise at the same place, or what stands for it

    def allgather(self, data: bytes, /) -> Sequence[bytes]:
        """That of the communicator, without the checks of `exchange`."""
        return self.comm.allgather(data)

    def exchange(self, data: bytes, kind: int) -> list[memoryview]:
        """The data of all ranks, in messages of this kind. Raises RankError if one of them or the engine has failed."""
        if self._closed:
            raise RankError(f"comm: expected ranks that have not failed, got an exchange of rank {self.rank} after one")
        self._number += 1
        answers = self.call(self.comm.allgather, self._message(kind, data))
        messages = self._messages(answers)
        for rank, message in enumerate(messages):
            self._check_message(rank, message, kind)
        return [message[HEADER.size :] for message in messages]

    def _message(self, kind: int, data: bytes) -> bytes:
        return HEADER.pack(MARK, kind, self._number, self.rank, len(data)) + data

    def _messages(self, answers: Any) -> list[memoryview]:
        """What an allgather has returned. Raises TypeError and RankError if it is not the bytes of all ranks."""
        expected = f"comm: expected an allgather that returns the bytes of all {self.size} ranks, got "
        if not isinstance(answers, Sequence) or isinstance(answers, str | bytes | bytearray):
            self._closed = True
            raise TypeError(f"{expected}{type(answers).__name__}")
        if len(answers) != self.size:
            self._closed = True
            raise RankError(f"{expected}{len(answers)} messages")
        try:
            return [memoryview(answer).cast("B") for answer in answers]
        except TypeError:
            self._closed = True
            raise TypeError(f"{expected}one of {', '.join(type(answer).__name__ for answer in answers)}") from None

    def _check_message(self, rank: int, message: memoryview, kind: int) -> None:
        """Raise RankError unless another rank's message is of the kind and number of this one's."""
        problem = ""
        if len(message) < HEADER.size or message[:4] != MARK:
            problem = f"comm: expected a message of crnn from rank {rank}, got {bytes(message[:20])!r}"
        else:
            _, found, number, sender, length = HEADER.unpack(message[: HEADER.size])
            if sender != rank:
                problem = f"comm: expected messages in the order of their ranks, got that of rank {sender} for {rank}"
            elif length != len(message) - HEADER.size:
                problem = (
                    f"comm: expected the message of rank {rank} as it was given, {HEADER.size + length} bytes, got "
                    f"{len(message)}"
                )
            elif found == FAILED:
                text = str(message[HEADER.size :], "utf-8", "replace")
                problem = f"rank {rank} of {self.size} has failed: {text}"
            elif (found, number) != (kind, self._number):
                problem = (
                    f"comm: expected ranks that do the same, got message {number} of rank {rank}"
                    f"{', which has ended,' * (found == DONE)} for message {self._number} of rank {self.rank}"
                )
        if problem:
            self._closed = True
            raise RankError(problem)

    def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the communicator. Raises RankError if it fails."""
        try:
            return method(*arguments)
        except Exception as error:
            self._closed = self._lost = True
            raise RankError(
                f"rank {self.rank} of {self.size} cannot exchange data with the others, of which one may have died: "
                f"{type(error).__name__}: {error!s:.{LONGEST}}"
            ) from error
        except BaseException:  # Ctrl-C: the others have got a message that this one has not
            self._closed = self._lost = True
            raise

    @property
    def lost(self) -> bool:
        """Whether an exchange has failed, so that others may wait for this rank for ever."""
        return self._lost

    # ---- begin and end --------------------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks enter. If one leaves it by an exception, the others do too: by a RankError."""
        self._depth += 1
        try:
            try:
                yield
            finally:
                self._depth -= 1
        except BaseException as error:
            if not self._depth:
                self._tell(error)
            raise
        if not self._depth:
            self.exchange(b"", DONE)
            self._closed = True

    def _tell(self, error: BaseException) -> None:
        """Tell the other ranks, which wait for a message, that this one has failed."""
        if self._closed:
            return
        self._closed = True
        self._number += 1
        text = f"{type(error).__name__}: {error!s:.{LONGEST}}".encode()
        with suppress(Exception):
            self.comm.allgather(self._message(FAILED, text))

    # ---- agreement ------------------------------------------------------------------------------------------------

    def agree_on(self, error: BaseException) -> None:
        """All ranks are about to raise this error, or others, at the same place."""
        self._agreed = error

    def have_agreed_on(self, error: BaseException) -> bool:
        """Whether the other ranks have left the training at the same place as this one, and can exchange data."""
        return self._agreed is error and not self._closed

    def from_leader(self, value: Any, kind: int) -> Any:
        """What rank 0 gives, as JSON has it."""
        data = json.dumps(value).encode() if self.leads else b""
        return json.loads(bytes(self.exchange(data, kind)[0]))

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Raise ValueError, on all ranks, unless they all give the same values; it names the first that differs."""
        texts = {name: json.dumps(value, default=repr) for name, value in values.items()}
        found = [json.loads(bytes(data)) for data in self.exchange(json.dumps(texts).encode(), START)]
        for name in dict.fromkeys(name for each in found for name in each):
            for rank, other in enumerate(found):
                if other.get(name) != found[0].get(name):
                    raise ValueError(
                        f"{name}: expected the same on all ranks, got {found[0].get(name)!s:.100} on rank 0 and "
                        f"{other.get(name)!s:.100} on rank {rank}"
                    )

    def shared(self, call: Callable[[], bool]) -> bool:
        """What ``call`` returns on rank 0, which alone calls it.

        If it raises an exception, all ranks do: rank 0 that one, the others RankError.
        """
        error: BaseException | None = None
        answer: Any = None
        if self.leads:
            try:
                answer = call()
            except BaseException as raised:
                error, answer = raised, f"{type(raised).__name__}: {raised!s:.{LONGEST}}"
        answer = self.from_leader(answer, ANSWER)
        if isinstance(answer, str):
            error = error or RankError(f"rank 0 of {self.size} has failed: {answer}")
            self.agree_on(error)
            raise error
        return bool(answer)


def as_ranks(name: str, comm: Any) -> Ranks:
    """The ranks of a communicator. Raises TypeError and ValueError, which call it ``name``."""
    if isinstance(comm, Ranks):
        return comm
    missing = [each for each in ("rank", "size", "allgather") if not hasattr(comm, each)]
    if missing or not callable(comm.allgather):
        raise TypeError(
            f"{name}: expected an object with rank, size and allgather, such as mpi4py's MPI.COMM_WORLD, got "
            f"{type(comm).__name__}" + f" without {missing[0]}" * bool(missing)
        )
    rank, size = as_integer(comm.rank), as_integer(comm.size)
    if rank is None or size is None or not 0 <= rank < size:
        raise ValueError(f"{name}: expected a rank from 0 to size - 1, got {comm.rank!r:.50} of {comm.size!r:.50}")
    return Ranks(comm)


def on_all_ranks(function: F) -> F:
    """Decorator of a ``fit`` with the option ``comm``: if it fails on one rank, it does on all."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        comm = options.get("comm")
        if comm is None:
            return function(*arguments, **options)
        ranks = as_ranks("comm", comm)
        with ranks.together():
            return function(*arguments, **{**options, "comm": ranks})

    return cast(F, wrapper)
