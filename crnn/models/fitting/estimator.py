# SPDX-License-Identifier: MIT
"""Estimator: scikit-learn's contract, for models that are made of arguments and learn in ``fit``.

scikit-learn is not needed, and not imported unless it reads the tags. docs/scikit-learn.md describes the contract.

    constructor --> arguments as given --> get_params, set_params, clone
    arguments --> how to learn --> fit, unless given others
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict

from crnn._float_mode import public_methods_in_ieee_mode
from crnn._options import build_config, check_options, option, options_of, unexpected
from crnn.checks import as_number, check_flag
from crnn.models.inputs.held_out import AUTO
from crnn.nn.config import NetworkOptions
from crnn.nn.init import UNINITIALISED
from crnn.training.config import LEARNING, LearningOptions, TrainingConfig, TrainingOptions
from crnn.training.log import TrainingLog

if TYPE_CHECKING:
    from sklearn.utils import Tags

__all__ = [
    "ESTIMATING",
    "Estimator",
    "EstimatorConfig",
    "FitOptions",
    "ModelOptions",
    "NotFittedError",
    "not_fitted",
]


class NotFittedError(ValueError, AttributeError):
    """A model whose sizes come from the training data has been used before `fit`."""


def not_fitted(message: str) -> Exception:
    """A `NotFittedError`, and scikit-learn's if the program uses scikit-learn."""
    exceptions = sys.modules.get("sklearn.exceptions")
    if exceptions is None:
        return NotFittedError(message)
    both = type("NotFittedError", (NotFittedError, exceptions.NotFittedError), {"__module__": __name__})
    found: Exception = both(message)
    return found


# ---- options of the constructor that say how to learn ----------------------------------------------------------------


class EstimatorOptions(TypedDict, total=False):
    """The options of `EstimatorConfig`, for type checkers."""

    valid: float | tuple[Any, Any] | Literal["auto"] | None
    warm_start: bool


class ModelOptions(NetworkOptions, LearningOptions, EstimatorOptions, total=False):
    """The options that the constructor of a model takes by name, in addition to its own."""


class FitOptions(TrainingOptions, EstimatorOptions, total=False):
    """The options that the ``fit`` of a model takes by name."""


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig:
    """The options of ``fit`` that `crnn.fit` does not have. Like those in `LEARNING`, constructors take them too."""

    valid: float | tuple[Any, Any] | Literal["auto"] | None = option(
        AUTO,
        help="Validation data of `fit`, to evaluate on after every epoch: a share of the sequences, 'auto' or None.",
        json_types=(float, int, str, type(None)),
    )
    warm_start: bool = option(
        False,
        check=check_flag,
        help="Whether `fit` continues from the current weights. Otherwise it begins from the starting weights.",
    )

    def __post_init__(self) -> None:
        check_options(self)


ESTIMATING = LEARNING + options_of(EstimatorConfig)
NAMES = tuple(each.name for each in ESTIMATING)
# Options that do not determine the result, which files therefore do not hold.
UNSAVED = ("threads", "progress", "log_every")


def check_learning(options: Mapping[str, Any]) -> None:
    """Check the options of a constructor that say how to learn. Raises TypeError and ValueError."""
    own = {each.name for each in options_of(EstimatorConfig)}
    build_config(TrainingConfig, {name: options[name] for name in NAMES if name in options and name not in own})
    build_config(EstimatorConfig, {name: options[name] for name in own if name in options})
    valid = options.get("valid")
    share = as_number(valid)
    if not (valid is None or (isinstance(valid, str) and valid == AUTO) or (share is not None and 0 < share < 1)):
        what = type(valid).__name__ if share is None else share
        raise ValueError(
            f"valid: expected a share between 0 and 1, 'auto' or None, got {what}; pass other validation data to fit"
        )


# ---- the contract ----------------------------------------------------------------------------------------------------


