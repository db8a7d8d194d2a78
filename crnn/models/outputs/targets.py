# SPDX-License-Identifier: MIT
"""Targets: the kinds of y. They turn users' targets into arrays for the loss, and outputs into predictions.

    ClassTargets   one class, or with ``multilabel`` a binary label per class, for every sequence or step
    ValueTargets   real values, standardised by the training data, for every sequence or step
    TokenTargets   a sequence of tokens for every sequence
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from crnn._core import loss as kernels
from crnn._core import vecmath
from crnn.array_input import as_array, in_precision, items, library_of, real_numbers
from crnn.checks import Array, check_flag, check_size
from crnn.models.inputs.data import array_of, check_entries, check_given
from crnn.models.inputs.held_out import CLASSES, VALUES, AutoShare
from crnn.models.inputs.standardizer import Standardizer
from crnn.models.inputs.text_inputs import encode_texts
from crnn.models.outputs.losses import Regression
from crnn.models.outputs.metrics import Evaluation, RegressionEvaluation, SequenceEvaluation
from crnn.text.vocab import Vocab
from crnn.text.windows import IGNORE_INDEX

EvaluationT = TypeVar("EvaluationT", bound=Evaluation | RegressionEvaluation | SequenceEvaluation)
Label: TypeAlias = str | int  # or bool, which is an int
UNSEEN = -2  # in place of the number of a class that the model does not have


class Judged(Protocol):
    """Outputs with the sum of their losses, see `crnn.models.passes.evaluating.JudgedOutputs`."""

    total: float
    count: int

    def __iter__(self) -> Iterator[Array]: ...


class Targets(ABC, Generic[EvaluationT]):
    """The meaning of a model's targets."""

    held_out: ClassVar[AutoShare] = CLASSES  # of `fit` with valid="auto"

    @abstractmethod
    def encode(self, name: str, y: Any, x: list[Array], single: bool) -> list[Array]:
        """Targets as numbers, one fresh array per sequence.

        Parameters
        ----------
        name : str
            What errors call the targets.
        y
            Targets as users give them to ``fit``.
        x : list of arrays (T_i, ...)
            The inputs.
        single : bool
            One target per sequence, so that the arrays are (1, ...); otherwise one per step, (T_i, ...).

        Raises
        ------
        TypeError, ValueError
        """

    def standardised(self, targets: list[Array]) -> list[Array]:
        """Encoded targets in the units of the loss."""
        return targets

    def groups(self, targets: list[Array]) -> list[int]:
        """A group for each sequence, of all of which `fit` holds out the same share: the class, if there is one."""
        return [0] * len(targets)

    @abstractmethod
    def evaluation(
        self, judged: Judged, targets: list[Array], weights: list[Array] | None = None
    ) -> EvaluationT:
        """The evaluation of a head's outputs.

        Parameters
        ----------
        judged : iterable of arrays (T_i, V), or (1, V)
            The outputs. After the last of them it has the sum of their losses, and the number of predictions.
        targets : list of arrays
            In the units of the loss.
        weights : list of arrays, optional
            Weights of the rows of the targets, whose mean over all targets is 1. The losses are weighted already.
        """


