# SPDX-License-Identifier: MIT
"""RankedRun: what the ranks of a training do alike: sums of gradients, signals, checkpoints, callbacks."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crnn import _parallel as parallel
from crnn._version import __version__
from crnn.checks import Array
from crnn.training.communicator import SIGNALS, START, STATE, TOTAL, WEIGHTS, RankError, Ranks
from crnn.training.config import TrainingConfig
from crnn.training.interrupts import Interrupted, Interrupts
from crnn.training.progress import Callback, Progress, asks_to_stop
from crnn.training.protocols import Trainable, weights_of
from crnn.training.shards import Node, Partial, complete_nodes, midpoint

__all__ = ["RankedRun", "SharedInterrupts", "config_of_rank"]

DIGEST_EVERY = 256  # updates after which ranks compare their weights
DIGEST_SIZE = 16
HEAD = struct.Struct(f"<BB{DIGEST_SIZE}s")  # signal, whether a checkpoint is due, digest of the weights or zeros


class RankedRun:
    """A training on several ranks, seen from one of them.

    Parameters
    ----------
    ranks : Ranks
    model : Trainable
    shards : int
        Of a batch.

    Attributes
    ----------
    signum : int or None
        The signal that some rank has got, as of the last exchange.
    checkpoint_due : bool
        Whether rank 0 wants a checkpoint after the current update, as of the last exchange.
    own_signal, wants_checkpoint : callable
        What this rank tells the others.
    """

    ranks: Ranks
    signum: int | None = None
    checkpoint_due: bool = False
    own_signal: Callable[[], int | None]
    wants_checkpoint: Callable[[], bool]

    def __init__(self, ranks: Ranks, model: Trainable, shards: int) -> None:
        self.ranks, self._model, self._shards = ranks, model, shards
        self.own_signal, self.wants_checkpoint = lambda: None, lambda: False
        self._nodes = [complete_nodes(shards, *shards_of(rank, ranks.size, shards)) for rank in range(ranks.size)]
        self._updates = 0
        self._memory: dict[str, Array] = {}

    @property
    def shards(self) -> tuple[int, int]:
        """The shards (first, stop) of this rank."""
        return shards_of(self.ranks.rank, self.ranks.size, self._shards)

    # ---- sums over ranks ------------------------------------------------------------------------------------------

    def total(self, partials: list[Partial]) -> Partial:
        """The sum over all shards, from the partial sums of the nodes of this rank. Valid until the next call."""
        alone = self.ranks.size == 1
        buffers = alone or hasattr(self.ranks.comm, "Alltoallv")
        own = self._head() + np.stack([partial.sums for partial in partials]).tobytes()
        if not buffers:
            own += b"".join(partial.gradient.tobytes() for partial in partials)
        messages = self.ranks.exchange(own, TOTAL)
        self._read_heads([message[: HEAD.size] for message in messages])
        sums: dict[Node, Array] = {}
        gradients: dict[Node, Array] = {}
        n, dtype = partials[0].gradient.size, partials[0].gradient.dtype
        for nodes, message in zip(self._nodes, messages, strict=True):
            end = HEAD.size + 3 * 8 * len(nodes)
            sums |= zip(nodes, np.frombuffer(message[HEAD.size : end], np.float64).reshape(-1, 3), strict=True)
            if not buffers:
                gradients |= zip(nodes, np.frombuffer(message[end:], dtype).reshape(-1, n), strict=True)
        if alone:
            whole = partials[0].gradient
        else:
            whole = self._by_slices(partials) if buffers else added(self._shards, gradients)
        return Partial(whole, added(self._shards, sums))

    def _by_slices(self, partials: list[Partial]) -> Array:
        """The gradient of all shards: each rank adds one slice of it, so that none receives more than two gradients."""
        ranks, gradients = self.ranks, [partial.gradient for partial in partials]
        n, size = gradients[0].size, ranks.size
        slices = [parallel.part_range(n, rank, size) for rank in range(size)]
        lengths = [stop - start for start, stop in slices]
        sent = gradients[0]  # as it is, if the shards of this rank are one node
        if len(gradients) > 1:
            sent = np.concatenate([gradient[start:stop] for start, stop in slices for gradient in gradients])
        counts = [len(gradients) * length for length in lengths]
        own = lengths[ranks.rank]
        received_counts = [len(nodes) * own for nodes in self._nodes]
        received = self._memory_of("received", sum(received_counts), sent.dtype)
        ranks.call(
            ranks.comm.Alltoallv,  # type: ignore[attr-defined]
            [sent, (counts, offsets(counts))],
            [received, (received_counts, offsets(received_counts))],
        )
        nodes = [node for of_rank in self._nodes for node in of_rank]
        part = added(self._shards, dict(zip(nodes, received.reshape(len(nodes), own), strict=True)), overwrite=True)
        whole = self._model.flat_grads  # whose values are in the gradients that have been sent
        if not whole.flags.c_contiguous:  # a user's model
            whole = self._memory_of("whole", n, sent.dtype)
        ranks.call(
            ranks.comm.Allgatherv,  # type: ignore[attr-defined]
            np.ascontiguousarray(part),
            [whole, (lengths, offsets(lengths))],
        )
        return whole

    def _memory_of(self, name: str, size: int, dtype: Any) -> Array:
        """Memory that is used again at the next update: new memory costs as much as sending it."""
        if name not in self._memory:
            self._memory[name] = np.empty(size, dtype)
        return self._memory[name]

    def _head(self) -> bytes:
        digest = bytes(DIGEST_SIZE)
        if self._updates % DIGEST_EVERY == 0:
            digest = digest_of(weights_of(self._model))
        self._updates += 1
        return HEAD.pack(self.own_signal() or 0, self.ranks.leads and self.wants_checkpoint(), digest)

    def _read_heads(self, heads: Sequence[memoryview]) -> None:
        """Take over what the ranks say. Raises RankError, on all of them, if their weights differ."""
        told = [HEAD.unpack(head) for head in heads]
        self._note_signals([signum for signum, _, _ in told])
        self.checkpoint_due = bool(told[0][1])
        self._compare([digest for _, _, digest in told])

    def check_weights(self) -> None:
        """Raise RankError, on all ranks, if their weights differ."""
        self._compare(self.ranks.exchange(digest_of(weights_of(self._model)), WEIGHTS))

    def _compare(self, digests: Sequence[bytes | memoryview]) -> None:
        for rank, digest in enumerate(digests):
            if digest != digests[0]:
                raise RankError(f"weights: expected the same on all ranks, got others on rank {rank} than on rank 0")

    def _note_signals(self, signals: Sequence[int]) -> None:
        if self.signum is None:
            self.signum = next((signum for signum in signals if signum), None)

    def checkpoint_is_due(self, now: float) -> bool:
        """As `Trainer.checkpoint_is_due`, what rank 0 has said."""
        return self.checkpoint_due

    # ---- agreement ------------------------------------------------------------------------------------------------

    def exchange_signals(self) -> None:
        """Tell the others whether this rank has got a signal, and take over what they say."""
        data = bytes([self.own_signal() or 0])
        self._note_signals([message[0] for message in self.ranks.exchange(data, SIGNALS)])

    def whole_state(self, arrays: Sequence[Array]) -> list[Array]:
        """The arrays of the state of all rows, from those of the rows of this rank."""
        file = io.BytesIO()
        for array in arrays:
            np.save(file, array, allow_pickle=False)
        found = [io.BytesIO(message) for message in self.ranks.exchange(file.getvalue(), STATE)]
        return [np.concatenate([np.load(each, allow_pickle=False) for each in found], axis=-2) for _ in arrays]

    def check_start(self, model: Any, optimizer: Any, values: Mapping[str, Any]) -> None:
        """Raise ValueError, on all ranks, unless they train the same model in the same way."""
        header = model.contents()[1]
        config = header.get("config")
        described = config.items() if isinstance(config, Mapping) else [("config", config)]
        self.ranks.check_same(
            {
                "crnn": __version__,
                "byte order": sys.byteorder,
                **values,
                "model": header.get("kind"),
                **{f"model: {name}": value for name, value in described},
                "weights": digest_of(weights_of(model)).hex(),
                "optimizer": [repr(optimizer), *(digest_of(each).hex() for each in optimizer.arrays.values())],
            }
        )


class SharedInterrupts(Interrupts):
    """Signals that take effect on all ranks after the same update, whichever of them gets one."""

    def __init__(self, run: RankedRun) -> None:
        super().__init__()
        self._run = run
        run.own_signal = lambda: self.signum

    @property
    def pending(self) -> bool:
        return self._run.signum is not None

    def check(self) -> None:
        if not self.pending:
            self._run.exchange_signals()
        if self._run.signum is not None:
            self.shield()
            error = Interrupted(self._run.signum)
            self._run.ranks.agree_on(error)
            raise error


def shards_of(rank: int, size: int, shards: int) -> tuple[int, int]:
    """The shards (first, stop) of a rank."""
    return parallel.part_range(shards, rank, size)


def added(shards: int, parts: Mapping[Node, Array], *, overwrite: bool = False) -> Array:
    """The sum at the root of the tree over so many shards, from those at nodes that cover it.

    ``overwrite``: their memory may be, and the sum is in it.
    """

    def sum_of(node: Node) -> tuple[Array, bool]:
        """The sum, and whether its memory may be overwritten."""
        if node in parts:
            return parts[node], overwrite
        middle = midpoint(node)
        (left, writable), (right, _) = sum_of((node[0], middle)), sum_of((middle, node[1]))
        return (np.add(left, right, out=left) if writable else left + right), True

    return sum_of((0, shards))[0]


def offsets(counts: Sequence[int]) -> list[int]:
    """Where each of several ranges begins that lie one after another."""
    return [0, *np.cumsum(counts)[:-1].tolist()]


def digest_of(array: Array) -> bytes:
    """A digest of an array."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=DIGEST_SIZE).digest()


def config_of_rank(config: TrainingConfig, ranks: Ranks) -> TrainingConfig:
    """The options of a run on this rank.

    Rank 0 alone writes files, shows progress, and calls callbacks, whose answers all ranks get. Whether there are
    callbacks and checkpoints is what rank 0 says.
    """
    names = ("on_update", "on_epoch")
    path = config.checkpoint
    told = ranks.from_leader(
        {name: getattr(config, name) is not None for name in names}
        | {"checkpoint": None if path is None else os.fsdecode(path)},
        START,
    )
    on_update, on_epoch = (_shared(ranks, name, getattr(config, name)) if told[name] else None for name in names)
    config = replace(config, on_update=on_update, on_epoch=on_epoch)
    if ranks.leads:
        return config
    checkpoint = None if told["checkpoint"] is None else path or told["checkpoint"]
    return replace(config, checkpoint=checkpoint, log_file=None, report=None, progress=False, sample_every=None)


def _shared(ranks: Ranks, name: str, callback: Callback | None) -> Callback:
    """A callback that rank 0 calls, and that answers the same on all ranks."""

    def call(progress: Progress) -> bool:
        return ranks.shared(lambda: callback is not None and asks_to_stop(name, callback, progress))

    return call
