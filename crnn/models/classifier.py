# SPDX-License-Identifier: MIT
"""SequenceClassifier: one class for every sequence."""

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
from crnn.models.sequence_model import POOLING_TYPES, SCALE_TYPES, SequenceModel, model_json_types
from crnn.nn.config import NetworkConfig
from crnn.text.vocab import Vocab


class SequenceClassifier(
    ClassModel,
    SequenceModel[Evaluation],
    kind="SequenceClassifier",
    config_types=model_json_types(SCALE_TYPES, POOLING_TYPES, CLASS_TYPES),
    attachments={"vocab": optional_vocab},
):
    """Predicts one class for every sequence.

    Conventions
    -----------
    X is as in `crnn.models.sequence_model.SequenceModel`. y has N labels: class numbers, or names in ``classes``;
    -1 = unlabelled, ignored by the loss. With ``multilabel``, y is (N, num_classes): 1 for each class that applies,
    0 for the others, NaN = unlabelled. Losses are in nats.

    Parameters
    ----------
    input_size : int, optional
        D: size of the input at each step, or the number of ids. If not given, `fit` takes it from X: the last axis of
        (T, D), 1 for numbers (T,), the largest id plus 1 for integers (T,) of at least 0.
    num_classes : int, optional
        V; may be left out if ``classes`` is given. If neither is given, `fit` takes the classes from y: 0 .. V-1 if its
        labels are these integers, otherwise its different labels in ascending order.
    hidden_size, num_layers, cell, seed
        As in `RNN`.
    vocab : Vocab or {"char", "byte", "word"}, optional
        For texts: X is then strings, of which each character, byte or word is a step; with words also lists of words.
        The name of a unit: `fit` learns the vocabulary from X. Tokens that it does not have become ``<unk>``, whose
        weights start at 0. The model file has the vocabulary.
    classes : sequence of str, int or bool, optional
        Names of the classes, which `predict` returns.
    multilabel : bool
        Classes are independent binary labels: any number of them can apply.
    pooling : {"last", "mean", "max", "flatten"}
        How the outputs of the steps become the input of the head, see `crnn.models.outputs.pooling`. "flatten" has no
        streams.
    steps : int, optional
        Length of all sequences; needed for "flatten" only.
    class_weight : sequence of float, optional
        Weight of each class in the loss; with ``multilabel``, of its positive targets.
    label_smoothing : float
        Fraction of the target probability that is spread evenly over all classes. Szegedy et al. 2016.
    thresholds : float or sequence of float, optional
        With ``multilabel``, the probability above which a class applies, or that of each class; 0.5 if not given.
        `tune_thresholds` chooses them by data.
    scale : bool
        Standardise real inputs by the training data.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(rng.integers(5, 20), 2)) for _ in range(200)]
    >>> y = ["up" if x[:, 0].sum() > 0 else "down" for x in X]
    >>> clf = crnn.SequenceClassifier(hidden_size=16, seed=0)          # sizes and classes come from the data
    >>> clf.fit(X, y).score(X, y) > 0.9
    True
    >>> clf.predict([np.full((9, 2), 0.5)])
    array(['up'], dtype='<U4')

    Texts:

    >>> clf = crnn.SequenceClassifier(vocab="char", hidden_size=8)
    >>> clf.fit(["on", "off", "oon", "offf"] * 5, ["yes", "no", "yes", "no"] * 5).predict(["ooon", "of"]).tolist()
    ['yes', 'no']
    """

    _estimator_type = "classifier"
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
        pooling: str = "max",
        steps: int | None = None,
        class_weight: ArrayLike | None = None,
        label_smoothing: float = 0.0,
        thresholds: float | Sequence[float] | None = None,
        scale: bool = True,
        seed: int = 0,
        **options: Unpack[ModelOptions],
    ) -> None:
        self._begin(locals())

    def _build(self, arguments: Mapping[str, Any]) -> Built:
        if arguments["pooling"] is None:
            raise ValueError("pooling: expected one, got None; a SequenceTagger has a class for every step")
        return self._build_classes(arguments, pooling=arguments["pooling"], steps=arguments["steps"])

    def predict_proba(self, X: Any, *, mask: Any = None, batch_size: int = 256, threads: int = 1) -> Any:
        """Probabilities of the classes: an array (N, V) in the model's dtype, fresh. Arguments as in `predict`."""
        return self._predict(X, self._targets.probabilities, batch_size, threads, mask)

    def predict(self, X: Any, *, mask: Any = None, batch_size: int = 256, threads: int = 1) -> Any:
        """The most probable class of each sequence: an array (N,), fresh; with ``multilabel`` bool (N, V).

        Parameters
        ----------
        X : sequences, see the class
        mask : list of bool (T_i,), or bool (N, T), optional
            As in `fit`.
        batch_size : int
            Sequences that are computed at a time; does not change the result.
        threads : int
        """
        return self._predict(X, self._targets.labels, batch_size, threads, mask)


takes_options(NetworkConfig, ESTIMATING)(SequenceClassifier)
