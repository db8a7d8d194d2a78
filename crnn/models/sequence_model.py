# SPDX-License-Identifier: MIT
"""SequenceModel: a network, a head with its loss, and targets, trained on whole sequences.

    X, y --check, standardise--> SequenceData --batches of similar lengths--> loss_and_gradients <-- crnn.fit
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, TypeAlias, Unpack

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import loss as kernels
from crnn._options import takes_options
from crnn.array_input import items
from crnn.checks import Array, check_flag, check_seed, check_size, check_threads
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import ModelFileError
from crnn.models.data import (
    BLOCK_ROWS,
    Batch,
    SequenceBatches,
    SequenceData,
    Sequences,
    Series,
    blocks,
    by_length,
    by_rows,
    check_sequences,
    sequences_of,
    split_rows,
)
from crnn.models.from_data import materialised
from crnn.models.head import Head
from crnn.models.held_out import AUTO, held_out, held_out_notes, is_auto
from crnn.models.losses import Loss
from crnn.models.pooling import POOLINGS
from crnn.models.predictor import Predictor, Seed, Workspace
from crnn.models.standardizer import Standardizer
from crnn.models.targets import EvaluationT, Targets
from crnn.nn.cells import Slice
from crnn.nn.config import NetworkConfig, config_from, network_json_types
from crnn.nn.init import UNINITIALISED, initial_matrix, uniform_draws
from crnn.nn.module import JsonTypes, Module
from crnn.nn.network import RNN
from crnn.nn.params import Parameters, Shapes
from crnn.nn.state import StateLike
from crnn.stream.parts import StreamParts
from crnn.stream.stream import STREAM_POOLINGS
from crnn.training.checkpoint import stored_statistics
from crnn.training.config import TrainingConfig, TrainingOptions
from crnn.training.fit import fit
from crnn.training.log import TrainingLog

Part: TypeAlias = tuple[Sequences, list[Array]]  # some of the sequences, and their targets
ONE_ROW = Slice(0, 1)  # of a batch of one sequence
# Options that models add to those of their network, with the types that a file may hold.
SCALE_TYPES: JsonTypes = {"scale": (bool,)}
POOLING_TYPES: JsonTypes = {"pooling": (str, type(None)), "steps": (int, type(None))}


class SequenceModel(Module, Generic[EvaluationT]):
    """Base of the models of whole sequences, such as `SequenceClassifier`.

    Conventions
    -----------
    X is a list of N sequences, real (T_i, D) or integer ids (T_i,), or one array (N, T, D) or (N, T) if all have the
    same length. Padding is never computed. Unless ``scale=False``, the columns of real inputs are standardised by the
    mean and standard deviation of the training data, which are saved with the model. Results do not depend on the
    number of threads or on the batch that a sequence is in.
    """

    loss_unit: str = "nats"  # for `crnn.fit`
    deferred: dict[str, Any] | None = None  # arguments of a model that waits for `fit` to learn its sizes
    net: RNN  # whose outputs the head reads
    scalings: dict[str, Standardizer]  # of real inputs "x", and of real targets "y"
    seed: int
    scale: bool  # whether `fit` sets `scalings`
    pooling: str | None
    steps: int | None
    _head: Head
    _predictor: Predictor
    _targets: Targets[EvaluationT]

    # ---- composition ----------------------------------------------------------------------------------------------

    def _compose(
        self,
        config: NetworkConfig,
        loss: Loss,
        targets: Targets[EvaluationT],
        scalings: dict[str, Standardizer],
        *,
        pooling: str | None,
        steps: int | None,
        scale: bool,
        seed: int,
    ) -> None:
        """Set the attributes of a model with one network. SequenceToSequence, which has two, does not use this."""
        check_pooling(pooling, steps)
        self.pooling, self.steps = pooling, None if steps is None else check_size("steps", steps)
        self.scale = check_flag("scale", scale)
        self.seed = 0 if seed is UNINITIALISED else check_seed("seed", seed)
        self._targets, self.scalings = targets, scalings
        network = config.shapes()
        self._parameters = Parameters(dict(network) | head_shapes(config, self.steps, loss.outputs), config.dtype)
        self.net = RNN.from_parameters(self._parameters.part("", network), config, seed)
        self._head = Head(self.params, self.grads, loss, pooling=pooling, directions=config.directions)
        self._predictor = Predictor(self.net, self._head)
        if seed is not UNINITIALISED:
            weights = self.params["W_hy"]
            weights[...] = initial_matrix("glorot", uniform_draws(self.seed + 1), weights.shape, "W_hy")

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
        if self.deferred is not None:
            given = ", ".join(f"{name}={value!r:.100}" for name, value in self.deferred.items())
            return f"{type(self).__name__}({given}; sizes come from the training data)"
        return (
            f"{type(self).__name__}({self.net.describe()}, outputs={self._head.loss.outputs}, "
            f"pooling={self.pooling!r}, {self.flat_params.size:,} parameters, dtype={self.dtype!r})"
        )

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return super().__reduce__() if self.deferred is None else (_waiting, (type(self), self.deferred))

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
        statistics: dict[str, Array] = {}
        for name, scaling in self.scalings.items():
            statistics |= {f"scaling.{name}.mean": scaling.mean, f"scaling.{name}.std": scaling.std}
        return statistics

    def _set_statistics(self, values: Mapping[str, Array]) -> None:
        for name, scaling in self.scalings.items():
            mean, std = values[f"scaling.{name}.mean"], values[f"scaling.{name}.std"]
            scaling.set_statistics(f"scaling.{name}.std", mean, std)

    @property
    def is_scaled(self) -> bool:
        """Whether `fit` has learnt the scaling, which from then on belongs to the weights."""
        return not all(scaling.is_identity for scaling in self.scalings.values())

    def _prepare_scaling(self, x: list[Array], y: list[Array], *, rescale: bool, checkpoint: PathLike | None) -> None:
        """Set `scalings` as `fit` describes. ``checkpoint``: that of a run which is resumed."""
        if checkpoint is not None:
            try:
                self._set_statistics(stored_statistics(checkpoint, type(self).__name__, self._statistics))
            except ValueError as error:
                raise ModelFileError(str(error)) from None
        elif rescale or not self.is_scaled:
            self._learn_scaling(x, y)

    def _learn_scaling(self, x: list[Array], y: list[Array]) -> None:
        """Set `scalings` from the training data, as `_sequences` and `_encode` return them."""
        if self.scale and x[0].ndim == 2:
            self.scalings["x"].learn("X", x)
        if self.scale and "y" in self.scalings:
            self.scalings["y"].learn("y", y)

    def _scaled(self, x: Sequences) -> Sequences:
        """Sequences standardised, in the model's dtype; ids as they are."""
        if x[0].ndim == 1:
            return x
        try:
            return by_rows(x, lambda rows: self.scalings["x"].apply_checked(rows, self.dtype))
        except OverflowError:
            return self.scalings["x"].apply_to_all("X", list(x), self.dtype)  # raises an error that names the number

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> Sequences:
        """The inputs X as one array per sequence. Raises TypeError and ValueError, which call them ``name``."""
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

    def _data(self, x: list[Array], targets: list[Array]) -> SequenceData:
        """Data of sequences, which are standardised here, and targets, which are already."""
        return SequenceData(self._scaled(x), targets, single=self.pooling is not None)

    def data(self, X: Any, y: Any) -> SequenceData:
        """X and y checked and standardised, as `evaluate` and `crnn.fit` take them."""
        x = self._sequences("X", X)
        targets = self._encode("y", y, x)
        self._check_any_target("y", targets)
        return self._data(x, self._targets.standardised(targets))

    def _check_targets(self, targets: ArrayLike, batch: Batch) -> Array:
        """The targets of a batch as the kernels take them."""
        steps, rows = batch.x.shape[:2] if self.pooling is None else (1, batch.size)
        return self._head.loss.check("y", targets, steps, rows, self.dtype)

    def window(self, x: Any, targets: Any) -> tuple[Batch, Array]:
        """X and y as one batch, and its targets as `SequenceData.batch` returns them."""
        data = self.data(x, targets)
        batch, wanted = data.batch(np.arange(len(data)))
        return batch, self._check_targets(wanted, batch)

    # ---- training -------------------------------------------------------------------------------------------------

    @takes_options(TrainingConfig)
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        valid: float | tuple[Any, Any] | Literal["auto"] | None = AUTO,
        rescale: bool = False,
        **options: Unpack[TrainingOptions],
    ) -> TrainingLog:
        """Train on sequences and their targets.

        Parameters
        ----------
        X : sequences, see the class
        y : targets, see the class
        valid : float, (X, y), "auto" or None
            Validation data, to evaluate on after every epoch; the weights of the best epoch are kept. A float in (0, 1)
            is the share of the sequences to take from X and y, at random by the model's seed, of every class alike.
            "auto" takes a share if there is enough data, see `crnn.models.held_out`; otherwise, and with None, all
            sequences are trained on.
        rescale : bool
            Learn mean and standard deviation from this X and y although an earlier `fit` has learnt them. Otherwise
            they are learnt once, because the weights are made for them, and a resumed run takes those of its
            checkpoint.
        **options
            As in `crnn.fit`, which lists them all, with the same defaults. ``bptt`` and ``carry`` are ignored.

        Returns
        -------
        TrainingLog

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; the model is then unchanged.
        FloatingPointError, KeyboardInterrupt
            As in `crnn.fit`.
        """
        X, y = materialised(X), materialised(y)
        if self.deferred is not None:
            return self._fit_built(X, y, valid, options)
        share = valid
        X, valid, series = self._training_sequences(X, y, share)
        x = self._sequences("X", X)
        self._learn_classes(y)
        targets = self._encode("y", y, x)
        (x, targets), unseen, notes = self._validation_part(x, targets, valid)
        if series is not None and is_auto(share):
            notes = held_out_notes(len(series.values) - series.known, len(series.values), "steps")
        self._check_any_target("y", targets)
        if unseen is not None:
            self._check_any_target("valid", unseen[1])
        weights, statistics = self.flat_params.copy(), self._statistics
        try:
            resumed = options.get("checkpoint") if options.get("resume") else None
            if check_flag("rescale", rescale) and resumed is not None:
                raise ValueError("rescale: expected False with resume, which takes the checkpoint's scaling, got True")
            self._prepare_scaling(x, targets, rescale=rescale, checkpoint=resumed)
            standardised = self._targets.standardised
            train = self._data(x, standardised(targets))
            train.notes = notes
            judged = None if unseen is None else self._data(unseen[0], standardised(unseen[1]))
            if series is not None:
                train.series = Series(series.values[: series.known], series.known)
                if judged is not None and series.known < len(series.values):
                    judged.series = series
            return fit(self, train, valid=judged, **options)
        except BaseException:
            if np.array_equal(weights, self.flat_params):  # not trained: the weights fit the previous statistics
                self._set_statistics(statistics)
            raise

    def _fit_built(self, X: Any, y: Any, valid: Any, options: Mapping[str, Any]) -> TrainingLog:
        """`fit` of a model whose sizes the data decide: it becomes such a model, unless an argument is wrong."""
        make: Any = type(self)  # each class has its own signature
        built = make(**{**(self.deferred or {}), **self._arguments_from(X, y)})
        try:
            log: TrainingLog = built.fit(X, y, valid=valid, **options)
        except (TypeError, ValueError):
            raise
        except BaseException:  # interrupted, or diverged: the weights of that moment are the user's
            self.__dict__ = built.__dict__
            raise
        self.__dict__ = built.__dict__
        return log

    def _arguments_from(self, X: Any, y: Any) -> dict[str, Any]:
        """The arguments that were not given, as the training data decide them. Raises TypeError and ValueError."""
        raise TypeError(f"{type(self).__name__}: expected its sizes as arguments")

    def _learn_classes(self, y: Any) -> None:
        """Learn names of classes from the training labels, in models that have them."""

    def _training_sequences(self, X: Any, y: Any, valid: Any) -> tuple[Any, Any, Series | None]:
        """X and ``valid`` as `fit` uses them. Overridden where a lone series, the third, is cut into windows."""
        return X, valid, None

    def __getattr__(self, name: str) -> Any:
        """Only what does not exist arrives here."""
        kind = type(self).__name__
        if self.__dict__.get("deferred") is not None and not name.startswith("__"):
            raise AttributeError(f"{kind}: expected a call of fit before this, because its sizes come from the data")
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    def _validation_part(self, x: Sequences, targets: list[Array], valid: Any) -> tuple[Part, Part | None, list[str]]:
        """Sequences and targets to train on, those to validate on, and what the log says of it."""
        if valid is None:
            return (x, targets), None, []
        if isinstance(valid, tuple | list):
            if len(valid) != 2:
                raise ValueError(f"valid: expected a share of X, or a pair (X, y), got {len(valid)} items")
            given = self._sequences("valid[0]", valid[0])
            return (x, targets), (given, self._encode("valid[1]", valid[1], given)), []
        chosen = held_out(valid, self._targets.groups(targets), self.seed, self._targets.held_out)
        if is_auto(valid) and not any(self._head.loss.count(targets[i]) for i in chosen):
            return (x, targets), None, held_out_notes(0, len(x), "sequences")
        rest = sorted(set(range(len(x))) - set(chosen))
        train, unseen = (([x[i] for i in part], [targets[i] for i in part]) for part in (rest, chosen))
        return train, unseen, held_out_notes(len(chosen), len(x), "sequences") if is_auto(valid) else []

    def check_valid(self, data: Any) -> None:
        """Raise TypeError unless ``data`` is of the kind that `data` returns. For `crnn.fit`."""
        if not isinstance(data, SequenceData):
            raise TypeError(f"valid: expected the model's own data, got {type(data).__name__}; call the model's fit")

    def windows(self, data: Any, batch_size: int, bptt: int) -> SequenceBatches:
        """The batches of ``data``, for `crnn.fit`. ``bptt`` is ignored. Raises TypeError as `check_valid` does."""
        if not isinstance(data, SequenceData):
            raise TypeError(f"data: expected the model's own data, got {type(data).__name__}; call the model's fit")
        return SequenceBatches(data, batch_size, self.seed)

    def workspace(self) -> Workspace:
        """A new workspace for `loss_and_gradients`."""
        return Workspace()

    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state that `crnn.nn.state.state_arrays` listed, for checkpoints; see `Predictor.state_from`."""
        return self._predictor.state_from(arrays, batch)

    def loss_and_gradients(
        self,
        x: Batch,
        targets: Array,
        state: None = None,
        *,
        reduction: str = "mean",
        threads: int = 1,
        workspace: Workspace | None = None,
        dropout_seed: Seed = None,
    ) -> tuple[float, int, None]:
        """Forward pass, losses and backward pass of a batch; ACCUMULATES the gradients in `grads`.

        Parameters
        ----------
        x : Batch
        targets : array (T, B, ...) or packed, or (1, B, ...) with pooling
            As `SequenceData.batch` returns them.
        state : None
            Sequences start from the initial state.
        reduction : {"mean", "sum"}
            Whether the gradient is that of the mean loss per target, weighted if there are class weights, or of the
            sum of the losses.
        threads : int
        workspace : Workspace, optional
            Memory to reuse.
        dropout_seed : int, optional
            Seed of the dropout masks. If not given, nothing is dropped.

        Returns
        -------
        total : float
            Sum of the losses.
        count : int
            Number of targets.
        state : None
        """
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected mean or sum, got {reduction!r}")
        threads = check_threads(threads)
        wanted = self._check_targets(targets, x)
        loss = self._head.loss
        scale = 1.0 / (loss.weight(wanted) or 1.0) if reduction == "mean" else 1.0
        _, head = self._predictor.window(
            self._predictor.networks[0].stack.check_input(x.x),
            wanted,
            Workspace.given(workspace),
            lengths=x.lengths,
            target_lengths=x.target_lengths,
            scale=scale,
            threads=threads,
            dropout_seed=dropout_seed,
        )
        return kernels.sum(head.losses.reshape(-1)), loss.count(wanted), None

    # ---- evaluation and prediction --------------------------------------------------------------------------------

    def _outputs(self, data: SequenceData, batch_size: int, threads: int) -> Sequences:
        """The head's outputs for each sequence, fresh: (T_i, V), or with pooling (1, V)."""
        threads, equal = check_threads(threads), None
        if data.single or (data.lengths == data.lengths[0]).all():
            steps = 1 if data.single else int(data.lengths[0])
            equal = np.empty((len(data), steps, self._head.loss.outputs), self.dtype)
        unequal: list[Array] = [data.x[0]] * len(data)
        workspace = Workspace() if isinstance(data.x, np.ndarray) else None  # batches of one shape
        for chosen in by_length(data.lengths, check_size("batch_size", batch_size)):
            batch = data.inputs(chosen)
            found = self._predictor.outputs(batch.x, batch.lengths, threads, workspace)
            if equal is not None:
                equal[chosen] = found.swapaxes(0, 1)
            else:
                for i, of_sequence in zip(chosen.tolist(), sequences_of(found, batch.lengths), strict=True):
                    unequal[i] = of_sequence
        return unequal if equal is None else equal

    def _predict(self, X: Any, from_outputs: Callable[[Array], Array], batch_size: int, threads: int) -> Any:
        """Predictions for X. ``from_outputs`` makes them from the head's outputs (M, V), row by row.

        Returns an array (N, ...) with pooling, otherwise a list of arrays (T_i, ...), or an array (N, T, ...) if X is
        an array.
        """
        X = items("X", X, "a list of arrays, or an array (N, T, D)")
        x = self._sequences("X", X)
        no_targets = [np.zeros((1, 1), np.int32)] * len(x)
        predictions = by_rows(self._outputs(self._data(x, no_targets), batch_size, threads), from_outputs)
        if self.pooling is not None:
            return predictions[:, 0]
        if isinstance(X, np.ndarray):
            return predictions if isinstance(predictions, np.ndarray) else np.stack(predictions)
        return list(predictions)

    def _losses(self, data: SequenceData, outputs: Sequences) -> tuple[float, int]:
        """Sum of the losses, in the order of the sequences, and number of targets."""
        total, count, loss = 0.0, 0, self._head.loss
        for start, stop in blocks(outputs, BLOCK_ROWS):
            out, targets = (np.concatenate(arrays[start:stop])[:, None] for arrays in (outputs, data.targets))
            wanted = loss.check("y", targets, len(targets), 1, self.dtype)
            losses = np.empty((len(out), 1), self.dtype)
            loss.run(losses, None, out, wanted, 1.0, ONE_ROW)
            for of_sequence in split_rows(losses.reshape(-1), outputs[start:stop]):
                total += kernels.sum(of_sequence)
            count += loss.count(wanted)
        return total, count

    def evaluate(self, X: Any, y: Any = None, *, batch_size: int = 256, threads: int = 1) -> EvaluationT:
        """Evaluate the predictions for X against y.

        Parameters
        ----------
        X : sequences, see the class; or what `data` returns, without y
        y : targets, see the class
        batch_size : int
            Sequences that are computed at a time; does not change the result.
        threads : int

        Returns
        -------
        Evaluation or RegressionEvaluation

        Raises
        ------
        TypeError, ValueError
            Sequences or targets are wrong, or all targets are missing.
        """
        data = X if isinstance(X, SequenceData) else self.data(X, y)
        outputs = self._outputs(data, batch_size, threads)
        return self._targets.evaluation(*self._losses(data, outputs), outputs, data.targets)

    def _stream_parts(self) -> StreamParts:
        if self.pooling not in STREAM_POOLINGS:
            names = ", ".join(repr(name) for name in POOLINGS if name in STREAM_POOLINGS)
            raise ValueError(
                f"stream: expected pooling None, or one of {names}, got {self.pooling!r}, which needs whole sequences"
            )
        parts = self._predictor.stream_parts(type(self).__name__)
        if not self.scale:
            return parts
        pairs = {name: (scaling.mean, scaling.std) for name, scaling in self.scalings.items()}
        if self.net.embedding_size is not None:
            del pairs["x"]  # it takes ids only
        arrays = {name: (np.ascontiguousarray(mean), np.ascontiguousarray(std)) for name, (mean, std) in pairs.items()}
        return replace(parts, x=arrays.get("x"), y=arrays.get("y"))


def _waiting(cls: Callable[..., SequenceModel[Any]], options: dict[str, Any]) -> SequenceModel[Any]:
    """A model that waits for `fit`, as pickle or copy restores it."""
    return cls(**options)


def check_pooling(pooling: Any, steps: Any) -> None:
    """Raise ValueError unless pooling is None or a name in POOLINGS, and steps is given for "flatten" only."""
    if pooling is not None and (not isinstance(pooling, str) or pooling not in POOLINGS):
        raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
    if (pooling == "flatten") != (steps is not None):
        raise ValueError(f"steps: expected with pooling='flatten', and only there, got {steps!r}")


def head_shapes(config: NetworkConfig, steps: int | None, outputs: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a head's parameters. ``steps``: number of steps that it reads, for pooling "flatten"."""
    return {"W_hy": (config.output_size * (steps or 1), outputs), "b_y": (outputs,)}


def model_json_types(*parts: JsonTypes) -> dict[str, tuple[type, ...]]:
    """The types that a sequence model's options may have in a file: those of its network, and ``parts``."""
    types = network_json_types()
    for part in parts:
        types |= part
    return types
