# SPDX-License-Identifier: MIT
"""SequenceClassifier: one class for every sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from numpy.typing import ArrayLike

from crnn._options import takes_options
from crnn.models.losses import class_loss
from crnn.models.metrics import Evaluation
from crnn.models.sequence_model import POOLING_TYPES, SCALE_TYPES, SequenceModel, model_json_types
from crnn.models.standardizer import Standardizer
from crnn.models.targets import ClassTargets, Label
from crnn.nn.config import NetworkConfig, NetworkOptions, config_from

CLASS_TYPES = {  # options that models of classes add, with the types a file may hold
    "num_classes": (int,),
    "classes": (list, type(None)),
    "multilabel": (bool,),
    "class_weight": (list, type(None)),
    "label_smoothing": (float, int),
}


class SequenceClassifier(
    SequenceModel[Evaluation],
    kind="SequenceClassifier",
    config_types=model_json_types(SCALE_TYPES, POOLING_TYPES, CLASS_TYPES),
):
    """One class for every sequence. See `crnn.models.sequence_model.SequenceModel` for what X may be.

    y holds N labels: class numbers, or names in ``classes``; -1 = unlabelled, ignored by
    the loss. With ``multilabel`` N rows of zeros and
    ones, one for each class, NaN where unknown.

    Parameters
    ----------
    input_size : int
        D, or how many ids there are.
    num_classes : int, optional
        If ``classes`` are not named.
    hidden_size, num_layers, cell, seed
        As in `RNN`.
    classes : sequence of str or int, optional
        Names of the classes; `predict` answers with them.
    multilabel : bool
        Each class is a separate yes-or-no question.
    pooling : {"last", "mean", "max", "flatten"}
        What the head sees of the steps' outputs, see `crnn.models.pooling`.
    steps : int, optional
        Length of all sequences, for "flatten".
    class_weight : sequence of float, optional
        What a target of each class weighs in the loss.
    label_smoothing : float
        Share of a target that is spread over all classes. Szegedy et al. 2016.
    scale : bool
        Standardise real inputs by the training data.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(rng.integers(5, 20), 2)) for _ in range(200)]
    >>> y = ["up" if x[:, 0].sum() > 0 else "down" for x in X]
    >>> clf = crnn.SequenceClassifier(2, classes=["down", "up"], hidden_size=16, seed=0)
    >>> log = clf.fit(X, y, epochs=20, optimizer=crnn.optim.Adam(lr=1e-2))
    >>> clf.evaluate(X, y).accuracy > 0.9
    True
    >>> clf.predict([np.full((9, 2), 0.5)])
    array(['up'], dtype='<U4')
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
        pooling: str = "last",
        steps: int | None = None,
        class_weight: ArrayLike | None = None,
        label_smoothing: float = 0.0,
        scale: bool = True,
        seed: int = 0,
        **options: Unpack[NetworkOptions],
    ) -> None:
        if pooling is None:
            raise ValueError("pooling: expected one, got None; a SequenceTagger has a class for every step")
        named = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers, "cell": cell}
        config = config_from(named | options, type(self).__name__)
        targets = ClassTargets(num_classes, classes, multilabel, config.dtype)
        loss = class_loss(targets, class_weight, label_smoothing)
        self.num_classes, self.classes, self.multilabel = targets.num_classes, targets.classes, targets.multilabel
        self.class_weight = None if loss.weights is None else loss.weights.tolist()
        self.label_smoothing = float(label_smoothing)
        scalings = {"x": Standardizer(config.input_size)}
        self._compose(config, loss, targets, scalings, pooling=pooling, steps=steps, scale=scale, seed=seed)

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        return int(config["num_classes"])

    def predict_proba(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """Probabilities of the classes (N, V)."""
        outputs = self._outputs_for(X, batch_size, threads)
        return self._arranged([self._targets.probabilities(out) for out in outputs], X)

    def predict(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """The likeliest class of each sequence (N,); with ``multilabel`` yes or no for each class (N, V)."""
        outputs = self._outputs_for(X, batch_size, threads)
        return self._arranged([self._targets.labels(out) for out in outputs], X)


takes_options(NetworkConfig)(SequenceClassifier)
