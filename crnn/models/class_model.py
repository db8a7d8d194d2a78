# SPDX-License-Identifier: MIT
"""ClassModel: what SequenceClassifier and SequenceTagger share beside `SequenceModel`: the options of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from crnn.models.from_data import are_names, class_arguments, input_size_of, labels_in
from crnn.models.losses import BinaryCrossEntropy, CrossEntropy, class_loss
from crnn.models.observations import CLASSES
from crnn.models.targets import ClassTargets, Label
from crnn.nn.module import JsonTypes

# The options that a ClassModel adds to those of its network, with the types that a file may hold.
CLASS_TYPES: JsonTypes = {
    "num_classes": (int,),
    "classes": (list, type(None)),
    "multilabel": (bool,),
    "class_weight": (list, type(None)),
    "label_smoothing": (float, int),
}


class ClassModel:
    """The options of a model that predicts classes, as attributes. A mixin for subclasses of `SequenceModel`."""

    observed = CLASSES
    num_classes: int  # V
    classes: list[Label] | None
    multilabel: bool
    class_weight: list[float] | None
    label_smoothing: float
    _targets: ClassTargets

    def _set_class_options(
        self,
        num_classes: int | None,
        classes: Sequence[Label] | None,
        multilabel: bool,
        class_weight: ArrayLike | None,
        label_smoothing: float,
        dtype: str,
    ) -> tuple[ClassTargets, CrossEntropy | BinaryCrossEntropy]:
        """Check the options and store them; returns the targets and the loss that they describe."""
        targets = ClassTargets(num_classes, classes, multilabel, dtype)
        self.num_classes, self.classes, self.multilabel = targets.num_classes, targets.classes, targets.multilabel
        loss = class_loss(self.num_classes, self.multilabel, class_weight, label_smoothing)
        self.class_weight = None if loss.weights is None else loss.weights.tolist()
        self.label_smoothing = float(label_smoothing)
        return targets, loss

    deferred: dict[str, Any] | None

    def _wait_for_data(self, given: dict[str, Any]) -> None:
        """Keep the arguments until `fit` sees the data; options are checked now, with stand-ins for what is missing."""
        self.deferred = {name: value for name, value in given.items() if value is not None}
        classes = {} if given["classes"] is not None else {"num_classes": given["num_classes"] or 2}
        weights = given["class_weight"]
        is_list = isinstance(weights, list | tuple) or getattr(weights, "ndim", 0) == 1
        if is_list and given["classes"] is None and given["num_classes"] is None:
            classes["num_classes"] = max(2, len(weights))
        type(self)(**{"input_size": 2, **classes, **self.deferred})

    def _learn_classes(self, y: Any) -> None:
        """Name the classes, of which only the number was given, if the training labels are not numbers."""
        if self.classes is not None or self.multilabel or not are_names(y):
            return
        labels = labels_in("y", y)
        if len(labels) != self.num_classes:
            raise ValueError(f"y: expected labels of num_classes={self.num_classes} classes, got {labels!r:.200}")
        self.classes = self._targets.classes = labels

    def _arguments_from(self, X: Any, y: Any) -> dict[str, Any]:
        """The arguments that were not given, as the training data decide them. Raises TypeError and ValueError."""
        assert self.deferred is not None
        found: dict[str, Any] = {}
        if "input_size" not in self.deferred:
            found["input_size"] = input_size_of("X", X)
        if "classes" not in self.deferred and "num_classes" not in self.deferred:
            found |= class_arguments("y", y, multilabel=bool(self.deferred["multilabel"]))
        return found

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the number of outputs of the head of a model with this `config`."""
        return int(config["num_classes"])
