# SPDX-License-Identifier: MIT
"""ClassModel: what SequenceClassifier and SequenceTagger share besides `SequenceModel`: the options of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from crnn._float_mode import public_methods_in_ieee_mode
from crnn.checks import Array
from crnn.models.extending import extended_model
from crnn.models.fitting.built import Built, compose
from crnn.models.fitting.from_data import are_names, class_arguments, inputs_from, labels_in, missing_inputs
from crnn.models.fitting.training_data import Part
from crnn.models.fitting.weighting import BALANCED, balanced, check_class_weight, of_rows, weights_by_label
from crnn.models.inputs.data import SequenceData, Sequences, check_given
from crnn.models.inputs.standardizer import Standardizer
from crnn.models.inputs.text_inputs import size_of
from crnn.models.learners.sequences import ClassLearner, learner_of
from crnn.models.observations import CLASSES
from crnn.models.outputs.losses import check_weights, class_loss
from crnn.models.outputs.targets import ClassTargets, Label
from crnn.models.outputs.thresholds import best_threshold, check_thresholds
from crnn.nn.config import config_from
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.module import JsonTypes

# The options that a ClassModel adds to those of its network, with the types that a file may hold.
CLASS_TYPES: JsonTypes = {
    "num_classes": (int,),
    "classes": (list, type(None)),
    "multilabel": (bool,),
    "class_weight": (list, type(None)),
    "label_smoothing": (float, int),
    "thresholds": (list, type(None)),
}


class ClassModel:
    """The options of a model that predicts classes, as attributes. A mixin for subclasses of `SequenceModel`."""

    observed = CLASSES
    learnt_names: ClassVar[tuple[str, ...]] = ("classes", "class_weight", "thresholds")
    num_classes: int  # V
    classes: list[Label] | None
    multilabel: bool
    class_weight: list[float] | None
    label_smoothing: float
    thresholds: list[float] | None
    pooling: str | None
    _targets: ClassTargets
    _head: Any
    _all_arguments: Callable[[], dict[str, Any]]
    _named: Callable[[str, Any], Any]
    _named_targets: Callable[[str, Any], Any]
    _sequences: Callable[[str, Any], Sequences]
    data: Callable[..., SequenceData]
    _data: Callable[..., SequenceData]
    _outputs: Callable[[SequenceData, int, int], Sequences]
    _built: Built | None
    _without_masked: Callable[..., tuple[Any, Any, Any, list[Array]]]

    @staticmethod
    def _build_classes(arguments: Mapping[str, Any], *, pooling: str | None, steps: int | None) -> Built:
        """The model that the arguments describe. Raises TypeError and ValueError."""
        vocab = arguments["vocab"]
        config = config_from(arguments, input_size=size_of("input_size", arguments["input_size"], "vocab", vocab))
        targets = ClassTargets(
            arguments["num_classes"], arguments["classes"], arguments["multilabel"], dtype=config.dtype
        )
        targets.thresholds = check_thresholds(
            arguments["thresholds"], targets.num_classes, multilabel=targets.multilabel
        )
        smoothing = arguments["label_smoothing"]
        given = arguments["class_weight"]
        weights = check_class_weight(given, targets.multilabel)
        if isinstance(given, Mapping) and set(given) <= set(targets.label_array().tolist()):
            weights = weights_by_label(given, targets.label_array().tolist())
        loss = class_loss(targets.num_classes, targets.multilabel, weights, smoothing)
        return compose(
            config,
            loss,
            targets,
            {"x": Standardizer(config.input_size)},
            pooling=pooling,
            steps=steps,
            scale=arguments["scale"],
            seed=arguments["seed"],
            vocab=vocab,
            own={
                "num_classes": targets.num_classes,
                "classes": targets.classes,
                "multilabel": targets.multilabel,
                "class_weight": None if loss.weights is None else loss.weights.tolist(),
                "label_smoothing": float(smoothing),
                "thresholds": targets.thresholds,
            },
        )

    @classmethod
    def _missing(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Stand-ins for the arguments that the training data must decide."""
        missing = missing_inputs(arguments)
        if arguments["classes"] is None and arguments["num_classes"] is None:
            weights = arguments["class_weight"]
            is_list = isinstance(weights, list | tuple) or getattr(weights, "ndim", 0) == 1
            missing["num_classes"] = max(2, len(weights)) if is_list else 2
        return missing

    @property
    def classes_(self) -> Array:
        """The classes (V,), in the order of the columns of `predict_proba`: their names, or 0 .. V-1."""
        return self._targets.label_array()

    def _new_learner(self, config: LearnerConfig) -> Any:
        return learner_of(self, config, ClassLearner)

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, mask: Any = None) -> float:
        """The accuracy: the fraction of the targets that `predict` gives; with ``multilabel`` of those with all labels.

        Parameters
        ----------
        X : sequences, see the class
        y : targets, see the class
            Unlabelled ones do not count; labels that the model does not know count as wrong.
        sample_weight : array (N,), optional
            Weights of the sequences; of a tagger's steps also a list of arrays (T_i,), or an array (N, T).
        mask : list of bool (T_i,), or bool (N, T), optional
            As in `fit`.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong, or no sequence with a weight above 0 has a label.
        """
        X, y = self._named("X", X), self._named_targets("y", y)
        if mask is not None:
            X, y, sample_weight, _ = self._without_masked(X, y, sample_weight, mask)
        x = self._sequences("X", X)
        targets = self._targets.encode("y", y, x, self.pooling is not None, unseen=True)
        weights = None
        if sample_weight is not None:
            weights = of_rows(sample_weight, targets, by_step=self.pooling is None)
        outputs = self._outputs(self._data(x, targets), 256, 1)
        right = total = 0.0
        for i, (out, wanted) in enumerate(zip(outputs, targets, strict=True)):
            correct, counts = self._targets.correct(out, wanted)
            w = counts if weights is None else counts * weights[i]
            right += float((w * correct).sum())
            total += float(w.sum())
        if not total:
            raise ValueError("y: expected at least one target with a weight above 0, got none")
        return right / total

    def tune_thresholds(self, X: Any, y: Any, *, mask: Any = None) -> Self:
        """Choose the thresholds of `predict` for independent classes, each by the largest F1. Returns the model.

        Use data that the model was not trained on. `thresholds` then has them, and so do the model's files; another
        `fit` begins with those of the constructor.

        Parameters
        ----------
        X : sequences, see the class
        y : targets, see the class
            Missing ones do not count. A class that never applies gets 0.5.
        mask : list of bool (T_i,), or bool (N, T), optional
            As in `fit`.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong, or the model has not ``multilabel``.
        """
        if not self.multilabel:
            raise ValueError("tune_thresholds: expected a model with multilabel=True, got one that chooses one class")
        data = self.data(X, y, mask=mask)
        p = self._targets.probabilities(np.concatenate(list(self._outputs(data, 256, 1))))
        wanted = np.concatenate(data.targets)
        found = []
        for of_class, column in zip(p.T, wanted.T, strict=True):
            known = ~np.isnan(column)
            found.append(best_threshold(of_class[known], column[known] > 0.5))
        self._set_learnt({"thresholds": found})
        return self

    def extended(self, classes: Sequence[Label], *, seed: int = 0) -> Self:
        """A model with the same weights and further classes. Shares no memory with this one.

        The outputs for the known classes are bit-identical. Train it with ``fit(..., warm_start=True)`` or `crnn.fit`.

        Parameters
        ----------
        classes : sequence of str, int or bool
            Names of the further classes; of a model whose classes have no names their numbers, V, V+1 and so on.
        seed : int
            The new columns of W_hy are those of a new model with this seed. The new elements of b_y are the smallest of
            the known classes: a class without training data is seldom predicted.

        Raises
        ------
        TypeError, ValueError
            A class is known, or is no name of a class.

        Examples
        --------
        >>> import crnn
        >>> clf = crnn.SequenceClassifier(2, classes=["up", "down"])
        >>> clf.extended(["still"]).classes
        ['up', 'down', 'still']
        """
        return extended_model(self, classes, seed)

    def _learn_classes(self, y: Any) -> None:
        """Name the classes, of which only the number was given, if the training labels are not numbers."""
        if self.classes is not None or self.multilabel or not are_names(y):
            return
        labels = labels_in("y", y)
        if len(labels) != self.num_classes:
            raise ValueError(f"y: expected labels of num_classes={self.num_classes} classes, got {labels!r:.200}")
        self._set_learnt({"classes": labels})

    def _set_learnt(self, values: Mapping[str, Any]) -> None:
        vars(self._built).update(values)
        if "classes" in values:
            self._targets.classes = values["classes"]
        if "thresholds" in values:
            self._targets.thresholds = values["thresholds"]
        if "class_weight" in values:
            self._head.loss.weights = check_weights(values["class_weight"], self.num_classes)

    def _prepare_targets(self, part: Part) -> None:
        """Resolve a ``class_weight`` that is a dict or "balanced", from what is trained on."""
        given = self._all_arguments()["class_weight"]
        if isinstance(given, Mapping):
            weights = weights_by_label(given, self._targets.label_array().tolist())
        elif isinstance(given, str) and given == BALANCED:
            weights = balanced(part.targets, part.weights, self.num_classes)
        else:
            return
        self._set_learnt({"class_weight": weights})

    def _arguments_from(self, arguments: Mapping[str, Any], X: Any, y: Any) -> dict[str, Any]:
        """The arguments that were not given, as the training data decide them. Raises TypeError and ValueError."""
        check_given("y", y)
        found = inputs_from(arguments, X)
        if arguments["classes"] is None and arguments["num_classes"] is None:
            found |= class_arguments("y", y, multilabel=arguments["multilabel"])
        return found

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the number of outputs of the head of a model with this `config`."""
        return int(config["num_classes"])


public_methods_in_ieee_mode(ClassModel)
