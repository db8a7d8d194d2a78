# SPDX-License-Identifier: MIT
"""Learners in River's protocol: `learn_one`, `predict_one`, `predict_proba_one` and `score_one` on dicts of features.

River itself is not needed. If it is installed, the classes derive from its ``base.Classifier``, ``base.Regressor`` and
``base.AnomalyDetector``, so that its pipelines, metrics and ``evaluate.progressive_val_score`` take them.

River's predictions do not change a model, and `learn_one` is given the features again; a recurrent model reads each of
them once. So a prediction reads the features for the time being: if `learn_one` then is given the same ones, that was
their step of the sequence, otherwise it is taken back. Only what `learn_one` is given becomes part of the sequence.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn._attributes import fixed_attributes
from crnn.checks import Array
from crnn.models.learners.sequences import ClassLearner, SequenceLearner, ValueLearner
from crnn.models.regressor import SequenceRegressor
from crnn.models.tagger import SequenceTagger

if TYPE_CHECKING:  # River need not be there to check types
    class _Classifier: ...

    class _Regressor: ...

    class _AnomalyDetector: ...
else:
    try:
        from river import base as _base
    except ImportError:
        _Classifier = _Regressor = _AnomalyDetector = object
    else:
        _Classifier, _Regressor, _AnomalyDetector = _base.Classifier, _base.Regressor, _base.AnomalyDetector

__all__ = ["RiverAnomaly", "RiverClassifier", "RiverRegressor"]


@fixed_attributes()
class _Adapter:
    """What the adapters have in common.

    Parameters
    ----------
    model
        A crnn model of real inputs, whose sizes are known; a copy of it learns.
    features : sequence of str, optional
        Names of the features, in the order of the model's inputs, at most as many as it has. If not given: those of the
        first dict, sorted; names that come later take the inputs that are left.
    new_features : {"error", "ignore"}
        What is done with a feature that appears later and for which no input is left. Which features of the first dict
        to read is never guessed: if it has more than the model has inputs, ``features`` must name them.
    options : dict, optional
        Options of ``model.learner``, such as ``{"lr": 1e-3, "bptt": 16, "every": 1}``; one stream.

    A feature that is missing, or None, is 0. Others are real numbers, also Decimals, True and False; the model does not
    standardise by what it reads, so put River's ``StandardScaler`` in front if scales differ.
    """

    model: Any
    features: Sequence[Any] | None
    new_features: str
    options: Mapping[str, Any] | None

    def __init__(
        self,
        model: Any,
        features: Sequence[Any] | None = None,
        new_features: str = "error",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.features, self.new_features, self.options = model, features, new_features, options
        if new_features not in ("error", "ignore"):
            raise ValueError(f"new_features: expected 'error' or 'ignore', got {new_features!r:.100}")
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"options: expected a dict, got {type(options).__name__}")
        if isinstance(model, type):
            raise TypeError(f"model: expected {self._expected}, got a class, {model.__name__}")
        if features is not None and hasattr(features, "tolist"):  # an array, or the columns of a DataFrame
            features = features.tolist()
        if features is not None and (not isinstance(features, Sequence) or isinstance(features, str | bytes)):
            raise TypeError(f"features: expected a list of names, got {type(features).__name__}")
        if not hasattr(model, "learner"):
            raise TypeError(f"model: expected {self._expected}, got {type(model).__name__}")
        given = dict(options or {})
        if given.get("streams", 1) != 1:
            raise ValueError(f"options: expected one stream, got streams={given['streams']!r}")
        learner = model.learner(**given)
        if not isinstance(learner, self._kind()) or learner._ids:
            raise ValueError(f"model: expected {self._expected}, got {model!r:.200}")
        self._learner: Any = learner
        size = learner._module.net.input_size
        self._places: dict[Any, int] = {name: place for place, name in enumerate(features or ())}
        if len(self._places) > size or (features is not None and len(self._places) < len(features)):
            raise ValueError(f"features: expected at most {size} different names, got {list(features or ())!r:.200}")
        self._row = np.zeros(size)
        self._read: Array | None = None  # what the last prediction has read, if it may be taken back
        self._output: Any = None  # that prediction

    _expected = "a model of real inputs"

    @staticmethod
    def _kind() -> type[SequenceLearner]:
        return SequenceLearner

    @property
    def learner(self) -> Any:
        """The learner, for its snapshots, files and counters, which know what `learn_one` has been given, not the last
        prediction. Do not call `predict` or `learn` of it. After a prediction, read the attribute again.
        """
        self._take_back()
        return self._learner

    def __copy__(self) -> Any:
        """An independent copy, as of a learner: two adapters of one learner would mix their sequences."""
        return copy.deepcopy(self)

    def _vector(self, x: Mapping[Any, Any]) -> Array:
        """The features as the model's inputs (D,). Raises TypeError and ValueError."""
        if not isinstance(x, Mapping):
            raise TypeError(f"x: expected a dict of features, got {type(x).__name__}")
        unknown = x.keys() - self._places.keys()
        places = self._with(unknown) if unknown else self._places
        row = np.zeros(len(self._row))
        for name, value in x.items():
            place = places.get(name)
            if place is None or value is None:
                continue
            if not isinstance(value, numbers.Real | np.bool_ | Decimal):
                raise TypeError(f"x[{name!r:.50}]: expected a number, got {type(value).__name__} {value!r:.50}")
            try:
                row[place] = value
            except OverflowError:
                row[place] = np.inf
            if not np.isfinite(row[place]):
                raise ValueError(f"x[{name!r:.50}]: expected a finite number, got {value!r:.50}")
        self._places = places
        return row

    def _with(self, unknown: Any) -> dict[Any, int]:
        """The places of all features, with those of new ones."""
        names, left = sorted(unknown, key=str), len(self._row) - len(self._places)
        if len(names) > left and (self.new_features == "error" or not self._places):
            first, hint = "", "new_features='ignore' leaves later ones out"
            if not self._places:
                first = " in the first dict"
                hint = f"features=[...] with new_features='ignore' says which {left} to read"
            raise ValueError(
                f"x: expected at most {len(self._row)} features{first}, the inputs of the model, got "
                f"{[*self._places, *names]!r:.200}; {hint}"
            )
        return self._places | {name: len(self._places) + i for i, name in enumerate(names[:left])}

    def _predict(self, x: Mapping[Any, Any]) -> Any:
        """The prediction for x, which is part of the sequence if `_learn` is given it next."""
        row = self._vector(x)
        if self._read is None or not np.array_equal(row, self._read):
            self._take_back()
            self._output, self._read = self._learner.predict(row), row
        return self._output

    def _take_back(self) -> None:
        if self._read is not None:
            self._learner._take_back()
            self._read = None

    def _learn(self, x: Mapping[Any, Any], y: Any) -> None:
        self._learner._check_target(y)
        self._predict(x)
        self._learner.learn(y)
        self._read = None

    def reset(self) -> None:
        """Begin another sequence. No gradient passes."""
        self._take_back()
        self._learner.reset()


