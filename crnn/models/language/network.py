# SPDX-License-Identifier: MIT
"""The network and head of a language model: options that fit together, shapes, memory and initial weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crnn._options import name_here, options_of
from crnn.checks import Array
from crnn.models.outputs.clusters import adaptive_shapes, check_cutoffs
from crnn.nn.config import NetworkConfig, config_from
from crnn.nn.init import uniform_draws
from crnn.nn.network import RNN
from crnn.nn.params import Parameters, Shapes
from crnn.text.vocab import Vocab
from crnn.training.config import LEARNING

__all__ = [
    "DrawnModel",
    "allocated",
    "checked_cutoffs",
    "initialise",
    "model_shapes",
    "network_of",
    "with_embedding",
]


def network_of(
    options: Mapping[str, Any], owner: str, arguments: Mapping[str, Any], tie_weights: bool
) -> NetworkConfig:
    """The configuration of the network, from its options by name. Raises TypeError and ValueError."""
    of_fit = {each.name for each in LEARNING} - {each.name for each in options_of(NetworkConfig)} - {"seed"}
    for name in options:
        if name_here(name) in of_fit:
            raise TypeError(f"{name}: expected {name_here(name)} of fit; {owner} has no such argument")
    config = with_embedding(config_from(options, owner, **arguments), tie_weights)
    if config.bidirectional:
        raise ValueError("bidirectional: expected False for a language model, which reads forward, got True")
    config.check_dropouts(ids_only=True)
    H = config.output_size
    if tie_weights and config.embedding_size != H:
        read = "all layers together" if config.dense_layers else "the top layer"
        raise ValueError(
            f"tie_weights: expected an embedding as large as {read} ({H}), got embedding_size={config.embedding_size}"
        )
    return config


def with_embedding(config: NetworkConfig, tie_weights: bool) -> NetworkConfig:
    """The configuration of a network, with an embedding if the head is to be tied to one."""
    if tie_weights and config.embedding_size is None:
        return replace(config, embedding_size=config.output_size)
    return config


def checked_cutoffs(
    adaptive_softmax: Any, config: NetworkConfig, tie_weights: bool, vocab: Vocab, *, new: bool
) -> list[int] | None:
    """The cutoffs of an adaptive softmax, or None. Raises TypeError and ValueError.

    ``new``: whether the model is going to be trained from its beginning; the weights of others suit their vocabulary.
    """
    cutoffs = check_cutoffs(adaptive_softmax, len(vocab), config.output_size)
    if cutoffs is None:
        return None
    if tie_weights:
        raise ValueError(
            "tie_weights: expected False with adaptive_softmax, whose output weights are smaller than the embedding, "
            "got True"
        )
    if new and vocab.is_sorted:
        how = "TextCorpus.from_file(..., order='frequency')"  # without counts the tokens cannot be reordered here
        how += f", or Vocab.from_counts(counts, unit={vocab.unit!r}, order='frequency') of how often each token occurs"
        how = "which is not possible for unit 'byte'" if vocab.unit == "byte" else how
        raise ValueError(
            "adaptive_softmax: expected a vocabulary whose most frequent tokens come first, got one that is sorted; "
            f"{how}"
        )
    return cutoffs


@dataclass(frozen=True)
class DrawnModel:
    """A language model whose weights are drawn from a seed, see `crnn.models.fitting.starting_weights.Drawing`."""

    kind: Any  # its class
    arguments: Mapping[str, Any]
    seed: int

    def weights(self) -> Array:
        """Its initial weights, fresh."""
        weights: Array = self.kind._made(**self.arguments, seed=self.seed)._parameters.flat
        return weights


def model_shapes(config: NetworkConfig, tie_weights: bool, cutoffs: Sequence[int] | None = None) -> Shapes:
    """Names and shapes of the parameters: the network's, then the head's."""
    H, V = config.output_size, config.input_size
    if cutoffs is not None:
        return dict(config.shapes()) | dict(adaptive_shapes(cutoffs, V, H))
    head: Shapes = {"b_y": (V,)} if tie_weights else {"W_hy": (H, V), "b_y": (V,)}
    return dict(config.shapes()) | dict(head)


def allocated(
    config: NetworkConfig, tie_weights: bool, vocab: Vocab, cutoffs: Sequence[int] | None = None
) -> Parameters:
    """The parameters, not initialised. Raises MemoryError, which says what makes them fewer."""
    shapes = model_shapes(config, tie_weights, cutoffs)
    try:
        return Parameters(shapes, config.dtype)
    except MemoryError:
        raise MemoryError(
            f"vocab: cannot allocate {Parameters.count(shapes):,} parameters and as many gradients for "
            f"{len(vocab):,} {vocab.unit}s; expected a vocabulary with a lower max_size or a higher min_count, "
            "or a lower hidden_size or embedding_size"
        ) from None


def initialise(net: RNN, params: Mapping[str, Any], tie_weights: bool, input_init: str | None, seed: int) -> None:
    """Initialise the head's weights, and the rows of W_xh that one-hot ids select."""
    draw = uniform_draws(seed + 1)
    if input_init is None and net.embedding_size is None:
        net.initial_weights.draw_rows(draw)
    net.initial_weights.draw_head(params, draw, tie_weights=tie_weights)
