# SPDX-License-Identifier: MIT
"""The network and head of a language model: options that fit together, shapes, memory and initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from crnn.nn.config import NetworkConfig, config_from
from crnn.nn.init import uniform_draws
from crnn.nn.network import RNN
from crnn.nn.params import Parameters, Shapes
from crnn.text.vocab import Vocab

__all__ = ["allocated", "initialise", "model_shapes", "network_of", "with_embedding"]


def network_of(
    options: Mapping[str, Any], owner: str, arguments: Mapping[str, Any], tie_weights: bool
) -> NetworkConfig:
    """The configuration of the network, from its options by name. Raises TypeError and ValueError."""
    config = with_embedding(config_from(options, owner, **arguments), tie_weights)
    if config.bidirectional:
        raise ValueError("bidirectional: expected False for a language model, which reads forward, got True")
    config.check_dropouts(ids_only=True)
    top = config.hidden_sizes[-1]
    if tie_weights and config.embedding_size != top:
        raise ValueError(
            f"tie_weights: expected an embedding as large as the top layer ({top}), "
            f"got embedding_size={config.embedding_size}"
        )
    return config


def with_embedding(config: NetworkConfig, tie_weights: bool) -> NetworkConfig:
    """The configuration of a network, with an embedding if the head is to be tied to one."""
    if tie_weights and config.embedding_size is None:
        return replace(config, embedding_size=config.hidden_sizes[-1])
    return config


def model_shapes(config: NetworkConfig, tie_weights: bool) -> Shapes:
    """Names and shapes of the parameters: the network's, then the head's."""
    H, V = config.hidden_sizes[-1], config.input_size
    head: Shapes = {"b_y": (V,)} if tie_weights else {"W_hy": (H, V), "b_y": (V,)}
    return dict(config.shapes()) | dict(head)


def allocated(config: NetworkConfig, tie_weights: bool, vocab: Vocab) -> Parameters:
    """The parameters, not initialised. Raises MemoryError, which says what makes them fewer."""
    shapes = model_shapes(config, tie_weights)
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
        net.initialise_rows(draw)
    net.initialise_head(params, draw, tie_weights=tie_weights)
