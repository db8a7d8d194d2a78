# SPDX-License-Identifier: MIT
"""SequenceTagger: a class for every step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from numpy.typing import ArrayLike

from crnn._options import takes_options
from crnn.models.class_model import CLASS_TYPES, ClassModel
from crnn.models.fitting.built import Built
from crnn.models.fitting.estimator import ESTIMATING, ModelOptions
from crnn.models.inputs.text_inputs import optional_vocab
from crnn.models.outputs.metrics import Evaluation
from crnn.models.outputs.targets import ClassTargets, Label
from crnn.models.sequence_model import SCALE_TYPES, SequenceModel, model_json_types
from crnn.nn.config import NetworkConfig
from crnn.text.vocab import Vocab


class SequenceTagger(
    ClassModel,
    SequenceModel[Evaluation],
    kind="SequenceTagger",
    config_types=model_json_types(SCALE_TYPES, CLASS_TYPES),
    attachments={"vocab": optional_vocab},
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
    vocab, classes, multilabel, class_weight, label_smoothing, thresholds, scale, seed
        As in `SequenceClassifier`.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> X = np.random.default_rng(0).integers(0, 2, (100, 12))              # the tag: is the sum so far odd?
    >>> tagger = crnn.SequenceTagger(2, 2, hidden_size=16, seed=0)
    >>> tagger.fit(X, X.cumsum(axis=1) % 2).predict(np.array([[1, 0, 1, 1]]))
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
        vocab: Vocab | str | None = None,
        classes: Sequence[Label] | None = None,
        multilabel: bool = False,
        class_weight: ArrayLike | None = None,
        label_smoothing: float = 0.0,
        thresholds: float | Sequence[float] | None = None,
        scale: bool = True,
        seed: int = 0,
        **options: Unpack[ModelOptions],
    ) -> None:
        self._begin(locals())

    def _build(self, arguments: Mapping[str, Any]) -> Built:
        return self._build_classes(arguments, pooling=None, steps=None)

    def predict_proba(self, X: Any, *, mask: Any = None, batch_size: int = 256, threads: int = 1) -> Any:
        """Probabilities of the classes, fresh: a list of arrays (T_i, V), or one array (N, T, V) if X is one.

        Arguments as in `predict`.
        """
        return self._predict(X, self._targets.probabilities, batch_size, threads, mask)

    def predict(self, X: Any, *, mask: Any = None, batch_size: int = 256, threads: int = 1) -> Any:
        """The most probable class of each step, fresh: a list of arrays (T_i,), or one array (N, T) if X is one.

        With ``multilabel`` there is a last axis (V,) of bool.

        Parameters
        ----------
        X : sequences, see the class
        mask : list of bool (T_i,), or bool (N, T), optional
            As in `fit`. Where it is False there is no prediction: -1, None in place of a name, or NaN.
        batch_size : int
            Sequences that are computed at a time; does not change the result.
        threads : int
        """
        return self._predict(X, self._targets.labels, batch_size, threads, mask)


takes_options(NetworkConfig, ESTIMATING)(SequenceTagger)
