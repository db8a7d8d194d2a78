# SPDX-License-Identifier: MIT
"""LanguageConfig: the options that only language models have, each declared once as in `crnn.nn.config`.

They change training alone: evaluation, scores and streams do not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crnn._options import check_options, option, options_of
from crnn.checks import check_number
from crnn.models.outputs.penalty import ActivationPenalty
from crnn.nn.config import NetworkOptions

__all__ = ["LANGUAGE_TYPES", "LanguageConfig", "LanguageOptions", "split_options"]


class LanguageOptions(NetworkOptions, total=False):
    """The options that `LanguageModel` takes by name, for type checkers."""

    label_smoothing: float
    activation_penalty: float
    temporal_penalty: float


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The options of a language model that are not those of its network, checked."""

    label_smoothing: float = option(
        0.0,
        check=lambda name, value: check_number(name, value, 0.0, 1.0),
        help="Fraction of the target probability that is spread evenly over all tokens, in [0, 1), in the loss of "
        "training. Szegedy et al. 2016.",
        flag="--label-smoothing",
    )
    activation_penalty: float = option(
        0.0,
        check=lambda name, value: check_number(name, value, 0.0),
        help="Factor of a penalty in training: the mean square of the top layer's output after dropout (activation "
        "regularisation). Merity, McCann, Socher 2017.",
        flag="--activation-penalty",
    )
    temporal_penalty: float = option(
        0.0,
        check=lambda name, value: check_number(name, value, 0.0),
        help="The same for the mean square of the difference between outputs of the top layer at successive steps of a "
        "window (temporal activation regularisation).",
        flag="--temporal-penalty",
    )

    def __post_init__(self) -> None:
        check_options(self)

    def penalty(self) -> ActivationPenalty | None:
        """The penalty of the network's outputs; None if there is none."""
        size, change = self.activation_penalty, self.temporal_penalty
        return ActivationPenalty(size, change) if size or change else None

    def given(self) -> dict[str, float]:
        """The options that are not 0."""
        found = {each.name: getattr(self, each.name) for each in options_of(LanguageConfig)}
        return {name: value for name, value in found.items() if value}


LANGUAGE_TYPES = {each.name: each.json_types for each in options_of(LanguageConfig)}


def split_options(options: Mapping[str, Any]) -> tuple[LanguageConfig, dict[str, Any]]:
    """The options of a language model, and the others, which are for its network. Raises ValueError."""
    own = {name: options[name] for name in LANGUAGE_TYPES if name in options}
    return LanguageConfig(**own), {name: value for name, value in options.items() if name not in own}