class RiverClassifier(_Adapter, _Classifier):
    __doc__ = f"""A `SequenceTagger`, or a `SequenceClassifier` with pooling "last", as a classifier of River.

    {_Adapter.__doc__ and _Adapter.__doc__.partition("common.")[2].strip()}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> from crnn.interop.river import RiverClassifier
    >>> model = crnn.SequenceTagger(2, classes=[False, True], hidden_size=8, seed=0)
    >>> classifier = RiverClassifier(model, options={{"lr": 1e-2, "bptt": 8, "every": 1}})
    >>> for x, y in np.random.default_rng(0).normal(size=(600, 2)):
    ...     classifier.learn_one({{"x": x, "y": y}}, x > 0)
    >>> classifier.predict_one({{"x": 1.0, "y": 0.5}})
    True
    """

    _expected = "a SequenceTagger or SequenceClassifier of real inputs, one class for each step"

    def __init__(
        self,
        model: Any,
        features: Sequence[Any] | None = None,
        new_features: str = "error",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, features, new_features, options)
        if self._learner._module.multilabel:
            raise ValueError(f"model: expected {self._expected}, got multilabel=True")
        self._labels: list[Any] = self._learner._module._targets.label_array().tolist()

    @staticmethod
    def _kind() -> type[SequenceLearner]:
        return ClassLearner

    @property
    def _multiclass(self) -> bool:
        return len(self._labels) > 2

    @property
    def _supervised(self) -> bool:
        return True

    def learn_one(self, x: Mapping[Any, Any], y: Any) -> None:
        """Read the features as the next step of the sequence, and learn its class."""
        self._learn(x, y)

    def predict_proba_one(self, x: Mapping[Any, Any]) -> dict[Any, float]:
        """The probability of each class, if the features were the next step of the sequence."""
        p = self._learner.probabilities(self._predict(x)).astype(np.float64)
        return dict(zip(self._labels, (p / p.sum()).tolist(), strict=True))

    def predict_one(self, x: Mapping[Any, Any]) -> Any:
        """The most probable class, if the features were the next step of the sequence."""
        return self._labels[int(np.argmax(self._predict(x)))]

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """For River's own checks."""
        model = SequenceTagger(9, classes=[False, True], hidden_size=8, seed=0)
        yield {"model": model, "new_features": "ignore", "options": {"bptt": 8}}


