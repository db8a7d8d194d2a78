# SPDX-License-Identifier: MIT
"""Shards: the gradient of a batch as the sum of those of its parts, in an order that only their number determines.

A batch is cut into a fixed number of shards of contiguous rows. The gradient of each is that of the sum of its losses.
The gradients are added in a tree: those of a range of shards are the sum of its first half and of its second half. Who
computes which shards, one process or many, therefore changes no bit of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from crnn import _parallel as parallel
from crnn.checks import Array
from crnn.nn.state import StateLike, joined, rows_of
from crnn.training.protocols import Trainable, Windows
from crnn.training.sparse import SelectedSums

__all__ = ["Gradients", "Partial", "ShardedGradients", "complete_nodes", "midpoint", "sharded"]

Node = tuple[int, int]  # the shards first .. stop-1


class Gradients(Protocol):
    """What computes the gradient of an update: a `Trainable` itself, or `ShardedGradients`."""

    @property
    def loss_and_gradients(self) -> Callable[..., tuple[float, int, StateLike]]:
        """See `Trainable.loss_and_gradients`. The gradients are zero before."""
        ...


@dataclass
class Partial:
    """The gradient of the sum of the losses of some shards, and their sums: of losses, targets and weights."""

    gradient: Array  # (n,)
    sums: Array  # float64 (3,)
    node: Node = (0, 0)
    ids: Array | None = None  # see `crnn.training.sparse.SelectedSums`


class Ranked(Protocol):
    """What is needed of the processes of a training: see `crnn.training.ranks.RankedRun`."""

    @property
    def shards(self) -> tuple[int, int]: ...

    def total(self, partials: list[Partial]) -> Partial: ...


def midpoint(node: Node) -> int:
    """Where a node of the tree is halved."""
    return (node[0] + node[1]) // 2


def complete_nodes(shards: int, first: int, stop: int) -> list[Node]:
    """The largest nodes of the tree over 0 .. shards-1 that lie within first .. stop-1, in order."""

    def within(node: Node) -> Iterator[Node]:
        if first <= node[0] and node[1] <= stop:
            yield node
        elif node[0] < stop and first < node[1]:
            middle = midpoint(node)
            yield from within((node[0], middle))
            yield from within((middle, node[1]))

    return list(within((0, shards)))


def left_siblings(node: Node) -> dict[Node, Node]:
    """From each right child of the tree below a node to the left one."""
    if node[1] - node[0] == 1:
        return {}
    left, right = (node[0], midpoint(node)), (midpoint(node), node[1])
    return {right: left} | left_siblings(left) | left_siblings(right)


def sharded(
    model: Trainable, windows: Windows, shards: int, ranked: Ranked | None = None
) -> tuple[Windows, ShardedGradients]:
    """The windows of a training, cut into shards, and what computes their gradients.

    ``ranked``: who computes which of them, if several processes do.

    Raises ValueError if the windows cannot be cut into so many.
    """
    for name, kind in ("sharded", "a method"), ("batch_size", "an attribute"):
        if not hasattr(windows, name):
            expected = f"a model whose windows can be cut, with {kind} {name}"
            raise ValueError(f"shards: expected None, or {expected}, got {type(windows).__name__} without it")
    cut, rows = windows.sharded, windows.batch_size  # type: ignore[attr-defined]
    if shards > rows:
        raise ValueError(f"shards: expected at most {rows}, the rows of a batch, got {shards}")
    if ranked is None:
        return cut(shards, 0, shards), ShardedGradients(model, shards, rows)
    return cut(shards, *ranked.shards), ShardedGradients(model, shards, rows, *ranked.shards, ranked.total)


class ShardedGradients:
    """The gradient of a window whose shards are computed one after another.

    Parameters
    ----------
    model : Trainable
    shards : int
        S, of a whole batch.
    rows : int
        Of a whole batch.
    first, stop : int
        The shards that this process computes; all if not given.
    total : callable, optional
        From the partial sums of `complete_nodes` to the sum over all shards, if other processes have the rest.
    """

    def __init__(
        self,
        model: Trainable,
        shards: int,
        rows: int,
        first: int = 0,
        stop: int | None = None,
        total: Callable[[list[Partial]], Partial] | None = None,
    ) -> None:
        self._model, self._first, self._stop = model, first, shards if stop is None else stop
        self._siblings, self._total = left_siblings((0, shards)), total
        start = parallel.part_range(rows, first, shards)[0]
        ranges = [parallel.part_range(rows, shard, shards) for shard in range(first, self._stop)]
        self._all_rows = start, ranges[-1][1]
        self._rows = [(b0 - start, b1 - start) for b0, b1 in ranges]  # of the state, which has those of this process
        self._selected = SelectedSums(model)
        self._free: list[Array] = []  # memory for gradients, whose matrix of selected rows is zero
        # A model may have a faster way, for all shards at once, at least for some windows.
        self._at_once: Callable[..., Any] | None = getattr(model, "window_in_shards", None)
        self._weight: Callable[[Any, Any], float] | None = getattr(model, "loss_weight", None)

    def own_rows(self, state: StateLike) -> StateLike:
        """Of a state of all rows, those of the shards of this process; borrowed."""
        return rows_of(state, *self._all_rows)

    def loss_and_gradients(
        self,
        x: Sequence[Any],
        targets: Sequence[Any],
        state: StateLike | None = None,
        *,
        reduction: str = "mean",
        dropout_seed: Sequence[int] = (),
        **options: Any,
    ) -> tuple[float, int, StateLike]:
        """As `Trainable.loss_and_gradients`, with an x and targets for each shard; None: it has no rows.

        The gradients are zero on entry. ``state`` and the one that is returned have the rows of these shards.
        """
        seeds = [[*dropout_seed, shard] for shard in range(self._first, self._stop)]
        held = [number for number, of_shard in enumerate(x) if of_shard is not None]
        window = None
        if held and self._at_once is not None:
            of_held = [[each[number] for number in held] for each in (x, targets, seeds)]
            window = self._at_once(*of_held[:2], state, seeds=of_held[2], **options)
        states: list[StateLike | None] = [None] * len(x)
        grads, selected = self._model.flat_grads, self._selected

        def leaf(number: int) -> Partial:
            """The gradient of a shard, in the memory of the model. Its state is replaced by that after the last step.
            """
            sums, of_shard, wanted = np.zeros(3), x[number], targets[number]
            shard = number + self._first
            partial = Partial(grads, sums, (shard, shard + 1), selected.selected(of_shard))
            if of_shard is None:
                return partial
            if window is not None:
                loss, count = window.gradients(held.index(number))
            else:
                loss, count, after = self._model.loss_and_gradients(
                    of_shard,
                    wanted,
                    None if state is None else rows_of(state, *self._rows[number]),
                    reduction="sum",
                    dropout_seed=seeds[number],
                    **options,
                )
                # the workspace that it belongs to is that of the next shard too
                states[number] = None if after is None else joined([after])
            sums[:] = loss, count, count if self._weight is None else self._weight(of_shard, wanted)
            return partial

        partials: list[Partial] = []
        for number in range(len(x)):
            self._push(partials, leaf(number), last=number == len(x) - 1)
        whole = partials[0] if self._total is None else self._total(partials)
        if self._total is not None and not np.may_share_memory(whole.gradient, grads):
            grads[...] = whole.gradient
        loss, count, weight = whole.sums.tolist()
        if reduction == "mean":
            selected.scale(grads, whole.ids, 1.0 / (weight or 1.0), options.get("threads", 1))
        for partial in partials:
            self._release(partial)
        if window is not None:
            return loss, int(count), window.after
        known = [each for each in states if each is not None]
        return loss, int(count), joined(known) if known else None

    def _push(self, partials: list[Partial], partial: Partial, *, last: bool) -> None:
        """Add the gradient of a shard, in the memory of the model, to those of the shards before it.

        ``partials``: the sums of the largest nodes so far. The memory of the model is zero afterwards; after the last
        shard it holds the last of these sums.
        """
        node, sums, lefts = partial.node, partial.sums, []
        while partials and partials[-1].node == self._siblings.get(node):
            left = partials.pop()
            node, sums = (left.node[0], node[1]), left.sums + sums
            lefts.append(left)
        if lefts:
            given = [(left.gradient, left.ids) for left in lefts]
            found = self._selected.add(partial.gradient, partial.ids, given, last=last)
            for left, ids in zip(lefts, found, strict=True):
                left.ids = ids
            for left in lefts[:-1]:
                self._release(left)
            partials.append(Partial(lefts[-1].gradient, sums, node, lefts[-1].ids))
        elif last:
            partials.append(partial)
        else:
            gradient = self._free.pop() if self._free else np.zeros_like(partial.gradient)
            self._selected.move(partial.gradient, partial.ids, gradient)
            partials.append(Partial(gradient, sums, node, partial.ids))

    def _release(self, partial: Partial) -> None:
        """Use the memory of a gradient again, unless it is that of the model."""
        if not np.may_share_memory(partial.gradient, self._model.flat_grads):
            self._selected.clear_rows(partial.gradient, partial.ids)
            self._free.append(partial.gradient)
