# SPDX-License-Identifier: MIT
"""SequenceModel: a network, a head with its loss, and targets, trained on whole sequences.

    X, y --check, standardise--> SequenceData --batches of like lengths--> the model's pass and loss <-- crnn.fit
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic

import numpy as np
from numpy.typing import ArrayLike

from crnn._core import loss as kernels
from crnn._options import takes_options
from crnn.checks import Array, check_flag, check_size, check_threads
from crnn.models.data import Batch, SequenceBatches, SequenceData, by_length, check_sequences, shuffled
from crnn.models.head import Head, HeadTape
from crnn.models.losses import Loss
from crnn.models.pooling import POOLINGS
from crnn.models.predictor import Predictor, Seed, Workspace
from crnn.models.standardizer import Standardizer
from crnn.models.targets import EvaluationT, Targets
from crnn.nn.cells import Slice
from crnn.nn.config import NetworkConfig, config_from, network_json_types
from crnn.nn.init import UNINITIALISED, initial_matrix, uniform_draws
from crnn.nn.module import Module
from crnn.nn.network import RNN
from crnn.nn.params import Parameters, Shapes
from crnn.nn.state import StateLike, state_from
from crnn.nn.tape import Tape
from crnn.stream.parts import StreamParts
from crnn.text.windows import IGNORE_INDEX
from crnn.training.config import TrainingConfig
from crnn.training.fit import fit
from crnn.training.log import TrainingLog

ONE_ROW = Slice(0, 1)  # the batch of a single sequence
SCALE_TYPES = {"scale": (bool,)}  # options that models add to their network's, with the types a file may hold
POOLING_TYPES = {"pooling": (str, type(None)), "steps": (int, type(None))}


class SequenceModel(Module, Generic[EvaluationT]):
    """What the models of whole sequences share; see `SequenceClassifier` and the others.

    Conventions
    -----------
    X is a list of N sequences, real (T_i, D) or integer ids (T_i,), or an array of equally long ones, (N, T, D) or
    (N, T). Lengths may differ; nothing is computed for padding. Real inputs are standardised column by column with the
    mean and standard deviation of the training data, which are kept and saved with the model, unless ``scale=False``.
    Results do not depend on ``threads``, nor on how sequences are batched.
    """

    loss_unit = "nats"
    net: RNN  # whose outputs the head reads
    scalings: dict[str, Standardizer]  # of real inputs "x", and of real targets "y"
    seed: int
    scale: bool  # whether `scalings` are learnt
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
        """One network with its head. SequenceToSequence has two, and composes itself."""
        check_pooling(pooling, steps)
        self.pooling, self.steps = pooling, None if steps is None else check_size("steps", steps)
        self.scale, self.seed = check_flag("scale", scale), 0 if seed is UNINITIALISED else seed
        self._targets, self.scalings = targets, scalings
        network = config.shapes()
        self._parameters = Parameters(dict(network) | head_shapes(config, self.steps, loss.outputs), config.dtype)
        self.net = RNN.from_parameters(self._parameters.part("", network), config, seed)
        self._head = Head(self.params, self.grads, loss, pooling=pooling, directions=config.directions)
        self._predictor = Predictor(self.net, self._head)
        if seed is not UNINITIALISED:
            weights = self.params["W_hy"]
            weights[...] = initial_matrix("glorot", uniform_draws(seed + 1), weights.shape, "W_hy")

    @staticmethod
    @abstractmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the outputs of the head of a model with this `config`."""

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        """Names and shapes of the parameters of a model with this `config`."""
        network = config_from(config)
        return dict(network.shapes()) | head_shapes(network, config.get("steps"), cls.outputs_of(config))

    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape, without vocabularies. JSON-able."""
        of_net = self.net.config()
        return of_net | {name: getattr(self, name) for name in self.config_types if name not in of_net}

    @property
    def dtype(self) -> str:
        """float32 or float64."""
        return self.net.dtype

    @property
    def networks(self) -> list[RNN]:
        """All networks, the one that reads x first."""
        return [self.net]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.net.describe()}, outputs={self._head.loss.outputs}, "
            f"pooling={self.pooling!r}, {self.flat_params.size:,} parameters, dtype={self.dtype!r})"
        )

    # ---- standardisation ------------------------------------------------------------------------------------------

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """What is standardised, and how many columns it has."""
        return {"x": config["input_size"]}

    @classmethod
    def _statistics_of(cls, config: Mapping[str, Any]) -> dict[str, int]:
        return {f"scaling.{name}.{part}": n for name, n in cls.scaled_sizes(config).items() for part in ("mean", "std")}

    @property
    def _statistics(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name, scaling in self.scalings.items():
            found |= {f"scaling.{name}.mean": scaling.mean, f"scaling.{name}.std": scaling.std}
        return found

    def _set_statistics(self, values: Mapping[str, Array]) -> None:
        for name, scaling in self.scalings.items():
            mean, std = values[f"scaling.{name}.mean"], values[f"scaling.{name}.std"]
            scaling.set_statistics(f"scaling.{name}.std", mean, std)

    def _learn_scaling(self, x: list[Array], y: list[Array]) -> None:
        """Take mean and standard deviation from the training data."""
        if self.scale and x[0].ndim == 2:
            self.scalings["x"].learn("X", x)
        if self.scale and "y" in self.scalings:
            self.scalings["y"].learn("y", y)

    def _scaled(self, x: list[Array]) -> list[Array]:
        if x[0].ndim == 1:
            return x
        return [self.scalings["x"].apply(array, self.dtype) for array in x]

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> list[Array]:
        """The inputs X, which errors call ``name``, one array a sequence."""
        x = check_sequences(name, X, self.net.input_size, ids=self.net.embedding_size is not None)
        if len({array.ndim for array in x}) > 1:
            raise ValueError(f"{name}: expected either numbers or ids, got both")
        if self.steps is not None and {len(array) for array in x} != {self.steps}:
            raise ValueError(f"{name}: expected sequences of {self.steps} steps, for pooling='flatten'")
        return x

    def _encode(self, name: str, y: Any, x: list[Array]) -> list[Array]:
        """Targets for `SequenceData`, one array a sequence. An error calls them ``name``."""
        return self._targets.encode(name, y, x, single=self.pooling is not None)

    def _known(self, name: str, targets: list[Array]) -> list[Array]:
        """Refuse targets of which none is known: their loss would be 0, the best there is."""
        if not any(self._head.loss.count(array) for array in targets):
            raise ValueError(f"{name}: expected at least one target, got only unknown ones")
        return targets

    def _data(self, x: list[Array], targets: list[Array]) -> SequenceData:
        """What `_sequences` and `_encode` have made, with the inputs standardised."""
        padding = IGNORE_INDEX if targets[0].dtype.kind in "iu" else np.nan
        return SequenceData(self._scaled(x), targets, single=self.pooling is not None, padding=padding)

    def data(self, X: Any, y: Any) -> SequenceData:
        """X and y as `windows` and `evaluate` take them, standardised as the model's training data were."""
        x = self._sequences("X", X)
        return self._data(x, self._targets.standardised(self._known("y", self._encode("y", y, x))))

    def _check_targets(self, targets: ArrayLike, batch: Batch) -> Array:
        """A batch's targets as the kernels take them."""
        steps = 1 if self.pooling is not None else len(batch.x)
        return self._head.loss.check("y", targets, steps, batch.x.shape[1], self.dtype)

    def window(self, x: Any, targets: Any) -> tuple[Array, Array, Array | None]:
        """A batch of X and y, as `fit` takes them: checked, time-major, and the lengths where they differ."""
        data = self.data(x, targets)
        batch, wanted = data.batch(np.arange(len(data)))
        return batch.x, self._check_targets(wanted, batch), batch.lengths

    def _target_lengths(self, targets: Array, lengths: ArrayLike | None) -> ArrayLike | None:
        """How many targets each sequence of a `window` has, if they differ."""
        return lengths

    # ---- training -------------------------------------------------------------------------------------------------

    @takes_options(TrainingConfig)
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        valid: float | tuple[Any, Any] | None = None,
        epochs: int = 20,
        batch_size: int = 32,
        clip_norm: float | None = 1.0,
        threads: int = 1,
        **training: Any,
    ) -> TrainingLog:
        """Train on sequences and their targets.

        Parameters
        ----------
        X : sequences, see the class
        y : targets, see the class
        valid : float or (X, y), optional
            A share of the sequences, chosen by the model's seed, or others, to evaluate on after every epoch; the
            weights of the best epoch are kept.
        epochs, batch_size, clip_norm, threads, **training
            As in `crnn.fit`, which lists them all: optimizer, schedule, patience, checkpoint and so on. ``bptt`` and
            ``carry`` are ignored.

        Returns
        -------
        TrainingLog
        """
        x = self._sequences("X", X)
        targets = self._encode("y", y, x)
        held_out = None
        if isinstance(valid, tuple | list):
            if len(valid) != 2:
                raise ValueError(f"valid: expected a share of X, or a pair (X, y), got {len(valid)} items")
            valid_x = self._sequences("valid[0]", valid[0])
            held_out = valid_x, self._encode("valid[1]", valid[1], valid_x)
        elif valid is not None:
            chosen = self._share_for_validation(valid, len(x))
            held_out = [x[i] for i in chosen], [targets[i] for i in chosen]
            rest = sorted(set(range(len(x))) - set(chosen))
            x, targets = [x[i] for i in rest], [targets[i] for i in rest]
        self._known("y", targets)
        if held_out is not None:
            self._known("valid", held_out[1])
        weights, statistics = self.flat_params.copy(), self._statistics
        try:
            self._learn_scaling(x, targets)
            standardised = self._targets.standardised
            return fit(
                self,
                self._data(x, standardised(targets)),
                valid=None if held_out is None else self._data(held_out[0], standardised(held_out[1])),
                epochs=epochs,
                batch_size=batch_size,
                clip_norm=clip_norm,
                threads=threads,
                **training,
            )
        except BaseException:
            if np.array_equal(weights, self.flat_params):  # not trained yet: they belong to the statistics of before
                self._set_statistics(statistics)
            raise

    def _share_for_validation(self, share: float, n: int) -> list[int]:
        if not isinstance(share, float) or not 0 < share < 1:
            raise ValueError(f"valid: expected a share between 0 and 1, or a pair (X, y), got {share!r}")
        count = round(share * n)
        if not 0 < count < n:
            raise ValueError(f"valid: expected a share of {n} sequences that leaves some on both sides, got {share!r}")
        chosen: list[int] = shuffled(np.random.PCG64([self.seed, 0]), n)[:count].tolist()
        return sorted(chosen)

    def check_valid(self, data: Any) -> None:
        """Raise TypeError unless `evaluate` can take this validation data."""
        if not isinstance(data, SequenceData):
            raise TypeError(f"valid: expected the model's own data, got {type(data).__name__}; call the model's fit")

    def windows(self, data: Any, batch_size: int, bptt: int) -> SequenceBatches:
        """The batches of an epoch, for `crnn.fit`."""
        if not isinstance(data, SequenceData):
            raise TypeError(f"data: expected the model's own data, got {type(data).__name__}; call the model's fit")
        return SequenceBatches(data, batch_size, self.seed)

    def workspace(self) -> Workspace:
        """Memory that `loss_and_gradients` reuses from batch to batch."""
        return Workspace()

    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state that `crnn.nn.state.state_arrays` took apart. ValueError if it is not one of this model's."""
        like = self.net.stack.new_state(batch)
        like.assign("state", state_from(arrays, like))
        return like.value

    def loss_and_gradients(
        self,
        x: Batch,
        targets: Array,
        state: None = None,
        *,
        reduction: str = "mean",
        threads: int = 1,
        workspace: Any = None,
        dropout_seed: Seed = None,
    ) -> tuple[float, int, None]:
        """Forward, loss and backpropagation for a batch of whole sequences; adds to `grads`.

        Returns the sum of the losses, how many predictions they are of, and no state.
        """
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected mean or sum, got {reduction!r}")
        threads = check_threads(threads)
        wanted = self._check_targets(targets, x)
        loss = self._head.loss
        scale = 1.0 / (loss.weight(wanted) or 1.0) if reduction == "mean" else 1.0
        _, head = self._pass(
            self.networks[0].stack.check_input(x.x),
            wanted,
            workspace or Workspace(),
            lengths=x.lengths,
            scale=scale,
            threads=threads,
            dropout_seed=dropout_seed,
        )
        return kernels.sum(head.losses.reshape(-1)), loss.count(wanted), None

    def _pass(self, x: Array, targets: Array, space: Workspace, **options: Any) -> tuple[list[Tape], HeadTape]:
        """A window, as `Predictor.window`. Returns the tapes of `networks`, and the head's."""
        tape, head = self._predictor.window(x, targets, space, **options)
        return [tape], head

    # ---- using ----------------------------------------------------------------------------------------------------

    def _outputs(self, data: SequenceData, batch_size: int, threads: int) -> list[Array]:
        """The head's outputs for each sequence: (T_i, V), or (1, V)."""
        threads = check_threads(threads)
        outputs: list[Array] = [data.x[0]] * len(data)
        for chosen, batch, _ in by_length(data, check_size("batch_size", batch_size)):
            tape, head = self._predictor.start(batch.x, None, Workspace(), lengths=batch.lengths, threads=threads)
            self._predictor.forward(tape, head, None)
            for b, i in enumerate(chosen):
                outputs[i] = head.outputs[: 1 if data.single else data.lengths[i], b].copy()
        return outputs

    def _outputs_for(self, X: Any, batch_size: int, threads: int) -> list[Array]:
        """`_outputs` of X alone."""
        x = self._sequences("X", X)
        no_targets = [np.zeros((1, 1), np.int32)] * len(x)
        return self._outputs(self._data(x, no_targets), batch_size, threads)

    def _arranged(self, predictions: list[Array], X: Any) -> Any:
        """One array (N, ...) of one prediction a sequence; of one a step a list, or an array where X is one."""
        if self.pooling is not None:
            return np.concatenate(predictions)
        return np.stack(predictions) if isinstance(X, np.ndarray) else predictions

    def _losses(self, data: SequenceData, outputs: list[Array]) -> tuple[float, int]:
        """Sum of the losses and number of predictions, sequence by sequence."""
        total, count, loss = 0.0, 0, self._head.loss
        for out, targets in zip(outputs, data.targets, strict=True):
            wanted = loss.check("y", targets[:, None], len(targets), 1, self.dtype)
            losses = np.empty((len(out), 1), self.dtype)
            loss.run(losses, None, out[:, None], wanted, 1.0, ONE_ROW)
            total += kernels.sum(losses.reshape(-1))
            count += loss.count(wanted)
        return total, count

    def evaluate(self, X: Any, y: Any = None, *, batch_size: int = 256, threads: int = 1) -> EvaluationT:
        """How well the model predicts y from X; X may also be the model's own `data`."""
        data = X if isinstance(X, SequenceData) else self.data(X, y)
        outputs = self._outputs(data, batch_size, threads)
        return self._targets.evaluation(*self._losses(data, outputs), outputs, data.targets)

    def _stream_parts(self) -> StreamParts:
        if self.pooling not in (None, "last"):
            raise ValueError(
                f"stream: expected pooling None or 'last', got {self.pooling!r}, which needs whole sequences"
            )
        parts = self._predictor.stream_parts(type(self).__name__)
        used = {
            name: (np.ascontiguousarray(s.mean), np.ascontiguousarray(s.std))
            for name, s in self.scalings.items()
            if not s.is_identity
        }
        return replace(parts, x=used.get("x"), y=used.get("y"))


def check_pooling(pooling: Any, steps: Any) -> None:
    """``pooling`` is None or a name in POOLINGS; ``steps`` goes with "flatten" alone."""
    if pooling is not None and (not isinstance(pooling, str) or pooling not in POOLINGS):
        raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
    if (pooling == "flatten") != (steps is not None):
        raise ValueError(f"steps: expected with pooling='flatten', and only there, got {steps!r}")


def head_shapes(config: NetworkConfig, steps: int | None, outputs: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a head's parameters; ``steps``: whose outputs it reads side by side."""
    return {"W_hy": (config.output_size * (steps or 1), outputs), "b_y": (outputs,)}


def model_json_types(*parts: Mapping[str, tuple[type, ...]]) -> dict[str, tuple[type, ...]]:
    """The types of a sequence model's options in a file: its network's, and those of ``parts``."""
    types = network_json_types()
    for part in parts:
        types |= part
    return types
