# SPDX-License-Identifier: MIT
"""SequenceClassifier and SequenceTagger: a class for every sequence, or for every step of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crnn._core import loss as kernels
from crnn._core import vecmath
from crnn.checks import check_flag, check_size
from crnn.models.data import SequenceData, array_of, check_entries
from crnn.models.losses import BinaryCrossEntropy, CrossEntropy
from crnn.models.metrics import Evaluation
from crnn.models.tasks import NetworkOptions, TaskModel, is_stacked
from crnn.text.windows import IGNORE_INDEX

Array = NDArray[Any]
Label: TypeAlias = str | int


class ClassModel(TaskModel[Evaluation]):
    """What models of classes share; see `SequenceClassifier` and `SequenceTagger`."""

    def _make_classes(
        self,
        num_classes: int | None,
        classes: Sequence[Label] | None,
        multilabel: bool,
        class_weight: ArrayLike | None,
        label_smoothing: float,
    ) -> CrossEntropy | BinaryCrossEntropy:
        """The names of the classes, and the loss."""
        self.multilabel = check_flag("multilabel", multilabel)
        if classes is not None:
            if isinstance(classes, str | bytes) or not isinstance(classes, Sequence | np.ndarray):
                raise TypeError(f"classes: expected a list of names, got {type(classes).__name__}")
            names = [name.item() if isinstance(name, np.generic) else name for name in classes]
            if not all(type(name) in (str, int) for name in names) or len(set(names)) != len(names):
                raise ValueError(f"classes: expected different names, strings or integers, got {names!r:.200}")
            if num_classes is not None and num_classes != len(names):
                raise ValueError(f"num_classes: expected {len(names)}, as many as classes, got {num_classes!r}")
            num_classes = len(names)
        elif num_classes is None:
            raise ValueError("num_classes: expected it or classes, got neither")
        self.num_classes = check_size("num_classes", num_classes)
        self.classes: list[Label] | None = names if classes is not None else None
        loss = CrossEntropy(self.num_classes, class_weight, label_smoothing)
        self.class_weight = None if loss.weights is None else loss.weights.tolist()
        self.label_smoothing = loss.smoothing
        if multilabel:
            if label_smoothing:
                raise ValueError(f"label_smoothing: expected 0 with multilabel, got {label_smoothing!r}")
            return BinaryCrossEntropy(self.num_classes, class_weight)
        return loss

    @staticmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the outputs of a head of a model with this `config`."""
        return int(config["num_classes"])

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape. JSON-able."""
        names = ("num_classes", "classes", "multilabel", "class_weight", "label_smoothing")
        return self._shared_config() | {name: getattr(self, name) for name in names}

    # ---- labels and ids -------------------------------------------------------------------------------------------

    def _ids(self, name: str, labels: Array) -> Array:
        """Class numbers of labels; -1 stands for none."""
        if self.classes is None:
            numbers = labels.dtype.kind in "iu"
            if not numbers or (labels.size and (labels.min() < IGNORE_INDEX or labels.max() >= self.num_classes)):
                raise ValueError(
                    f"{name}: expected class numbers from 0 to {self.num_classes - 1} (or {IGNORE_INDEX} for none), "
                    "got " + (f"{labels.min()} to {labels.max()}" if numbers else f"{labels.dtype}")
                )
            return labels.astype(np.int32)
        number_of = {label: number for number, label in enumerate(self.classes)}
        number_of.setdefault(IGNORE_INDEX, IGNORE_INDEX)
        ids = [number_of.get(label) for label in labels.reshape(-1).tolist()]
        if None in ids:
            wrong = labels.reshape(-1)[ids.index(None)]
            raise ValueError(f"{name}: expected one of {self.classes[:10]!r}, got {wrong!r}")
        return np.array(ids, np.int32).reshape(labels.shape)

    def _labels(self, ids: Array) -> Array:
        if self.classes is None:
            return ids
        names = np.array(self.classes)
        if list(map(repr, names.tolist())) != list(map(repr, self.classes)):  # NumPy would make texts of numbers
            names = np.array(self.classes, object)
        return names[ids]

    def _encode(self, name: str, y: Any, x: list[Array]) -> list[Array]:
        check_entries(name, y, len(x))
        # Names stay the objects they are: of a name and a -1 NumPy would make two texts.
        dtype = self.dtype if self.multilabel else None if self.classes is None else object
        targets: list[Array] = []
        for i, entry in enumerate(y):
            labels = array_of(f"{name}[{i}]", entry, dtype)
            steps = 1 if self.pooling is not None else len(x[i])
            shape: tuple[int, ...] = () if self.pooling is not None else (steps,)
            shape += (self.num_classes,) if self.multilabel else ()
            if labels.shape != shape:
                raise ValueError(f"{name}[{i}]: expected shape {shape}, got {labels.shape}")
            if not self.multilabel:
                labels = self._ids(f"{name}[{i}]", labels)
            elif ((labels < 0) | (labels > 1)).any():
                raise ValueError(f"{name}[{i}]: expected numbers from 0 to 1, or NaN for none, got {labels}")
            targets.append(labels.reshape(steps, -1) if self.multilabel else labels.reshape(steps))
        return targets

    # ---- predictions ----------------------------------------------------------------------------------------------

    def _probabilities(self, outputs: Array) -> Array:
        """Of logits (M, V)."""
        p = np.empty_like(outputs)
        if self.multilabel:
            vecmath.sigmoid(p.reshape(-1), outputs.reshape(-1))
        else:
            kernels.softmax(p, outputs)
        return p

    def _chosen(self, outputs: Array) -> Array:
        """Labels (M,) of logits (M, V); with ``multilabel`` yes or no (M, V)."""
        return outputs > 0 if self.multilabel else self._labels(outputs.argmax(axis=1))

    def predict_proba(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """Probabilities of the classes: (N, V), or for a tagger (N, T, V) or a list of (T_i, V)."""
        outputs = self._predict(X, batch_size, threads)
        return self._decode([self._probabilities(out) for out in outputs], is_stacked(X))

    def predict(self, X: Any, *, batch_size: int = 256, threads: int = 1) -> Any:
        """The likeliest class: (N,), or for a tagger (N, T) or a list of (T_i,). With ``multilabel`` a last axis of yes
        or no for each class."""
        outputs = self._predict(X, batch_size, threads)
        return self._decode([self._chosen(out) for out in outputs], is_stacked(X))

    def _judge(self, data: SequenceData, outputs: list[Array]) -> Evaluation:
        total, count = self._losses(data, outputs)
        right = 0
        for out, targets in zip(outputs, data.targets, strict=True):
            if self.multilabel:
                right += int(np.count_nonzero(((out > 0) == (targets > 0.5)) & ~np.isnan(targets)))
            else:
                right += int(np.count_nonzero((out.argmax(axis=1) == targets) & (targets != IGNORE_INDEX)))
        return Evaluation(total / max(count, 1), right / max(count, 1), count)


class SequenceClassifier(ClassModel):
    """One class for every sequence. See `TaskModel` for what X may be.

    y holds N labels: class numbers, or names in ``classes``; -1: none known. With ``multilabel`` N rows of zeros and
    ones, one for each class, NaN where unknown.

    Parameters
    ----------
    input_size : int
        D, or how many ids there are.
    num_classes : int, optional
        If ``classes`` are not named.
    hidden_size, num_layers, cell, seed, **network
        As in `RNN`: bidirectional, embedding_size, dropout (also before the head), dtype and so on.
    classes : sequence of str or int, optional
        Names of the classes; `predict` answers with them.
    multilabel : bool
        Each class is a yes-or-no question of its own.
    pooling : {"last", "mean", "max", "flatten"}
        What the head sees of the steps' outputs, see `crnn.pooling`.
    steps : int, optional
        Length of all sequences, for "flatten".
    class_weight : sequence of float, optional
        What a target of each class weighs in the loss.
    label_smoothing : float
        Share of a target that is spread over all classes. Szegedy et al. 2016.
    scale : bool
        Standardise real inputs by the training data.

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
        **network: Unpack[NetworkOptions],
    ) -> None:
        loss = self._make_classes(num_classes, classes, multilabel, class_weight, label_smoothing)
        if pooling is None:
            raise ValueError("pooling: expected one, got None; a SequenceTagger has a class for every step")
        self._make(input_size, hidden_size, num_layers, cell, loss, pooling, steps, scale, seed, network)


