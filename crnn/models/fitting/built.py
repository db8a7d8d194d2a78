# SPDX-License-Identifier: MIT
"""Built: what a sequence model is made of once its sizes are known; a network, a head with its loss, and targets."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from crnn.checks import check_flag, check_seed, check_size
from crnn.models.inputs.names import Names
from crnn.models.inputs.scalings import Scalings
from crnn.models.inputs.standardizer import Standardizer
from crnn.models.inputs.text_inputs import zero_unknown
from crnn.models.outputs.head import Head
from crnn.models.outputs.losses import Loss
from crnn.models.outputs.pooling import POOLINGS
from crnn.models.outputs.targets import Targets
from crnn.models.passes.predictor import Predictor
from crnn.nn.config import NetworkConfig
from crnn.nn.init import UNINITIALISED, uniform_draws
from crnn.nn.network import RNN
from crnn.nn.params import Parameters
from crnn.text.vocab import Vocab

__all__ = ["Built", "check_pooling", "compose", "head_shapes", "same_argument", "same_arguments"]


class Built(SimpleNamespace):
    """The parts of a model, which has them as its attributes, and the arguments that it was built from.

    Every ``fit`` that changes an argument builds a new one; what a refusal must not change stays in the old one.
    """

    arguments: dict[str, Any]
    net: RNN
    _parameters: Parameters
    drawn: bytes | None = None  # digest of the weights that the seed gave; None: they are the caller's
    training_runs: tuple[Mapping[str, Any], ...] = ()
    feature_names: Names = None  # of the columns of inputs
    target_names: Names = None

    def fits(self, other: Built) -> bool:
        """Whether the weights of another model can be the weights of this one."""
        return self.net.cell == other.net.cell and self._parameters.shapes == other._parameters.shapes


def compose(
    config: NetworkConfig,
    loss: Loss,
    targets: Targets[Any],
    scalings: dict[str, Standardizer],
    *,
    pooling: str | None,
    steps: int | None,
    scale: bool,
    seed: Any,
    own: Mapping[str, Any],
    vocab: Vocab | None = None,
) -> Built:
    """A model with one network. ``own``: further attributes of it. ``vocab``: of its inputs."""
    check_pooling(pooling, steps)
    config.check_dropouts(ids_only=vocab is not None)
    steps = None if steps is None else check_size("steps", steps)
    network = config.shapes()
    parameters = Parameters(dict(network) | head_shapes(config, steps, loss.outputs), config.dtype)
    net = RNN.from_parameters(parameters.part("", network), config, seed)
    head = Head(
        parameters.read_only(),
        parameters.grads,
        loss,
        pooling=pooling,
        directions=config.output_blocks,
        precision=config.precision,
    )
    built = Built(
        pooling=pooling,
        steps=steps,
        scale=check_flag("scale", scale),
        seed=0 if seed is UNINITIALISED else check_seed("seed", seed),
        net=net,
        scalings=Scalings(scalings),
        vocab=vocab,
        _parameters=parameters,
        _head=head,
        _predictor=Predictor(net, head),
        _targets=targets,
        **own,
    )
    if seed is not UNINITIALISED:
        net.initial_weights.draw_head(parameters.values, uniform_draws(built.seed + 1))
        zero_unknown(vocab, parameters.values)
        parameters.settle(config.precision)
    return built


def check_pooling(pooling: Any, steps: Any) -> None:
    """Raise ValueError unless pooling is None or a name in POOLINGS, and steps is given for "flatten" only."""
    if pooling is not None and (not isinstance(pooling, str) or pooling not in POOLINGS):
        raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, or None, got {pooling!r}")
    if (pooling == "flatten") != (steps is not None):
        raise ValueError(f"steps: expected with pooling='flatten', and only there, got {steps!r}")


def head_shapes(config: NetworkConfig, steps: int | None, outputs: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a head's parameters. ``steps``: number of steps that it reads, for pooling "flatten"."""
    return {"W_hy": (config.output_size * (steps or 1), outputs), "b_y": (outputs,)}


def same_arguments(these: Mapping[str, Any], those: Mapping[str, Any]) -> bool:
    """Whether two models are built from the same arguments, as far as comparing them tells."""
    return these.keys() == those.keys() and all(same_argument(value, those[name]) for name, value in these.items())


def same_argument(a: Any, b: Any) -> bool:
    """Whether two arguments are equal, as far as comparing them tells."""
    if a is b or type(a) is not type(b):
        return a is b
    try:
        equal = a == b
        return equal if isinstance(equal, bool) else np.shape(a) == np.shape(b) and bool(np.all(equal))
    except (TypeError, ValueError):  # not comparable
        return False
