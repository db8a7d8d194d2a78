# SPDX-License-Identifier: MIT
"""The ``fit`` of the models of whole sequences: from its arguments to a training of the model that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crnn.checks import Array
from crnn.models.fitting.arguments import begin_fit
from crnn.models.fitting.from_data import materialised
from crnn.models.fitting.starting_weights import Snapshot, run_fit
from crnn.models.fitting.training_data import training_data
from crnn.models.fitting.weighting import present
from crnn.models.inputs.names import check_target_names, names_of, target_names_of
from crnn.training.fit import fit_in_training
from crnn.training.log import TrainingLog
from crnn.training.stored import Contents

__all__ = ["fit_sequences"]


def fit_sequences(
    model: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    mask: Any,
    rescale: bool,
    options: Mapping[str, Any],
    rest: Callable[[Array], Contents] | None = None,
) -> None:
    """See `SequenceModel.fit`. ``rest``: of a larger model that ``model`` is trained for, see `Checkpoint`."""
    model.check_trainable()
    settings, own = model._fit_options(options)
    X, weights = model._named("X", X) if own["warm_start"] else materialised(X), None
    y = model._named_targets("y", y) if own["warm_start"] else materialised(y)
    names, of_targets = names_of("X", X), target_names_of("y", y)
    if mask is not None:
        X, y, sample_weight, _ = model._without_masked(X, y, sample_weight, mask)
    if sample_weight is not None:
        model._check_weighable(X, y)
        X, y, weights = present(X, y, sample_weight, by_step=model.weighs_steps)

    def train() -> None:
        vars(model._built).update(feature_names=names, target_names=of_targets)
        check_target_names(model, "y", of_targets)
        if isinstance(own["valid"], tuple | list) and own["valid"]:
            own["valid"] = (model._named("valid[0]", own["valid"][0]), *own["valid"][1:])
            if len(own["valid"]) > 1:
                inputs, wanted, *others = own["valid"]
                own["valid"] = (inputs, model._named_targets("valid[1]", wanted), *others)
        data, judged = training_data(model, X, y, own["valid"], rescale=rescale, settings=settings, weights=weights)
        model._log = settings.pop("log", None) or TrainingLog()
        fit_in_training(model, data, valid=judged, log=model._log, rest=rest, **settings)

    def begin(current: Snapshot | None) -> Snapshot:
        return begin_fit(model, X, y, current, continues=own["warm_start"])

    run_fit(model, begin, train, built=not model.deferred)