class ClassTargets(Targets[Evaluation]):
    """Classes 0 .. num_classes - 1, with optional names.

    Parameters
    ----------
    num_classes : int, optional
        V; may be left out if there are names.
    classes : sequence of str or int, optional
        Names of the classes, all different.
    multilabel : bool
        Targets are binary labels (V,) instead of one class.
    dtype : str
        Of multilabel targets.

    Attributes
    ----------
    thresholds : list of float or None
        Probabilities above which each of the multilabel classes applies; None: 0.5.
    """

    thresholds: list[float] | None = None

    num_classes: int
    classes: list[Label] | None
    multilabel: bool
    dtype: str

    def __init__(self, num_classes: int | None, classes: Sequence[Label] | None, multilabel: bool, dtype: str) -> None:
        self.multilabel, self.dtype = check_flag("multilabel", multilabel), dtype
        self.classes = None
        if classes is not None:
            self.classes = check_names("classes", classes)
            if num_classes is not None and num_classes != len(self.classes):
                raise ValueError(f"classes: expected {num_classes!r}, as num_classes says, got {len(self.classes)}")
            num_classes = len(self.classes)
        elif num_classes is None:
            raise ValueError("num_classes: expected it or classes, got neither")
        self.num_classes = check_size("num_classes", num_classes)

    def encode(self, name: str, y: Any, x: list[Array], single: bool, *, unseen: bool = False) -> list[Array]:
        """As `Targets.encode`. ``unseen``: other labels than those of the classes are `UNSEEN` instead of an error."""
        y = check_entries(name, labels_of(y), x)
        # dtype object keeps names as they are: NumPy would turn a name and a -1 into two strings.
        dtype = None if self.classes is None else object
        targets: list[Array] = []
        for i, entry in enumerate(y):
            if self.multilabel:
                labels = in_precision(f"{name}[{i}]", real_numbers(f"{name}[{i}]", entry), self.dtype).copy()
            else:
                labels = array_of(f"{name}[{i}]", entry, dtype)
            steps = 1 if single else len(x[i])
            shape: tuple[int, ...] = () if single else (steps,)
            shape += (self.num_classes,) if self.multilabel else ()
            if not self.multilabel and labels.shape == (*shape, 1):  # a column, as of a DataFrame
                labels = labels.reshape(shape)
            if labels.shape != shape:
                hint = "" if self.multilabel else _label_hint(labels, single, len(x[i]))
                what = f"expected shape {shape}, got" if shape else "expected one label, got shape"
                raise ValueError(f"{name}[{i}]: {what} {labels.shape}{hint}")
            if not self.multilabel:
                labels = self._ids(f"{name}[{i}]", labels, unseen=unseen)
            elif ((labels < 0) | (labels > 1)).any():
                raise ValueError(f"{name}[{i}]: expected numbers from 0 to 1, or NaN for none, got {labels}")
            targets.append(labels.reshape(steps, -1) if self.multilabel else labels.reshape(steps))
        return targets

    def groups(self, targets: list[Array]) -> list[int]:
        single = not self.multilabel and all(len(labels) == 1 for labels in targets)
        return [int(labels[0]) for labels in targets] if single else super().groups(targets)

    def _ids(self, name: str, labels: Array, *, unseen: bool) -> Array:
        """Class numbers of labels; -1 = unlabelled, ignored by the loss."""
        if self.classes is None:
            if labels.dtype.kind in "Of":
                labels = _whole_numbers(labels)
            numbers = labels.dtype.kind in "iu"
            if unseen:
                known = numbers and (labels >= IGNORE_INDEX) & (labels < self.num_classes)
                return np.where(known, labels if numbers else UNSEEN, UNSEEN).astype(np.int32)
            if not numbers or (labels.size and (labels.min() < IGNORE_INDEX or labels.max() >= self.num_classes)):
                got = f"{labels.min()} to {labels.max()}" if numbers else _kind_and_values(labels)
                other = labels.dtype.kind in "bUO"
                hint = "; a model that is made with classes=[...], or its fit, has other labels" if other else ""
                raise ValueError(
                    f"{name}: expected class numbers from 0 to {self.num_classes - 1} (or {IGNORE_INDEX} for none), "
                    f"got {got}{hint}"
                )
            return labels.astype(np.int32)
        number_of: dict[Any, int] = {label: number for number, label in enumerate(self.classes)}
        for unlabelled in (IGNORE_INDEX, None):
            number_of.setdefault(unlabelled, IGNORE_INDEX)
        found = (None if is_missing(label) else label for label in labels.reshape(-1).tolist())
        ids = [number_of.get(label, UNSEEN if unseen else None) for label in found]
        if None in ids:
            wrong = as_label(labels.reshape(-1)[ids.index(None)])
            hint = f"; extended([{wrong!r}]) makes a model that has it" if isinstance(wrong, str | int) else ""
            raise ValueError(f"{name}: expected one of {self.classes[:10]!r}, got {wrong!r:.100}{hint:.150}")
        return np.array(ids, np.int32).reshape(labels.shape)

    def labels(self, outputs: Array) -> Array:
        """The most probable class (M,) of each row of logits (M, V); with ``multilabel`` bool (M, V)."""
        if self.multilabel:
            return self.positive(outputs)
        ids: Array = outputs.argmax(axis=1)
        return ids if self.classes is None else self.label_array()[ids]

    def positive(self, outputs: Array) -> Array:
        """bool (M, V): which of the multilabel classes apply, from logits (M, V)."""
        found: Array = outputs > 0 if self.thresholds is None else self.probabilities(outputs) > self.thresholds
        return found

    def correct(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """bool (M,): whether all labels of a row of outputs (M, V) are right, and whether it has any.

        ``targets`` are those of `encode`.
        """
        if self.multilabel:
            missing = np.isnan(targets)
            right, counts = ((self.positive(outputs) == (targets > 0.5)) | missing).all(axis=1), ~missing.all(axis=1)
        else:
            right, counts = outputs.argmax(axis=1) == targets, targets != IGNORE_INDEX
        return np.asarray(right), np.asarray(counts)

    def label_array(self) -> Array:
        """The labels (V,) of all classes, fresh."""
        if self.classes is None:
            return np.arange(self.num_classes)
        names = np.array(self.classes)
        if list(map(repr, names.tolist())) != list(map(repr, self.classes)):  # NumPy turned numbers into strings
            names = np.array(self.classes, object)
        return names

    def probabilities(self, outputs: Array) -> Array:
        """Probabilities (M, V) of logits (M, V), fresh."""
        p = np.empty_like(outputs)
        if self.multilabel:
            vecmath.sigmoid(p.reshape(-1), outputs.reshape(-1))
        else:
            kernels.softmax(p, outputs)
        return p

    def evaluation(
        self, judged: Judged, targets: list[Array], weights: list[Array] | None = None
    ) -> Evaluation:
        correct = 0.0
        for i, (out, wanted) in enumerate(zip(judged, targets, strict=True)):
            if self.multilabel:
                right = (self.positive(out) == (wanted > 0.5)) & ~np.isnan(wanted)
            else:
                right = (out.argmax(axis=1) == wanted) & (wanted != IGNORE_INDEX)
            correct += _weighted_sum(right, i, weights)
        n = max(judged.count, 1)
        return Evaluation(judged.total / n, correct / n, judged.count)


def _weighted_sum(rows: Array, i: int, weights: list[Array] | None) -> float:
    """The sum of the numbers in the rows (M, ...) of sequence i, multiplied by the weights of the rows."""
    if weights is None:
        return float(rows.sum())
    return float((rows.reshape(len(rows), -1) * weights[i][:, None]).sum())


def labels_of(y: Any) -> Any:
    """Labels, those of pandas as Python objects: missing ones would turn integers into floats."""
    if library_of(y) != "pandas" or hasattr(type(y), "groups"):
        return y
    return y.to_numpy(object) if hasattr(type(y), "columns") else list(y)


def is_missing(label: Any) -> bool:
    """Whether this stands for no label: None, NaN, pandas' NA, a masked entry."""
    return label is None or label is np.ma.masked or type(label).__name__ == "NAType" or label != label


def as_label(label: Any) -> Any:
    """A label as a Python object; whole numbers as int, because missing labels make a column of integers real."""
    label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, Enum) and isinstance(label, int | str):  # of an IntEnum or a StrEnum
        label = label.value
    return int(label) if isinstance(label, float) and label.is_integer() else label