class Estimator:
    """Arguments of the constructor, which scikit-learn reads and sets, and what else its tools need.

    A mixin. The constructor of a subclass calls `_keep_arguments` first, and makes its signature known with
    ``takes_options(..., ESTIMATING)(cls)``. What ``fit`` learns is kept in private attributes.

    Attributes
    ----------
    log : TrainingLog or None
        Of the last ``fit``, also if it was interrupted; None before the first.
    """

    _estimator_type: ClassVar[str | None] = None  # "classifier", "regressor" or None, for scikit-learn
    _arguments: dict[str, Any]  # as given, by name; those that were not given may be missing
    _not_applied: frozenset[str] = frozenset()  # names of arguments that have been set since the last fit
    _log: TrainingLog | None = None

    # ---- arguments ------------------------------------------------------------------------------------------------

    def _keep_arguments(self, given: Mapping[str, Any]) -> None:
        """Keep the arguments of a constructor, its ``locals()``. Raises TypeError for an unknown one."""
        arguments = {name: value for name, value in given.items() if name not in ("self", "__class__", "options")}
        options = given.get("options", {})
        known = list(self._defaults())
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise TypeError(unexpected(unknown[0], known, type(self).__name__))
        arguments |= options
        if arguments.get("seed") is UNINITIALISED:
            del arguments["seed"]
        self._arguments = arguments
        check_learning(arguments)

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """The names of all arguments of the model's constructor, with their defaults, in the order of the signature."""
        owner = next(each for each in cls.__mro__ if "__signature__" in vars(each))
        return _defaults_of(vars(owner)["__signature__"])

    @classmethod
    def _defaults_of_subclass(cls) -> dict[str, Any] | None:
        """The same of a subclass of the user's that has its own constructor; None if this is no such class."""
        owner = next(each for each in cls.__mro__ if {"__signature__", "__init__"} & vars(each).keys())
        if "__signature__" in vars(owner):
            return None
        defaults = _defaults_of(inspect.signature(vars(owner)["__init__"]))
        del defaults[next(iter(defaults))]  # self
        return defaults

    def _all_arguments(self) -> dict[str, Any]:
        """All arguments of the model's constructor: those that were given, and the defaults of the others."""
        return {name: self._arguments.get(name, default) for name, default in self._defaults().items()}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor by name: the objects that were given, or the defaults.

        Parameters
        ----------
        deep : bool
            Has no effect, because no argument is an estimator.

        Examples
        --------
        >>> import crnn
        >>> crnn.SequenceClassifier(hidden_size=8, lr=0.01).get_params()["lr"]
        0.01
        """
        own = self._defaults_of_subclass()
        if own is None:
            return self._all_arguments()
        known = self._all_arguments() | vars(self)
        return {name: known.get(name, default) for name, default in own.items()}

    def set_params(self, **params: Any) -> Self:
        """Set arguments of the constructor by name, for the next `fit`; it checks them. Returns the model.

        Until then the model is what it was. If the arguments make a network of other shapes, `fit` begins with the
        weights of the seed.

        Raises
        ------
        ValueError
            A name is not one of the constructor's; nothing is changed.
        """
        own = self._defaults_of_subclass()
        known = list(self._defaults() if own is None else own)
        for name in params:
            if name not in known:
                raise ValueError(unexpected(name, known, type(self).__name__))
        if own is None:
            self._arguments = self._arguments | params
            self._not_applied |= params.keys()
        elif params:
            make: Any = type(self)
            other = make(**(self.get_params() | params))  # its constructor says what they mean for the model
            self._arguments = other._arguments
            vars(self).update({name: vars(other)[name] for name in params if name in vars(other)})
        return self

    def _set_arguments(self, **arguments: Any) -> None:
        """Set arguments of crnn's class, which the constructor of a user's subclass may not have."""
        self._arguments = self._arguments | arguments
        vars(self).update({name: value for name, value in arguments.items() if name in vars(self)})

    def __setattr__(self, name: str, value: Any) -> None:
        """An argument of the constructor is set as by `set_params`."""
        if "_arguments" not in vars(self):  # in the constructor of a user's class
            object.__setattr__(self, name, value)
        elif not name.startswith("_") and name in self._defaults():
            self._arguments = self._arguments | {name: value}
            self._not_applied |= {name}
        else:
            super().__setattr__(name, value)

    # ---- options of fit -------------------------------------------------------------------------------------------

    def _learning_arguments(self) -> dict[str, Any]:
        """Copies of the arguments that were given and say how to learn."""
        return {name: deepcopy(self._arguments[name]) for name in NAMES if name in self._arguments}

    def _own_arguments(self) -> dict[str, Any]:
        """All arguments that describe the model, not how to learn."""
        return {name: value for name, value in self._all_arguments().items() if name not in NAMES}

    def _fit_options(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The options of a `fit`: those it was given, then those of the constructor.

        Returns those of `crnn.fit`, and those of `EstimatorConfig`. An optimizer of the constructor is copied, because
        each run needs its own.
        """
        kept = self._learning_arguments()
        check_learning(kept)
        merged = kept | dict(options)
        own = {each.name: merged.pop(each.name, each.default) for each in options_of(EstimatorConfig)}
        build_config(EstimatorConfig, own)
        return merged, own

    def _saved_learning(self) -> dict[str, Any]:
        """The options that say how to learn as a file holds them: those that were given, if JSON can hold them.

        An optimizer, an average or a schedule that is an object is not saved; pickles have it.
        """
        saved: dict[str, Any] = {}
        for each in ESTIMATING:
            if each.name in self._arguments and each.name not in UNSAVED:
                value = self._arguments[each.name]
                value = value.item() if hasattr(value, "item") else value
                if each.has_json_type(value):
                    saved[each.name] = value
        return saved

    @property
    def log(self) -> TrainingLog | None:
        """The log of the last `fit`, also if it was interrupted; None before the first."""
        return self._log

    # ---- what scikit-learn asks for -------------------------------------------------------------------------------

    def _is_fitted(self) -> bool:
        """Whether there is something to predict with."""
        return self._log is not None

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted()

    def __sklearn_tags__(self) -> Tags:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        kind, arguments = self._estimator_type, self._all_arguments()
        several, texts = bool(arguments.get("multilabel")), arguments.get("vocab") is not None
        return Tags(
            estimator_type=kind,
            target_tags=TargetTags(required=kind is not None, multi_output=kind == "regressor"),
            classifier_tags=ClassifierTags(multi_label=several) if kind == "classifier" else None,
            regressor_tags=RegressorTags() if kind == "regressor" else None,
            input_tags=InputTags(three_d_array=True, one_d_array=texts, string=texts),
        )


public_methods_in_ieee_mode(Estimator)


def _defaults_of(signature: inspect.Signature) -> dict[str, Any]:
    """The names of parameters with their defaults, in order."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {each.name: each.default for each in signature.parameters.values() if each.kind not in variable}


def check_saved_learning(options: Any) -> dict[str, Any]:
    """The options of a file that say how to learn, fresh. Raises ValueError."""
    known = {each.name: each for each in ESTIMATING}
    if not isinstance(options, dict) or not all(
        name in known and known[name].has_json_type(value) for name, value in options.items()
    ):
        raise ValueError(f"expected learning, options of a constructor, got {options!r:.200}")
    return dict(options)
