# SPDX-License-Identifier: MIT
"""SequenceTagger: a class for every step of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from numpy.typing import ArrayLike

from crnn._options import takes_options
from crnn.models.class_model import CLASS_TYPES, ClassModel
from crnn.models.metrics import Evaluation
from crnn.models.sequence_model import SCALE_TYPES, SequenceModel, model_json_types
from crnn.models.standardizer import Standardizer
from crnn.models.targets import ClassTargets, Label
from crnn.nn.config import NetworkConfig, NetworkOptions, config_from


class SequenceTagger(
    ClassModel,
    SequenceModel[Evaluation],
    kind="SequenceTagger",
    config_types=model_json_types(SCALE_TYPES, CLASS_TYPES),
):
    """Predicts a class for every step of a sequence.

    Conventions
    -----------
    X is as in `crnn.models.sequence_model.SequenceModel`. y has the labels (T_i,) of each sequence, as a list or as one
    array (N, T): class numbers, or names in ``classes``; -1 = unlabelled, ignored by the loss. With ``multilabel``
    there is a last axis (V,): 1 for each class that applies, 0 for the others, NaN = unlabelled. Losses are in nats.

    Parameters
    ----------
    input_size, num_classes, hidden_size, num_layers, cell
        As in `SequenceClassifier`.
    classes, multilabel, class_weight, label_smoothing, scale, seed
        As in `SequenceClassifier`.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> X = np.random.default_rng(0).integers(0, 2, (100, 12))              # the tag: is the sum so far odd?
    >>> tagger = crnn.SequenceTagger(2, 2, hidden_size=16, seed=0)
    >>> log = tagger.fit(X, X.cumsum(axis=1) % 2)
    >>> tagger.predict(np.array([[1, 0, 1, 1]]))
    array([[1, 1, 0, 1]])
    """

    _targets: ClassTargets

    def __init__(
        self,
        input_size: int | None = None,
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
        if input_size is None or (num_classes is None and classes is None):
            given: dict[str, Any] = {"input_size": input_size, "num_classes": num_classes, "classes": classes}
            given |= {"multilabel": multilabel}
            given |= {"class_weight": class_weight, "label_smoothing": label_smoothing, "scale": scale, "seed": seed}
            given |= dict(hidden_size=hidden_size, num_layers=num_layers, cell=cell, **options)
            self._wait_for_data(given)
            return
        network = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers, "cell": cell}
        config = config_from(options, type(self).__name__, **network)
        targets, loss = self._set_class_options(
            num_classes, classes, multilabel, class_weight, label_smoothing, config.dtype
        )
        scalings = {"x": Standardizer(config.input_size)}
        self._compose(config, loss, targets, scalings, pooling=None, steps=None, scale=scale, seed=seed)

    def predict_proba(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """Probabilities of the classes, fresh: a list of arrays (T_i, V), or one array (N, T, V) if X is one.

        Arguments as in `predict`.
        """
        return self._predict(X, self._targets.probabilities, batch_size, threads)

    def predict(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """The most probable class of each step, fresh: a list of arrays (T_i,), or one array (N, T) if X is one.

        With ``multilabel`` there is a last axis (V,) of bool.

        Parameters
        ----------
        X : sequences, see the class
        batch_size : int
            Sequences that are computed at a time; does not change the result.
        threads : int
        """
        return self._predict(X, self._targets.labels, batch_size, threads)


takes_options(NetworkConfig)(SequenceTagger)