class SequenceTagger(ClassModel):
    """A class for every step of a sequence. See `TaskModel` for what X may be.

    y holds for each sequence the labels of its steps (T_i,), or all are one array (N, T): class numbers, or names in
    ``classes``; -1: none known. With ``multilabel`` there is a last axis of zeros and ones, NaN where unknown.
    The arguments are those of `SequenceClassifier`, but for pooling.

    Examples
    --------
    >>> import numpy as np, crnn
    >>> X = np.random.default_rng(0).integers(0, 2, (100, 12))              # bits; the tag: is their sum so far odd?
    >>> tagger = crnn.SequenceTagger(2, 2, hidden_size=16, seed=0)
    >>> log = tagger.fit(X, X.cumsum(axis=1) % 2, epochs=60, optimizer=crnn.optim.Adam(lr=2e-2))
    >>> tagger.predict(np.array([[1, 0, 1, 1]]))
    array([[1, 1, 0, 1]])
    """

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
        **network: Unpack[NetworkOptions],
    ) -> None:
        loss = self._make_classes(num_classes, classes, multilabel, class_weight, label_smoothing)
        self._make(input_size, hidden_size, num_layers, cell, loss, None, None, scale, seed, network)

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape. JSON-able."""
        return {name: value for name, value in super().config().items() if name not in ("pooling", "steps")}