class RiverRegressor(_Adapter, _Regressor):
    __doc__ = f"""A `SequenceRegressor` of one value for each step as a regressor of River.

    {_Adapter.__doc__ and _Adapter.__doc__.partition("common.")[2].strip()}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> from crnn.interop.river import RiverRegressor
    >>> model = crnn.SequenceRegressor(1, 1, hidden_size=8, seed=0)
    >>> regressor = RiverRegressor(model, options={{"lr": 1e-2, "bptt": 8, "every": 1}})
    >>> for x in np.random.default_rng(0).normal(size=1000):
    ...     regressor.learn_one({{"x": x}}, 3 * x)
    >>> abs(regressor.predict_one({{"x": 1.0}}) - 3) < 0.3
    True
    """

    _expected = "a SequenceRegressor of real inputs and one value, not of quantiles"

    def __init__(
        self,
        model: Any,
        features: Sequence[Any] | None = None,
        new_features: str = "error",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, features, new_features, options)
        loss = self._learner._module._targets.loss
        if loss.outputs != 1:
            raise ValueError(f"model: expected {self._expected}, got {model!r:.200}")

    @staticmethod
    def _kind() -> type[SequenceLearner]:
        return ValueLearner

    @property
    def _supervised(self) -> bool:
        return True

    def learn_one(self, x: Mapping[Any, Any], y: Any) -> None:
        """Read the features as the next step of the sequence, and learn its value."""
        self._learn(x, y)

    def predict_one(self, x: Mapping[Any, Any]) -> float:
        """The value, if the features were the next step of the sequence."""
        return float(self._predict(x)[0])

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """For River's own checks."""
        model = SequenceRegressor(6, 1, hidden_size=8, seed=0)
        yield {"model": model, "new_features": "ignore", "options": {"bptt": 8}}


class RiverAnomaly(_Adapter, _AnomalyDetector):
    __doc__ = f"""A `SequenceRegressor` that predicts the next features, as an anomaly detector of River.

    The score of features is the mean squared error of their prediction from all features before, in the units in which
    the model standardises; 0 for the first ones. The model has as many outputs as inputs.

    {_Adapter.__doc__ and _Adapter.__doc__.partition("common.")[2].strip()}

    Examples
    --------
    >>> import crnn
    >>> from crnn.interop.river import RiverAnomaly
    >>> model = crnn.SequenceRegressor(1, 1, hidden_size=8, seed=0)
    >>> detector = RiverAnomaly(model, options={{"lr": 1e-2, "bptt": 8}})
    >>> for step in range(1000):
    ...     detector.learn_one({{"odd": step % 2}})
    >>> detector.score_one({{"odd": 0}}) < 0.01 < 0.5 < detector.score_one({{"odd": 1}})
    True
    """

    _expected = "a SequenceRegressor of real inputs with as many outputs, not of quantiles"

    def __init__(
        self,
        model: Any,
        features: Sequence[Any] | None = None,
        new_features: str = "error",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, features, new_features, options)
        if self._learner._module._targets.loss.outputs != len(self._row):
            raise ValueError(f"model: expected {self._expected}, got {model!r:.200}")

    @staticmethod
    def _kind() -> type[SequenceLearner]:
        return ValueLearner

    @property
    def _supervised(self) -> bool:
        return False

    def learn_one(self, x: Mapping[Any, Any]) -> None:
        """Learn the features as those that were to be predicted, and read them as the next step of the sequence."""
        row = self._vector(x)
        if self._output is not None:
            self._learner._check_inputs(row)  # before they are learnt
            self._learner.learn(row)
        self._output = self._learner.predict(row)

    def score_one(self, x: Mapping[Any, Any]) -> float:
        """How far the features are from their prediction."""
        row = self._vector(x)
        if self._output is None:
            return 0.0
        return float(np.mean(((row - self._output) / self._learner._module.scalings["y"].std) ** 2))

    def reset(self) -> None:
        """Begin another sequence. No gradient passes, and its first features have no score."""
        self._learner.reset()
        self._output = None

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        """For River's own checks."""
        model = SequenceRegressor(31, 31, hidden_size=8, seed=0)
        yield {"model": model, "new_features": "ignore", "options": {"bptt": 8}}
