# SPDX-License-Identifier: MIT
"""Shards of a batch that are computed in one pass: where their rows lie, and the dropout masks that each has alone."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from crnn._core import gemm
from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.nn.config import NetworkConfig
from crnn.nn.dropout import Masks

__all__ = ["ShardLayout", "ShardMasks", "ShardShape", "Shards"]


class ShardShape(NamedTuple):
    """The shape of the arrays of a shard: (T, B, ...), packed with ``lengths``."""

    T: int
    B: int
    lengths: Lengths | None = None

    @staticmethod
    def of(array: Array, lengths: Lengths | None = None) -> ShardShape:
        """The shape of a shard with this array."""
        T, B = array.shape[:2] if lengths is None else (lengths.T, lengths.B)
        return ShardShape(T, B, lengths)

    @property
    def tokens(self) -> int:
        """T * B, with padding."""
        return self.T * self.B


class ShardLayout:
    """Where the rows of shards lie in arrays of all their sequences, one shard after another.

    These are (T, B, ...) if all sequences have the same length, otherwise packed, whatever those of the shards are.

    Parameters
    ----------
    shards : sequence of ShardShape

    Attributes
    ----------
    T, B : int
    lengths : Lengths or None
        Of all sequences.
    """

    shards: list[ShardShape]
    bounds: list[tuple[int, int]]  # of the sequences of each shard
    T: int
    B: int
    lengths: Lengths | None

    def __init__(self, shards: Sequence[ShardShape]) -> None:
        self.shards = list(shards)
        self.bounds = list(itertools.pairwise([0, *itertools.accumulate(shard.B for shard in shards)]))
        self.T, self.B = max(shard.T for shard in shards), self.bounds[-1][1]
        self.lengths = None
        if any(shard.lengths is not None or shard.T != self.T for shard in shards):
            counts = [np.full(B, T, np.int32) if lengths is None else lengths.lengths for T, B, lengths in shards]
            self.lengths = Lengths(np.concatenate(counts), self.T, 1, packed=True)

    @staticmethod
    def of(shards: tuple[ShardShape, ...]) -> ShardLayout:
        """The layout of these shards; the same object again if they have no lengths of their own."""
        return ShardLayout(shards) if any(shard.lengths is not None for shard in shards) else _kept(shards)

    @property
    def rows(self) -> int:
        """Of all arrays together."""
        return self.T * self.B if self.lengths is None else self.lengths.rows

    @cached_property
    def ranges(self) -> list[Lengths]:
        """For the gradients of weights: the sequences of each shard, in the arrays of all."""
        whole = self.lengths or Lengths(np.full(self.B, self.T, np.int32), self.T, 1, packed=True)
        return [whole.range_of(b0, b1) for b0, b1 in self.bounds]

    @cached_property
    def _rows(self) -> list[Array]:
        """The rows of each shard in packed arrays of all, in the order that they have in its own arrays."""
        assert self.lengths is not None
        found = []
        for (T, B, lengths), (b0, _) in zip(self.shards, self.bounds, strict=True):
            flat = np.arange(T * B) if lengths is None else lengths.padded_rows()
            steps, sequences = np.divmod(flat, B)
            found.append(self.lengths.starts[steps] + self.lengths.places[b0 + sequences])
        return found

    def joined(self, arrays: Sequence[Array]) -> Array:
        """The arrays of the shards as one; fresh, unless there is only one."""
        if self.lengths is None:
            return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
        shape = arrays[0].shape[2:]
        whole = gemm.aligned_empty((1, self.lengths.rows, *shape), arrays[0].dtype)
        for rows, array in zip(self._rows, arrays, strict=True):
            whole[0, rows] = array.reshape(-1, *shape)
        return whole

    def of_shard(self, number: int, array: Array) -> Array:
        """The rows of a shard in the order of its own arrays, flat: (M, ...), fresh."""
        if self.lengths is None:
            b0, b1 = self.bounds[number]
            return np.ascontiguousarray(array[:, b0:b1]).reshape(-1, *array.shape[2:])
        rows: Array = array[0, self._rows[number]]
        return rows


_kept = functools.lru_cache(maxsize=16)(ShardLayout)


class ShardMasks(Masks):
    """The masks of a batch whose rows are in several shards: each has those that it would have alone.

    Parameters
    ----------
    seeds : sequence of seeds
        Of each shard.
    layout : ShardLayout
    """

    def __init__(self, seeds: Sequence[int | list[int]], layout: ShardLayout) -> None:
        self._of_shards, self._layout = [Masks(seed) for seed in seeds], layout

    def draw(self, p: float, shape: tuple[int, ...], dtype: str) -> Array:
        """The next mask of arrays (B, K)."""
        shapes = [(shard.B, *shape[1:]) for shard in self._layout.shards]
        return np.concatenate([masks.draw(p, of, dtype) for masks, of in zip(self._of_shards, shapes, strict=True)])

    def draw_rows(
        self, p: float, T: int, B: int, K: int, dtype: str, *, same_for_all_steps: bool, lengths: Lengths | None
    ) -> Array:
        """As that of `Masks`. Without lengths T is that of all shards."""
        drawn = [
            masks.draw_rows(
                p,
                T if lengths is None else shard.T,
                shard.B,
                K,
                dtype,
                same_for_all_steps=same_for_all_steps,
                lengths=None if lengths is None else shard.lengths,
            )
            for masks, shard in zip(self._of_shards, self._layout.shards, strict=True)
        ]
        if lengths is None:
            return np.concatenate(drawn, axis=1)
        rows = [
            mask if shard.lengths is not None else np.broadcast_to(mask, (shard.T, *mask.shape[1:]))
            for mask, shard in zip(drawn, self._layout.shards, strict=True)
        ]
        return self._layout.joined(rows)

    def draw_ids(self, p: float, V: int, ids: Array, dtype: str) -> Array:
        """As that of `Masks`."""
        layout = self._layout
        of_shards = np.stack([masks.draw(p, (V,), dtype) for masks in self._of_shards])
        shapes = [(1, shard.lengths.rows) if shard.lengths is not None else shard[:2] for shard in layout.shards]
        numbers = layout.joined([np.full(shape, number, np.int32) for number, shape in enumerate(shapes)])
        return of_shards[numbers, ids][:, :, None]


@dataclass(frozen=True)
class Shards:
    """The shards of a batch that a pass computes at once.

    Attributes
    ----------
    seeds : list of list of int
        Of the dropout masks of each shard.
    inputs : ShardLayout
        Of x, and of targets for every step.
    targets : ShardLayout
        Of a decoder, which has lengths of its own; otherwise that of the inputs.
    """

    seeds: list[list[int]]
    inputs: ShardLayout
    targets: ShardLayout

    def tokens(self, config: NetworkConfig) -> int | None:
        """How many tokens decide in which way an embedding is read, for `Stack.new_tape`: those of the smallest shard,
        as its gradient would else be summed in another order."""
        return None if config.embedding_size is None else min(shard.tokens for shard in self.inputs.shards)

    @property
    def masks(self) -> Masks:
        """Those of the network that reads x."""
        return ShardMasks(self.seeds, self.inputs)

    def of_decoder(self) -> Shards:
        """The same for a decoder."""
        return Shards(self.seeds, self.targets, self.targets)

    def of_encoder(self, number: int) -> Shards:
        """The same for an encoder, with other masks than those of the decoder."""
        return Shards([[*seed, number] for seed in self.seeds], self.inputs, self.inputs)
