# SPDX-License-Identifier: MIT
"""ClassModel: what SequenceClassifier and SequenceTagger share beside `SequenceModel`: the options of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from crnn.models.losses import BinaryCrossEntropy, CrossEntropy, class_loss
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

    num_classes: int  # V
    classes: list[Label] | None
    multilabel: bool
    class_weight: list[float] | None
    label_smoothing: float

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

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the number of outputs of the head of a model with this `config`."""
        return int(config["num_classes"])
