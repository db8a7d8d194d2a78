# SPDX-License-Identifier: MIT
"""What the tests of shards and ranks train: one small model of every kind, with what makes its mean loss special."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from model_tools import text

import crnn

KINDS = ("language", "tied", "classes", "multilabel", "tags", "values", "sequences", "forecast")
CORPUS = crnn.TextCorpus.from_text(text(700), valid=0.1, test=0)
LENGTHS = [5, 2, 7, 3, 7, 1, 4, 6, 2, 5, 3]  # 11 sequences: the last batch of an epoch has fewer than there are shards


def fitted(kind: str, **options: Any) -> Any:
    """A model of a kind, trained with these options of `crnn.fit`."""
    dtype = options.pop("dtype", "float32")
    dropout = options.pop("dropout", 0.2)
    network = {"dropout": dropout, "dtype": dtype, "seed": 3}
    training = {"epochs": 2, "batch_size": 4, "bptt": 9, "optimizer": "sgd", "lr": 0.2, "log_every": 1, **options}
    draws = np.random.default_rng(4)
    x = [draws.normal(size=(n, 3)) for n in LENGTHS]
    weights = draws.uniform(0.5, 2, len(x))
    labels = [i % 3 for i in range(len(x))]
    if kind == "language":
        init = {"recurrent_init": "orthogonal", "input_init": "glorot"}
        model = crnn.LanguageModel(CORPUS.vocab, "lstm", 9, 2, trainable_initial_state=True, **init, **network)
        return model.fit(CORPUS, **training)
    if kind == "tied":
        model = crnn.LanguageModel(CORPUS.vocab, "gru", [6, 9], embedding_size=9, tie_weights=True, **network)
        return model.fit(CORPUS, carry=18, **training)
    training |= {"valid": None}
    if kind == "classes":
        model = crnn.SequenceClassifier(
            hidden_size=7, cell="gru", bidirectional=True, class_weight="balanced", **network
        )
        return model.fit(x, labels, weights, **training)
    if kind == "multilabel":
        model = crnn.SequenceClassifier(hidden_size=7, cell="tanh", multilabel=True, **network)
        return model.fit(x, [[label != 1, label == 1, label > 0] for label in labels], **training)
    if kind == "tags":
        model = crnn.SequenceTagger(hidden_size=7, num_layers=2, label_smoothing=0.1, **network)
        tags = [[(step % 3 if step % 4 else -1) for step in range(n)] for n in LENGTHS]
        return model.fit(x, tags, weights, **training)
    if kind == "values":
        model = crnn.SequenceRegressor(hidden_size=7, pooling="mean", loss="huber", **network)
        values = draws.normal(size=(len(x), 2))
        values[2, 1] = np.nan
        return model.fit(x, values, weights, **training)
    if kind == "sequences":
        model = crnn.SequenceToSequence(12, 12, hidden_size=7, **network)
        ids = [draws.integers(12, size=n) for n in LENGTHS]
        return model.fit(ids, [each[::-1] for each in ids], **training)
    model = crnn.Forecaster(horizon=3, window=8, hidden_size=7, **network)
    return model.fit(np.sin(np.arange(60) / 3) + draws.normal(size=60) / 10, **training)


def weights_hash(model: Any) -> str:
    """SHA-256 of the weights."""
    flat = model.flat_params
    return hashlib.sha256(flat.astype(flat.dtype.newbyteorder("<")).tobytes()).hexdigest()


# ---- ranks as threads ------------------------------------------------------------------------------------------------


class ThreadComm:
    """The communicator of one of several threads, with no more than `fit` asks for."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]) -> None:
        self.rank, self.size, self._shared = rank, size, shared
        self.calls = 0

    def allgather(self, data: Any) -> list[Any]:
        self.calls += 1
        self._shared["slots"][self.rank] = data
        self._shared["barrier"].wait()
        found = list(self._shared["slots"])
        self._shared["barrier"].wait()
        return found


class BufferComm(ThreadComm):
    """One that also has the two methods of mpi4py for sums by slices."""

    def Alltoallv(self, sent: Any, received: Any) -> None:
        buffer, (counts, starts) = sent
        pieces = self.allgather([buffer[start : start + count] for start, count in zip(starts, counts, strict=True)])
        buffer, (counts, starts) = received
        for piece, start, count in zip([each[self.rank] for each in pieces], starts, counts, strict=True):
            buffer[start : start + count] = piece.reshape(count)

    def Allgatherv(self, sent: Any, received: Any) -> None:
        buffer, (counts, starts) = received
        for piece, start, count in zip(self.allgather(sent), starts, counts, strict=True):
            buffer[start : start + count] = piece.reshape(count)


def on_ranks(size: int, work: Callable[[Any], Any], kind: type[ThreadComm] = ThreadComm) -> list[Any]:
    """What ``work(comm)`` returns in each of so many threads, or the exception that it raises there."""
    shared: dict[str, Any] = {"slots": [None] * size, "barrier": threading.Barrier(size, timeout=60)}
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(kind(rank, size, shared))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ---- ranks as processes ----------------------------------------------------------------------------------------------


class PipeComm:
    """The communicator of one of several processes: rank 0 collects all messages, and sends them to the others."""

    def __init__(self, rank: int, size: int, pipes: list[Connection]) -> None:
        self.rank, self.size, self._pipes = rank, size, pipes

    def allgather(self, data: bytes) -> list[bytes]:
        if self.rank:
            self._pipes[0].send_bytes(data)
            return [self._pipes[0].recv_bytes() for _ in range(self.size)]
        found = [data, *(pipe.recv_bytes() for pipe in self._pipes)]
        for pipe in self._pipes:
            for each in found:
                pipe.send_bytes(each)
        return found


def start_processes(size: int, work: Callable[[PipeComm], int]) -> list[int]:
    """Call ``work(comm)`` in so many forked processes, which end with the status that it returns. Returns their ids."""
    pairs = [Pipe() for _ in range(size - 1)]
    children = []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        status = 99
        try:
            own = [ours for ours, _ in pairs] if rank == 0 else [pairs[rank - 1][1]]
            for pipe in [end for pair in pairs for end in pair if end not in own]:
                pipe.close()
            for name in ("SIGINT", "SIGTERM"):
                default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
                signal.signal(getattr(signal, name), default)
            status = work(PipeComm(rank, size, own))
        finally:
            os._exit(status)
    for pair in pairs:
        for pipe in pair:
            pipe.close()
    return children


def statuses(children: list[int]) -> list[int]:
    """The exit statuses of processes; minus the signal that ended one."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
