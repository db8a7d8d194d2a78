# SPDX-License-Identifier: MIT
"""SequenceTagger: a class for every step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from numpy.typing import ArrayLike

from crnn._options import takes_options
from crnn.models.classifier import CLASS_TYPES
from crnn.models.losses import class_loss
from crnn.models.metrics import Evaluation
from crnn.models.sequence_model import SCALE_TYPES, SequenceModel, model_json_types
from crnn.models.standardizer import Standardizer
from crnn.models.targets import ClassTargets, Label
from crnn.nn.config import NetworkConfig, NetworkOptions, config_from


class SequenceTagger(
    SequenceModel[Evaluation], kind="SequenceTagger", config_types=model_json_types(SCALE_TYPES, CLASS_TYPES)
):
    """A class for every step of a sequence. See `crnn.models.sequence_model.SequenceModel` for what X
    may be.

    y holds for each sequence the labels of its steps (T_i,), or all are one array (N, T): class numbers, or names in
    ``classes``; -1 = unlabelled, ignored by the loss. With ``multilabel`` there is a last axis of zeros and ones, NaN
    where unknown.
    The arguments are those of `SequenceClassifier` without pooling and steps.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> X = np.random.default_rng(0).integers(0, 2, (100, 12))              # bits; the tag: is their sum so far odd?
    >>> tagger = crnn.SequenceTagger(2, 2, hidden_size=16, seed=0)
    >>> log = tagger.fit(X, X.cumsum(axis=1) % 2, epochs=60, optimizer=crnn.optim.Adam(lr=2e-2))
    >>> tagger.predict(np.array([[1, 0, 1, 1]]))
    array([[1, 1, 0, 1]])
    """

    _targets: ClassTargets

    def __init__(
        self,
        input_size: int,
        num_classes: int | None = None,
        hidden_size: int | Sequence[int] = 64,
        num_layers: int | None = None,
        cell: str = "gru",
        *,
        classes: Sequence[Label] | None = None,
        multilabel: bool = False,
        class_weight: ArrayLike | None = None,
        label_smoothing: float = 0.0,
        scale: bool = True,
        seed: int = 0,
        **options: Unpack[NetworkOptions],
    ) -> None:
        named = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers, "cell": cell}
        config = config_from(named | options, type(self).__name__)
        targets = ClassTargets(num_classes, classes, multilabel, config.dtype)
        loss = class_loss(targets, class_weight, label_smoothing)
        self.num_classes, self.classes, self.multilabel = targets.num_classes, targets.classes, targets.multilabel
        self.class_weight = None if loss.weights is None else loss.weights.tolist()
        self.label_smoothing = float(label_smoothing)
        scalings = {"x": Standardizer(config.input_size)}
        self._compose(config, loss, targets, scalings, pooling=None, steps=None, scale=scale, seed=seed)

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        return int(config["num_classes"])

    def predict_proba(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """Probabilities of the classes: (N, T, V), or a list of (T_i, V)."""
        outputs = self._outputs_for(X, batch_size, threads)
        return self._arranged([self._targets.probabilities(out) for out in outputs], X)

    def predict(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """The likeliest class of each step: (N, T), or a list of (T_i,); ``multilabel``: yes or no for each class."""
        outputs = self._outputs_for(X, batch_size, threads)
        return self._arranged([self._targets.labels(out) for out in outputs], X)


takes_options(NetworkConfig)(SequenceTagger)