def _whole_numbers(labels: Array) -> Array:
    """Labels, of which some may be missing, as an array of integers if all others are whole numbers."""
    flat = [IGNORE_INDEX if is_missing(label) else as_label(label) for label in labels.reshape(-1).tolist()]
    return np.array(flat).reshape(labels.shape) if all(type(label) is int for label in flat) else labels


def _kind_and_values(labels: Array) -> str:
    """The type and the first few of labels, for messages."""
    return f"{labels.dtype}: {labels.reshape(-1)[:5].tolist()!r:.100}"


def _label_hint(labels: Array, single: bool, steps: int) -> str:
    """What labels of a wrong shape probably are, for messages; empty if that is not known."""
    rows = np.atleast_2d(labels).tolist() if labels.ndim == (1 if single else 2) else []
    if rows and all(row.count(1) == 1 and row.count(0) == len(row) - 1 for row in rows):
        return "; write y.argmax(axis=-1) if this is one-hot"
    if single and labels.shape == (steps,):
        return "; a SequenceTagger learns a label for every step"
    if not single and labels.ndim == 0:
        return "; a SequenceClassifier learns one label for each sequence"
    return ""


def check_names(argument: str, classes: Any) -> list[Label]:
    """The names of classes as str and int objects. Raises TypeError and ValueError, which call them ``argument``."""
    classes = items(argument, classes, "a list of names")
    names = [as_label(name) for name in classes]
    kinds = {type(name) for name in names}
    if not (kinds <= {str, int} or kinds == {bool}) or len(set(names)) != len(names):
        raise ValueError(f"{argument}: expected different names, strings, integers or bools, got {names!r:.200}")
    return names


