# SPDX-License-Identifier: MIT
"""WindowOptions: how a predictor runs a window."""

from __future__ import annotations

from typing import NamedTuple

from crnn._core.rows import Lengths
from crnn.checks import Array
from crnn.nn.shards import Shards
from crnn.nn.state import StateLike

Seed = int | list[int] | None


class WindowOptions(NamedTuple):
    """How `Predictor.window` runs a window. A tuple, because a window of a few microseconds needs one too.

    Attributes
    ----------
    state, threads, dropout_seed, precision
        As in `RNN.forward`.
    lengths : Lengths, optional
        Of the sequences, which are packed then.
    target_lengths : Lengths, optional
        For `EncoderDecoder`; otherwise they are ``lengths``.
    only : bool array (T, B), optional
        Targets whose losses count; all if not given.
    weights : array (T, B), optional
        Factors of the losses, in the model's dtype. Needs a ``scale``.
    scale : float, optional
        Whether there is a backward pass, and the factor of the losses in it.
    shards : Shards, optional
        Whose rows these are. Gradients of parameters are then left to a `ShardedWindow`.
    keep : bool
        Whether a backward pass may follow.
    states_only : bool
        Keep the gradients at the states of every step in the tapes, and compute none of parameters. Needs a new
        workspace.
    predictions : bool
        Write the number of the largest output of each row into the head's tape, which then need not have all outputs.
        Not with a ``scale`` and an `AdaptiveHead`.
    """

    state: StateLike | None = None
    lengths: Lengths | None = None
    target_lengths: Lengths | None = None
    only: Array | None = None
    weights: Array | None = None
    scale: float | None = None
    threads: int = 1
    dropout_seed: Seed = None
    shards: Shards | None = None
    precision: str | None = None
    keep: bool = True
    states_only: bool = False
    predictions: bool = False

    @property
    def of_parameters(self) -> bool:
        """Whether a backward pass computes the gradients of parameters."""
        return not self.states_only and self.shards is None
