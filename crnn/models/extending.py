# SPDX-License-Identifier: MIT
"""A trained model with further classes, or with a larger vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from crnn.array_input import items
from crnn.models.fitting.arguments import found_by_fit
from crnn.models.outputs.targets import Label, as_label, check_names
from crnn.text.errors import VocabError
from crnn.text.vocab import Vocab

__all__ = ["check_larger", "check_same_ids", "copy_known_tokens", "extended_model"]

ModelT = TypeVar("ModelT", bound=Any)


def extended_model(model: ModelT, classes: Sequence[Label], seed: int) -> ModelT:
    """See `ClassModel.extended`."""
    model.check_trainable()  # what is added has to be learnt
    known = model.num_classes
    new = [as_label(label) for label in items("classes", classes, "a list of names")]
    config: dict[str, Any] = model.config()
    if model.classes is None:
        numbers = list(range(known, known + len(new)))
        if new != numbers or any(type(label) is not int for label in new):
            raise ValueError(
                f"classes: expected the numbers from {known}, because the classes of the model have no names, got "
                f"{new!r:.200}"
            )
    else:
        config["classes"] = check_names("classes", [*model.classes, *new])
    if not new:
        raise ValueError("classes: expected at least one, got none")
    config["num_classes"] = known + len(new)
    for name, value in (("class_weight", 1.0), ("thresholds", 0.5)):
        if config[name] is not None:
            config[name] = [*config[name], *[value] * len(new)]
    larger: ModelT = model._made(**(model._attached() | config | model._learning_arguments()), seed=seed)
    params, larger_params = model._parameters.read_only(), larger._parameters.values
    larger_params["b_y"].fill(params["b_y"].min())
    for name, values in params.items():
        own = larger_params[name]
        if name in ("W_hy", "b_y"):
            own[..., :known] = values
        else:
            own[...] = values
    larger._set_statistics({name: values.copy() for name, values in model._statistics.items()})
    larger.training_runs = model.training_runs
    vars(larger._built)["feature_names"] = model._built.feature_names  # those of the targets are more now
    larger._set_arguments(**found_by_fit(model))
    larger._take_attributes(model)
    return larger


def check_larger(known: Vocab, vocab: Vocab) -> None:
    """Raise VocabError unless a vocabulary has all tokens of the ``known`` one, and its unit."""
    missing = [token for token in known.tokens if token not in vocab]
    if missing or vocab.unit != known.unit:
        raise VocabError(
            f"vocab: expected all {len(known)} {known.unit}s of the model, got {vocab!r}, without "
            f"{', '.join(map(repr, missing[:5]))}"
        )


def check_same_ids(known: Vocab, vocab: Vocab) -> None:
    """Raise VocabError unless all tokens of the ``known`` vocabulary have their ids in another one."""
    if vocab.tokens[: len(known)] != known.tokens:
        first = next(id for id, token in enumerate(known.tokens) if vocab.tokens[id] != token)
        raise VocabError(
            "vocab: expected new tokens after those of a model with adaptive_softmax, which scores tokens by their "
            f"ids, got {vocab.tokens[first]!r} in the place of {known.tokens[first]!r}; see Vocab.extended"
        )


def copy_known_tokens(model: Any, larger: Any) -> None:
    """Give a language model with a larger vocabulary the weights of ``model``; see `LanguageModel.extended`."""
    positions = [larger.vocab.id(token) for token in model.vocab.tokens]
    by_row = {"layer0.W_xh" if model.net.embedding_size is None else "embedding"}
    by_column = set()
    params, larger_params = model._parameters.read_only(), larger._parameters.values
    if model.adaptive_softmax is None:
        by_row.add("b_y")
        by_column.add("W_hy")
        larger_params["b_y"].fill(params["b_y"].min())
    for name, values in params.items():
        if name in by_row:
            larger_params[name][positions] = values
        elif name in by_column:
            larger_params[name][:, positions] = values
        elif values.shape != larger_params[name].shape:  # the last tail's tokens, which have no bias
            larger_params[name][...] = values[:, -1:]
            larger_params[name][:, : values.shape[1]] = values
        else:
            larger_params[name][...] = values
    larger.training_runs = model.training_runs