class ValueTargets(Targets[RegressionEvaluation]):
    """P real values for every sequence or step. NaN = missing.

    Parameters
    ----------
    loss : Regression
    standardizer : Standardizer
        Of P columns.
    input_size : int
    dtype : str
        Of standardised targets.
    """

    held_out = VALUES
    loss: Regression
    standardizer: Standardizer
    input_size: int
    dtype: str
    size: int  # P

    def __init__(self, loss: Regression, standardizer: Standardizer, input_size: int, dtype: str) -> None:
        self.loss, self.standardizer, self.input_size, self.dtype = loss, standardizer, input_size, dtype
        self.size = loss.targets

    def encode(self, name: str, y: Any, x: list[Array], single: bool) -> list[Array]:
        if y is None:
            return self._next_steps(name, x, single)
        y = check_entries(name, y, x)
        P = self.size
        targets = []
        for i, entry in enumerate(y):
            values = _values(f"{name}[{i}]", entry)
            steps = 1 if single else len(x[i])
            shape = (P,) if single else (steps, P)
            if values.shape != shape and not (P == 1 and values.shape == shape[:-1]):
                hint = _pooling_hint(values, single, len(x[i]))
                raise ValueError(f"{name}[{i}]: expected shape {shape}, got {values.shape}{hint}")
            if np.isinf(values).any():
                raise ValueError(f"{name}[{i}]: expected finite numbers, or NaN for none, got infinity")
            targets.append(values.reshape(steps, P).copy())
        return targets

    def _next_steps(self, name: str, x: list[Array], single: bool) -> list[Array]:
        """Targets for forecasting: that of each step is the input of the next step; that of the last is missing."""
        if single or x[0].ndim != 2 or self.size != self.input_size:
            check_given(
                name,
                None,
                "; only a model of real inputs with pooling=None and as many outputs as inputs can learn from X alone",
            )
        unknown = np.full((1, self.size), np.nan)
        return [np.concatenate([np.asarray(series[1:], np.float64), unknown]) for series in x]

    def standardised(self, targets: list[Array]) -> list[Array]:
        return self.standardizer.apply_to_all("y", targets, self.dtype)

    def values(self, outputs: Array) -> Array:
        """Predictions (M, P) in the units of the targets, from outputs (M, V); for Q quantiles (M, P, Q)."""
        values = self.standardizer.undo(outputs.reshape(len(outputs), len(self.loss.levels), self.size))
        return values.transpose(0, 2, 1) if self.loss.kind == "quantile" else values[:, 0]

    def point_values(self, outputs: Array) -> Array:
        """One prediction for each value (M, P), in the units of the targets: of quantiles that nearest to the median.

        ``outputs`` are (M, V).
        """
        values = self.values(outputs)
        if self.loss.kind != "quantile":
            return values
        nearest: Array = values[:, :, int(np.argmin(np.abs(np.array(self.loss.quantiles) - 0.5)))]
        return nearest

    def evaluation(
        self, judged: Judged, targets: list[Array], weights: list[Array] | None = None
    ) -> RegressionEvaluation:
        squares = sizes = 0.0
        for i, (out, wanted) in enumerate(zip(judged, targets, strict=True)):
            error = self.point_values(out) - self.standardizer.undo(wanted)
            if weights is None:
                error = error[~np.isnan(error)]
            else:
                error[np.isnan(error)] = 0
            squares += _weighted_sum(error**2, i, weights)
            sizes += _weighted_sum(np.abs(error), i, weights)
        n = max(judged.count, 1)
        return RegressionEvaluation(judged.total / n, squares / n, sizes / n, judged.count)


