# SPDX-License-Identifier: MIT
"""SequenceModel: a network, a head with its loss, and targets, trained on whole sequences.

    X, y --check, standardise--> SequenceData --batches of similar lengths--> loss_and_gradients <-- crnn.fit
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, ClassVar, Generic, Self, Unpack

import numpy as np

from crnn._attributes import fixed_attributes
from crnn._options import takes_options
from crnn.checks import Array
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import ModelFileError
from crnn.models.batch_passes import BatchPasses
from crnn.models.fitting.built import Built, head_shapes, same_argument
from crnn.models.fitting.estimator import Estimator, EstimatorConfig, FitOptions, check_saved_learning, not_fitted
from crnn.models.fitting.extras import Extras, header_of, reduced
from crnn.models.fitting.fit import fit_sequences
from crnn.models.fitting.from_data import materialised, missing_inputs
from crnn.models.fitting.starting_weights import StartingPoint, digest
from crnn.models.fitting.training_data import Part, part_of
from crnn.models.fitting.weighting import normalised
from crnn.models.inputs.data import Batch, SequenceData, Sequences, Series, check_sequences
from crnn.models.inputs.masking import without_masked
from crnn.models.inputs.names import check_names, check_target_names, target_names_of
from crnn.models.inputs.scalings import Scalings
from crnn.models.inputs.text_inputs import encode_inputs
from crnn.models.outputs.head import Head
from crnn.models.outputs.pooling import POOLINGS
from crnn.models.outputs.targets import EvaluationT, Targets
from crnn.models.passes.evaluating import JudgedOutputs, outputs_of
from crnn.models.passes.predictor import Predictor
from crnn.models.predicting import predicted
from crnn.nn.config import config_from, memory_of, network_json_types
from crnn.nn.init import UNINITIALISED
from crnn.nn.module import JsonTypes, Module, check_records
from crnn.nn.network import RNN
from crnn.nn.params import Shapes
from crnn.nn.precision import check_trainable
from crnn.stream.parts import StreamParts
from crnn.stream.stream import STREAM_POOLINGS
from crnn.text.vocab import Vocab
from crnn.training.communicator import on_all_ranks
from crnn.training.config import TrainingConfig
from crnn.training.stored import stored_statistics

# Options that models add to those of their network, with the types that a file may hold.
SCALE_TYPES: JsonTypes = {"scale": (bool,)}
POOLING_TYPES: JsonTypes = {"pooling": (str, type(None)), "steps": (int, type(None))}


class SequenceModel(Estimator, BatchPasses, Module, Generic[EvaluationT]):
    """Base of the models of whole sequences, such as `SequenceClassifier`.

    Conventions
    -----------
    X is a list of N sequences, real (T_i, D) or integer ids (T_i,), or one array (N, T, D) or (N, T) if all have the
    same length; with a vocabulary a list of texts. Padding is never computed. Unless ``scale=False``, the columns of
    real inputs are standardised by the mean and standard deviation of the training data, which are saved with the
    model. Results do not depend on the number of threads or on the batch that a sequence is in.
    """

    loss_unit: str = "nats"  # for `crnn.fit`
    takes_masks: ClassVar[bool] = True
    learnt_names: ClassVar[tuple[str, ...]] = ()  # arguments that `fit` may decide, besides the sizes
    net: RNN  # whose outputs the head reads
    scalings: Scalings  # of real inputs "x", and of real targets "y"
    seed: int
    scale: bool  # whether `fit` sets `scalings`
    pooling: str | None
    steps: int | None
    vocab: Vocab | None  # of texts as X
    _head: Head
    _predictor: Predictor
    _targets: Targets[EvaluationT]
    _built: Built | None  # has the attributes above; None: the model waits for `fit` to learn its sizes
    _starting: StartingPoint

    # ---- composition ----------------------------------------------------------------------------------------------

    def _begin(self, given: Mapping[str, Any]) -> None:
        """What every constructor does with its ``locals()``: build the model if its sizes are known.

        Otherwise the arguments are checked now, with stand-ins for those that `fit` learns.
        """
        seed, self._built, self._starting = given["seed"], None, StartingPoint()
        self._keep_arguments(given)
        arguments = self._own_arguments()
        missing = self._missing(arguments)
        with memory_of(arguments):
            built = self._build(arguments | missing | {"seed": UNINITIALISED if missing else seed})
        if not missing:
            self._built = built
            built.arguments = arguments
            built.drawn = None if seed is UNINITIALISED else digest(self)

    @classmethod
    def _missing(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Stand-ins for the arguments that the training data must decide."""
        return missing_inputs(arguments)

    @abstractmethod
    def _build(self, arguments: Mapping[str, Any]) -> Built:
        """A model of these arguments, which are complete. Raises TypeError and ValueError; changes nothing."""

    @staticmethod
    @abstractmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the number of outputs of the head of a model with this `config`."""

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        """Names and shapes of the parameters of a model with this `config`."""
        network = config_from(config)
        return dict(network.shapes()) | head_shapes(network, config.get("steps"), cls.outputs_of(config))

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape, without vocabularies, as values that JSON can hold."""
        network = self.net.config()
        return network | {name: getattr(self, name) for name in self.config_types if name not in network}

    @property
    def dtype(self) -> str:
        """float32 or float64."""
        return self.net.dtype

    def __repr__(self) -> str:
        if self.deferred:
            defaults, params = self._defaults(), self._all_arguments()
            shown = {name: value for name, value in params.items() if not same_argument(value, defaults[name])}
            given = ", ".join(f"{name}={value!r:.100}" for name, value in shown.items())
            return f"{type(self).__name__}({given}; sizes come from the training data)".replace("(; ", "(")
        return (
            f"{type(self).__name__}({self.net.describe()}, outputs={self._head.loss.outputs}, "
            f"pooling={self.pooling!r}, {self.num_parameters:,} parameters, dtype={self.dtype!r})"
        )

    @property
    def deferred(self) -> bool:
        """Whether the model waits for `fit` to learn its sizes from the training data."""
        return vars(self).get("_built") is None

    def __getattr__(self, name: str) -> Any:
        """An attribute of the built model, or an argument of the constructor. Called for missing attributes only."""
        own, kind = vars(self), type(self).__name__
        built = own.get("_built")
        if built is not None and name in vars(built):
            return vars(built)[name]
        if "_arguments" in own and not name.startswith("__"):
            if name in self._defaults():
                return self._all_arguments()[name]
            if built is None:
                raise not_fitted(f"{kind}: expected a call of fit before this, because its sizes come from the data")
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    @property
    def n_features_in_(self) -> int:
        """D, the size of the input at each step, or the number of ids."""
        return self.net.input_size

    @property
    def feature_names_in_(self) -> Array:
        """The names of the columns (D,) of the DataFrames that `fit` was given; there is no such attribute without."""
        names = None if self._built is None else self._built.feature_names
        if not names:
            raise AttributeError("feature_names_in_")  # `__getattr__` says what is missing
        return np.array(names, object)

    def _named(self, name: str, X: Any) -> Any:
        """X, which may be read several times then, if the names of its columns are those of `fit`. See `check_names`.
        """
        X, built = materialised(X), self._built
        if built is not None and getattr(built, "vocab", None) is None:
            check_names(self, built.feature_names, name, X)
        return X

    def _named_targets(self, name: str, y: Any) -> Any:
        """y, which may be read several times then, if the names of its columns are those that the model knows. See
        `check_target_names`.
        """
        y = materialised(y)
        if self._built is not None:
            check_target_names(self, name, target_names_of(name, y))
        return y

    def _is_fitted(self) -> bool:
        """Whether the weights are others than those that the seed gave."""
        return self._built is not None and self._built.drawn != digest(self)

    # ---- files and copies -----------------------------------------------------------------------------------------

    @property
    def training_runs(self) -> tuple[Mapping[str, Any], ...]:
        """See `crnn.nn.module.Module`."""
        return () if self._built is None else self._built.training_runs

    @training_runs.setter
    def training_runs(self, records: Sequence[Mapping[str, Any]]) -> None:
        if self._built is None:
            raise AttributeError("training_runs: expected a call of fit before this")
        self._built.training_runs = check_records(records)

    def contents(self) -> tuple[dict[str, Array], dict[str, Any]]:
        tensors, header = super().contents()
        return tensors, header | header_of(self)

    @classmethod
    def from_contents(cls, header: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """As in `Module`, with what `Extras` holds."""
        extras, model = Extras.from_header(header, cls.learnt_names), super().from_contents(header, tensors)
        extras.put_into(model)
        return model

    @classmethod
    def _arguments_of_file(cls, header: Mapping[str, Any]) -> dict[str, Any]:
        return check_saved_learning(header.get("learning", {}))

    def _arguments_of_copy(self) -> dict[str, Any]:
        return self._learning_arguments()

    def _take_unsaved(self, other: Self) -> None:
        self.training_runs = other.training_runs
        Extras.of(other).put_into(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reduced(self)

    # ---- standardisation ------------------------------------------------------------------------------------------

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """Number of columns of everything that is standardised: "x", and "y" if targets are real."""
        return {"x": config["input_size"]}

    @classmethod
    def statistics_of(cls, config: Mapping[str, Any]) -> dict[str, int]:
        return {f"scaling.{name}.{part}": n for name, n in cls.scaled_sizes(config).items() for part in ("mean", "std")}

    @property
    def _statistics(self) -> dict[str, Array]:
        return self.scalings.statistics

    def _set_statistics(self, values: Mapping[str, Array]) -> None:
        self.scalings.set_statistics(values)

    @property
    def is_scaled(self) -> bool:
        """Whether `fit` has learnt the scaling, which from then on belongs to the weights."""
        return self.scalings.are_learnt

    def _prepare_scaling(self, part: Part, *, rescale: bool, checkpoint: PathLike | None) -> None:
        """Set `scalings` as `fit` describes. ``checkpoint``: that of a run which is resumed."""
        if checkpoint is not None:
            try:
                self._set_statistics(stored_statistics(checkpoint, type(self).__name__, self._statistics))
            except ValueError as error:
                raise ModelFileError(str(error)) from None
        elif rescale or not self.is_scaled:
            self._learn_scaling(part.x, part.targets, part.weights)

    def _learn_scaling(self, x: Sequences, y: list[Array], weights: list[Array] | None = None) -> None:
        """Set `scalings` from sequences and encoded targets. ``weights``: of the rows of the targets."""
        if self.scale:
            self.scalings.learn(x, y, weights)

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> Sequences:
        """The inputs X as one array per sequence. Raises TypeError and ValueError, which call them ``name``."""
        if self.vocab is not None:
            x: Sequences = encode_inputs(name, X, self.vocab)
        else:
            x = check_sequences(name, X, self.net.input_size, ids=self.net.embedding_size is not None)
        if not isinstance(x, np.ndarray) and len({array.ndim for array in x}) > 1:
            raise ValueError(f"{name}: expected either numbers or ids, got both")
        if self.steps is not None and {len(array) for array in x} != {self.steps}:
            raise ValueError(f"{name}: expected sequences of {self.steps} steps, for pooling='flatten'")
        return x

    def _encode(self, name: str, y: Any, x: list[Array]) -> list[Array]:
        """The targets y as one array per sequence, not standardised. Errors call them ``name``."""
        return self._targets.encode(name, y, x, single=self.pooling is not None)

    def _check_any_target(self, name: str, targets: list[Array]) -> None:
        """Raise ValueError, which calls the targets ``name``, if all are missing: their loss would be 0."""
        if not any(self._head.loss.count(array) for array in targets):
            raise ValueError(f"{name}: expected at least one target, got only unknown ones")

    def _data(self, x: Sequences, targets: list[Array], weights: list[Array] | None = None) -> SequenceData:
        """Sequences, which are standardised here, and targets, which are already. ``weights``: of their rows."""
        gain = 1.0
        if weights is not None:
            weights = normalised(weights, targets)
            gain = self._head.loss.gain(targets, weights)
        scaled, single = self.scalings.scaled(x, self.dtype), self.pooling is not None
        return SequenceData(scaled, targets, single=single, weights=weights, gain=gain)

    def _without_masked(self, X: Any, y: Any, sample_weight: Any, mask: Any) -> tuple[Any, Any, Any, list[Array]]:
        """See `without_masked`. Raises TypeError and ValueError, also for a model that takes no masks."""
        if not self.takes_masks or self._all_arguments().get("vocab") is not None:
            raise ValueError("mask: expected None for a model of texts or of pairs of sequences; leave the tokens out")
        return without_masked(X, y, sample_weight, mask, by_step=self.weighs_steps)

    def data(self, X: Any, y: Any, sample_weight: Any = None, *, mask: Any = None) -> SequenceData:
        """X and y checked and standardised, as `evaluate` and `crnn.fit` take them; arguments as in `fit`."""
        X, y = self._named("X", X), self._named_targets("y", y)
        if mask is not None:
            X, y, sample_weight, _ = self._without_masked(X, y, sample_weight, mask)
        part = part_of(self, X, y, sample_weight)
        self._check_any_target("y", part.targets)
        return self._data(part.x, self._targets.standardised(part.targets), part.weights)

    def window(self, x: Any, targets: Any) -> tuple[Batch, Array]:
        """X and y as one batch, and its targets as `SequenceData.batch` returns them."""
        data = self.data(x, targets)
        batch, wanted = data.batch(np.arange(len(data)))
        return batch, self._check_targets(wanted, batch)

    # ---- training -------------------------------------------------------------------------------------------------

    @takes_options(EstimatorConfig, TrainingConfig)
    @on_all_ranks
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        mask: Any = None,
        rescale: bool = False,
        **options: Unpack[FitOptions],
    ) -> Self:
        """Train on sequences and their targets. Returns the model; its attribute `log` is the log of the training.

        A fit begins from the starting weights and their scaling: those of the seed, or those that have been put there
        by loading a file, by a conversion, an assignment, or `crnn.fit`. What an earlier fit has learnt is left behind,
        unless ``warm_start`` says to continue from it. Sizes and classes that are not given are taken from the new
        data.

        Parameters
        ----------
        X : sequences, see the class
            Columns of DataFrames are read in their order. Their names are remembered as `feature_names_in_`, and other
            names, or another order, are refused from then on.
        y : targets, see the class
        sample_weight : array (N,), optional
            Weights of the sequences, at least 0; for targets of every step also a list of arrays (T_i,), or an array
            (N, T). Losses are multiplied by them, divided by their mean, so that only their ratios matter; mean and
            standard deviation are weighted, too. What has the weight 0 is left out before anything is learnt, sizes and
            classes included. In a batch of all sequences, a weight of 2 is the same as giving a sequence twice.
        mask : list of bool (T_i,), or bool (N, T), optional
            False: the step is skipped, as if it were not there, and so is its target. Not for texts.
        valid : float, (X, y), (X, y, sample_weight), "auto" or None
            Validation data, to evaluate on after every epoch; the weights of the best epoch are kept. A float in (0, 1)
            is the share of the sequences to take from X and y, at random by the model's seed, of every class alike.
            "auto" takes a share if there is enough data, see `crnn.models.inputs.held_out`; otherwise, and with None,
            all sequences are trained on.
        warm_start : bool
            Continue from the current weights, with the sizes, classes and scaling that belong to them.
        rescale : bool
            Learn mean and standard deviation from this X and y although the starting weights have a scaling. Otherwise
            that is kept, because the weights are made for it, and a resumed run takes that of its checkpoint.
        **options
            As in `crnn.fit`, which lists them all. Those that are not given are the constructor's, or have the same
            defaults. ``bptt`` and ``carry`` are ignored.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; the model is then unchanged.
        FloatingPointError, KeyboardInterrupt
            As in `crnn.fit`. Before the first update the model is unchanged.
        """
        fit_sequences(self, X, y, sample_weight, mask, rescale, options)
        return self

    def _arguments_from(self, arguments: Mapping[str, Any], X: Any, y: Any) -> dict[str, Any]:
        """The arguments that were not given, as the training data decide them. Raises TypeError and ValueError."""
        return {}

    def _prepare_targets(self, part: Part) -> None:
        """Learn from the targets to train on what is neither sizes nor scaling, in models that do."""

    @property
    def weighs_steps(self) -> bool:
        """Whether sample weights may be those of the steps of a sequence."""
        return self._all_arguments().get("pooling") is None

    def _check_weighable(self, X: Any, y: Any) -> None:
        """Raise ValueError if X is nothing that has sample weights."""

    def _learnt(self) -> dict[str, Any]:
        built: Any = self._built
        return {name: getattr(self, name) for name in self.learnt_names} | {
            "feature_names": built.feature_names, "target_names": built.target_names
        }

    def _set_learnt(self, values: Mapping[str, Any]) -> None:
        vars(self._built).update(values)

    def _learn_classes(self, y: Any) -> None:
        """Learn names of classes from the training labels, in models that have them."""

    def _training_sequences(self, X: Any, y: Any, valid: Any) -> tuple[Any, Any, Series | None]:
        """X and ``valid`` as `fit` uses them. Overridden where a lone series, the third, is cut into windows."""
        return X, valid, None

    # ---- evaluation and prediction --------------------------------------------------------------------------------

    def _outputs(self, data: SequenceData, batch_size: int, threads: int) -> Sequences:
        """The head's outputs for each sequence, fresh: (T_i, V), or with pooling (1, V)."""
        return outputs_of(self._predictor, data, batch_size, threads)

    def _predict(
        self, X: Any, from_outputs: Callable[[Array], Array], batch_size: int, threads: int, mask: Any = None
    ) -> Any:
        """Predictions for X, see `predicted`."""
        return predicted(self, self._named("X", X), from_outputs, batch_size, threads, mask)

    def evaluate(
        self, X: Any, y: Any = None, *, mask: Any = None, batch_size: int = 256, threads: int = 1
    ) -> EvaluationT:
        """Evaluate the predictions for X against y.

        Parameters
        ----------
        X : sequences, see the class; or what `data` returns, without y
        y : targets, see the class
        mask : list of bool (T_i,), or bool (N, T), optional
            As in `fit`.
        batch_size : int
            Sequences that are computed at a time, fewer where their outputs are large; does not change the result.
        threads : int

        Returns
        -------
        Evaluation or RegressionEvaluation

        Raises
        ------
        TypeError, ValueError
            Sequences or targets are wrong, or all targets are missing.
        """
        data = X if isinstance(X, SequenceData) else self.data(X, y, mask=mask)
        judged = JudgedOutputs(
            self._head.loss, data, lambda part: self._outputs(part, batch_size, threads), np.dtype(self.dtype).itemsize
        )
        return self._targets.evaluation(judged, data.targets, data.weights)

    def check_trainable(self) -> None:
        """Raise ValueError for a model that is for inference only, as an int8 model is."""
        check_trainable(self._all_arguments()["precision"])

    def _calibration_outputs(self, inputs: Any) -> list[Array]:
        x = self._sequences("calibration", inputs)
        no_targets = [np.zeros((1, 1), np.int32)] * len(x)
        return list(self._outputs(self._data(x, no_targets), 256, 1))

    def _stream_parts(self) -> StreamParts:
        if self.pooling not in STREAM_POOLINGS:
            names = ", ".join(repr(name) for name in POOLINGS if name in STREAM_POOLINGS)
            raise ValueError(
                f"stream: expected pooling None, or one of {names}, got {self.pooling!r}, which needs whole sequences"
            )
        parts = self._predictor.stream_parts(type(self).__name__)
        if not self.scale:
            return parts
        arrays = self.scalings.for_streams(ids_only=self.net.embedding_size is not None)
        return replace(parts, x=arrays.get("x"), y=arrays.get("y"))


# What is read at every update is found without a detour through `SequenceModel.__getattr__`, which serves the rest.
OFTEN_READ = {
    "net": "The network, whose outputs the head reads.",
    "scalings": 'The `Standardizer` of real inputs, "x", and of real targets, "y".',
    "pooling": "How the outputs of the steps become the input of the head; None: each is one.",
    "steps": 'Length of all sequences, for pooling "flatten".',
    "vocab": "The vocabulary of texts as X.",
    **dict.fromkeys(("_head", "_parameters", "_predictor", "_targets"), ""),
}
for _name, _doc in OFTEN_READ.items():
    setattr(SequenceModel, _name, property(attrgetter(f"_built.{_name}"), doc=_doc))
fixed_attributes(in_constructor=False)(SequenceModel)


def model_json_types(*parts: JsonTypes) -> dict[str, tuple[type, ...]]:
    """The types that a sequence model's options may have in a file: those of its network, and ``parts``."""
    types = network_json_types()
    for part in parts:
        types |= part
    return types