class TokenTargets(Targets[SequenceEvaluation]):
    """Sequences of tokens 0 .. size - 1, each followed by the token ``size``. With a ``vocab`` they are strings."""

    size: int
    vocab: Vocab | None

    def __init__(self, size: int, vocab: Vocab | None) -> None:
        self.size, self.vocab = size, vocab

    def encode(self, name: str, y: Any, x: list[Array], single: bool) -> list[Array]:
        y = check_entries(name, y, x)
        if self.vocab is not None:
            targets = encode_texts(name, y, self.vocab)
        else:
            targets = [_token_ids(f"{name}[{i}]", entry, self.size) for i, entry in enumerate(y)]
        return [np.append(ids, np.int32(self.size)) for ids in targets]

    def evaluation(
        self, judged: Judged, targets: list[Array], weights: list[Array] | None = None
    ) -> SequenceEvaluation:
        """As in `Targets`, but outputs are the most probable tokens (M_i,), given the true tokens before them."""
        count = judged.count
        hits = [np.asarray(out == wanted) for out, wanted in zip(judged, targets, strict=True)]
        # A sequence without a miss is what greedy decoding writes: it reads its own tokens, which are the true ones.
        exact = [bool(each.all()) for each in hits]
        accuracy = sum(_weighted_sum(each, i, weights) for i, each in enumerate(hits)) / count
        of_sequences = None if weights is None else [each[0] for each in weights]
        return SequenceEvaluation(judged.total / count, accuracy, count, float(np.average(exact, weights=of_sequences)))

    def decode(self, tokens: list[int]) -> str | Array:
        """A predicted sequence, without its end, as a string or as ids (M,)."""
        ids = np.array(tokens, np.int32)
        return ids if self.vocab is None else self.vocab.decode(ids)


def _pooling_hint(values: Array, single: bool, steps: int) -> str:
    """Which ``pooling`` values of a wrong shape are for, for messages; empty if that is not known."""
    if single and values.shape[:1] == (steps,):
        return "; a model with pooling=None learns a target for every step"
    if not single and values.ndim == 0:
        return "; a model with pooling='last' learns one target for each sequence"
    return ""


def _values(name: str, value: Any) -> Array:
    """Real targets as float64, missing ones as NaN. Raises TypeError and ValueError, which call them ``name``."""
    values = real_numbers(name, value)
    if values.dtype.kind == "b":
        raise TypeError(f"{name}: expected numbers, got bool; a classifier learns true and false, 0 and 1 are numbers")
    return in_precision(name, values, "float64")


def _token_ids(name: str, value: Any, limit: int) -> Array:
    """Ids (M,) as int32, M >= 0. Raises ValueError, which calls them ``name``."""
    ids = as_array(name, value)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected integer ids (M,), got {ids.dtype} of shape {ids.shape}")
    if ids.size and (ids.min() < 0 or ids.max() >= limit):
        raise ValueError(f"{name}: expected ids from 0 to {limit - 1}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.int32)
