# SPDX-License-Identifier: MIT
"""TaskModel: what models of whole sequences share. The tasks themselves are in classify.py and regress.py.

    X, y --check, scale--> SequenceData --batches of like lengths--> network, pooling, head, loss <-- crnn.fit
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Generic, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from crnn import parallel
from crnn._core import loss as kernels
from crnn.cells import Slice
from crnn.evaluation import Evaluation, RegressionEvaluation
from crnn.files import PathLike
from crnn.headed import HeadedModel, Workspace
from crnn.initial import initial_matrix, uniform_draws
from crnn.log import TrainingLog
from crnn.losses import Loss
from crnn.network import RNN, Shapes, check_flag, check_size, check_sizes
from crnn.params import check_dtype
from crnn.pooling import POOLINGS
from crnn.sequences import (
    Batch,
    Scaling,
    SequenceBatches,
    SequenceData,
    by_length,
    check_sequences,
    shuffled,
)

Array = NDArray[Any]
_ONE = Slice(0, 1)  # the rows of a single sequence
Judged = TypeVar("Judged", Evaluation, RegressionEvaluation)


class NetworkOptions(TypedDict, total=False):
    """Arguments that go to `RNN` as they are."""

    bidirectional: bool
    reset_after: bool
    forget_bias: float
    embedding_size: int | None
    dropout: float
    variational: bool
    recurrent_dropout: float
    learn_state: bool
    dtype: str
    recurrent_init: str
    input_init: str


class TaskModel(HeadedModel, Generic[Judged]):
    """A network on whole sequences, with one output a step or one a sequence; see the subclasses.

    Conventions
    -----------
    X is a list of N sequences, real (T_i, D) or integer ids (T_i,), or an array of equally long ones, (N, T, D) or
    (N, T). Lengths may differ; nothing is computed for padding. Real inputs are standardised column by column with
    mean and deviation of the training data, which are kept and saved with the model, unless ``scale=False``.
    Results do not depend on ``threads``, and not on how sequences are batched.
    """

    loss_unit = "nats"

    def _make(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None,
        cell: str,
        loss: Loss,
        pooling: str | None,
        steps: int | None,
        scale: bool,
        seed: int,
        options: NetworkOptions,
    ) -> None:
        unknown = sorted(set(options) - NetworkOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"{type(self).__name__}: unexpected argument {unknown[0]!r}")
        if pooling is not None and (not isinstance(pooling, str) or pooling not in POOLINGS):
            raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
        if (pooling == "flatten") != (steps is not None):
            raise ValueError(f"steps: expected with pooling='flatten', and only there, got {steps!r}")
        self.pooling, self.steps = pooling, None if steps is None else check_size("steps", steps)
        self.scale = check_flag("scale", scale)
        self.seed = seed
        network: dict[str, Any] = {
            "input_size": check_size("input_size", input_size),
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "cell": cell,
            **options,
            "dtype": check_dtype(options.get("dtype", "float32")),
            "seed": seed,
        }
        shapes = RNN.parameter_shapes(**network) | self._head_shapes(network, self.steps, loss.outputs)
        self._build(network, shapes, loss, pooling=pooling)
        draw = uniform_draws(seed + 1)
        self.params["W_hy"][...] = initial_matrix("glorot", draw, shapes["W_hy"], "W_hy")  # type: ignore[arg-type]
        self.scalings = {"x": Scaling(input_size)}

    @staticmethod
    def _head_shapes(network: Mapping[str, Any], steps: int | None, outputs: int) -> Shapes:
        F = check_sizes(network["hidden_size"], network["num_layers"])[-1] * (steps or 1)
        return {"W_hy": (2 * F if network.get("bidirectional") else F, outputs), "b_y": (outputs,)}

    @staticmethod
    @abstractmethod
    def outputs_of(config: Mapping[str, Any]) -> int:
        """V, the outputs of a head of a model with this `config`."""

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any]) -> Shapes:
        """Names and shapes of the parameters of a model with this `config`."""
        head = cls._head_shapes(config, config.get("steps"), cls.outputs_of(config))
        return RNN.parameter_shapes(**config) | head

    @classmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """What is standardised, and how many columns it has."""
        return {"x": config["input_size"]}

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape. JSON-able."""

    def _shared_config(self) -> dict[str, Any]:
        return self.net.config() | {"pooling": self.pooling, "steps": self.steps, "scale": self.scale}

    @abstractmethod
    def _encode(self, name: str, y: Any, x: list[Array]) -> list[Array]:
        """Targets for `SequenceData`, one array a sequence. An error calls them ``name``."""

    def _check_some(self, name: str, targets: list[Array]) -> list[Array]:
        """Refuse targets of which none is known: their loss would be 0, the best there is."""
        if not any(self._head.loss.count(array) for array in targets):
            raise ValueError(f"{name}: expected at least one target, got only unknown ones")
        return targets

    def _decode(self, outputs: list[Array], stacked: bool) -> Any:
        """Predictions as users see them, from the head's outputs for each sequence."""
        return np.concatenate(outputs) if self.pooling is not None else _stacked(outputs, stacked)

    def _learn_scaling(self, x: list[Array], y: list[Array]) -> None:
        """Take mean and deviation from the training data."""
        if self.scale and x[0].ndim == 2:
            self.scalings["x"].learn("X", x)

    def astype(self, dtype: str) -> TaskModel[Judged]:
        """A copy of the model in another precision."""
        model = type(self)(**(self.config() | {"dtype": dtype, "seed": self.seed}))
        model.flat_params[...] = self.flat_params
        model.scalings = {name: copy(scaling) for name, scaling in self.scalings.items()}
        return model

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> list[Array]:
        x = check_sequences(name, X, self.net.input_size, ids=self.net.embedding_size is not None)
        kinds = {array.ndim for array in x}
        if len(kinds) > 1:
            raise ValueError(f"{name}: expected either numbers or ids, got both")
        if self.steps is not None and {len(array) for array in x} != {self.steps}:
            raise ValueError(f"{name}: expected sequences of {self.steps} steps, for pooling='flatten'")
        return x

    def _scaled(self, x: list[Array]) -> list[Array]:
        if x[0].ndim == 1:
            return x
        return [self.scalings["x"].apply(array, self.dtype) for array in x]

    def data(self, X: Any, y: Any) -> SequenceData:
        """X and y as `windows` and `evaluate` take them, scaled as the model is."""
        return self._data(*self._for_evaluation(X, y))

    def _data(self, x: list[Array], targets: list[Array]) -> SequenceData:
        padding = -1 if targets[0].dtype.kind in "iu" else np.nan
        return SequenceData(self._scaled(x), targets, single=self.pooling is not None, padding=padding)

    def window(self, x: Any, targets: Any) -> tuple[Array, Array, Array | None]:
        """A batch of X and y, as `fit` takes them, side by side."""
        data = self.data(x, targets)
        batch, wanted = data.batch(np.arange(len(data)))
        return batch.x, self._check_targets(wanted, batch), batch.lengths

    def _check_targets(self, targets: Array, batch: Batch) -> Array:
        steps = 1 if self.pooling is not None else len(batch.x)
        return self._head.loss.check("y", targets, steps, batch.x.shape[1], self.dtype)

    # ---- training -------------------------------------------------------------------------------------------------

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
            As in `crnn.fit`: optimizer, schedule, patience, checkpoint, resume, log_file and so on.

        Returns
        -------
        TrainingLog
        """
        from crnn.training import fit

        x = self._sequences("X", X)
        targets = self._encode("y", y, x)
        judged = None
        if isinstance(valid, tuple | list):
            if len(valid) != 2:
                raise ValueError(f"valid: expected a share of X, or a pair (X, y), got {len(valid)} items")
            valid_x = self._sequences("valid[0]", valid[0])
            judged = valid_x, self._encode("valid[1]", valid[1], valid_x)
        elif valid is not None:
            chosen = self._share_for_validation(valid, len(x))
            judged = [x[i] for i in chosen], [targets[i] for i in chosen]
            rest = sorted(set(range(len(x))) - set(chosen))
            x, targets = [x[i] for i in rest], [targets[i] for i in rest]
        self._check_some("y", targets)
        if judged is not None:
            self._check_some("valid", judged[1])
        weights, scalings = self.flat_params.copy(), self.scalings
        self.scalings = {name: copy(scaling) for name, scaling in scalings.items()}
        try:
            self._learn_scaling(x, targets)
            return fit(
                self,
                self._data(x, self._scaled_targets(targets)),
                valid=None if judged is None else self._data(judged[0], self._scaled_targets(judged[1])),
                epochs=epochs,
                batch_size=batch_size,
                clip_norm=clip_norm,
                threads=threads,
                **training,
            )
        except BaseException:
            if np.array_equal(weights, self.flat_params):  # not trained yet: they go with the scaling there was
                self.scalings = scalings
            raise

    def _scaled_targets(self, targets: list[Array]) -> list[Array]:
        return targets

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
        """The batches of an epoch. `crnn.fit` asks its model for them."""
        if not isinstance(data, SequenceData):
            raise TypeError(f"data: expected the model's own data, got {type(data).__name__}; call the model's fit")
        return SequenceBatches(data, batch_size, self.seed)

    def loss_and_gradients(
        self,
        x: Batch,
        targets: Array,
        state: None = None,
        *,
        reduction: str = "mean",
        threads: int = 1,
        workspace: Workspace | None = None,
        dropout_seed: int | list[int] | None = None,
    ) -> tuple[float, int, None]:
        """Forward, loss and backpropagation for a batch of whole sequences; adds to `grads`.

        Returns the sum of the losses, how many predictions they are of, and no state.
        """
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected mean or sum, got {reduction!r}")
        threads = parallel.check_threads(threads)
        space = workspace or Workspace()
        wanted = self._check_targets(targets, x)
        tape, head = self._start(
            self.net._check_input(x.x),
            None,
            space,
            lengths=x.lengths,
            threads=threads,
            dropout_seed=dropout_seed,
            keep=True,
        )
        loss = self._head.loss
        scale = 1.0 / (loss.weight(wanted) or 1.0) if reduction == "mean" else 1.0
        return self._run_with_gradients(tape, head, wanted, scale, threads), loss.count(wanted), None

    # ---- using ----------------------------------------------------------------------------------------------------

    def _outputs(self, data: SequenceData, batch_size: int, threads: int) -> list[Array]:
        """The head's outputs for each sequence: (T_i, V), or (1, V)."""
        threads = parallel.check_threads(threads)
        outputs: list[Array] = [data.x[0]] * len(data)
        for chosen, batch, _ in by_length(data, check_size("batch_size", batch_size)):
            tape, head = self._start(batch.x, None, Workspace(), lengths=batch.lengths, threads=threads)
            self._run(tape, head, None)
            for b, i in enumerate(chosen):
                outputs[i] = head.outputs[: 1 if data.single else data.lengths[i], b].copy()
        return outputs

    def _predict(self, X: Any, batch_size: int, threads: int) -> list[Array]:
        x = self._sequences("X", X)
        nothing = [np.zeros((1, 1), np.int32)] * len(x)
        return self._outputs(self._data(x, nothing), batch_size, threads)

    def _losses(self, data: SequenceData, outputs: list[Array]) -> tuple[float, int]:
        """Sum of the losses and number of predictions, sequence by sequence."""
        total, count, loss = 0.0, 0, self._head.loss
        for out, targets in zip(outputs, data.targets, strict=True):
            wanted = loss.check("y", targets[:, None], len(targets), 1, self.dtype)
            losses = np.empty((len(out), 1), self.dtype)
            loss.run(losses, None, out[:, None], wanted, 1.0, _ONE)
            total += kernels.sum(losses.reshape(-1))
            count += loss.count(wanted)
        return total, count

    def evaluate(self, X: Any, y: Any = None, *, batch_size: int = 256, threads: int = 1) -> Judged:
        """How well the model predicts y from X; X may also be the model's own `data`."""
        data = X if isinstance(X, SequenceData) else self._data(*self._for_evaluation(X, y))
        return self._judge(data, self._outputs(data, batch_size, threads))

    def _for_evaluation(self, X: Any, y: Any) -> tuple[list[Array], list[Array]]:
        x = self._sequences("X", X)
        return x, self._scaled_targets(self._check_some("y", self._encode("y", y, x)))

    @abstractmethod
    def _judge(self, data: SequenceData, outputs: list[Array]) -> Judged: ...

    def save(self, path: PathLike) -> None:
        """Write the model to a safetensors file, whole or not at all. `crnn.load` reads it."""
        from crnn.serialize import save

        save(self, path)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.net.describe()}, outputs={self._head.loss.outputs}, "
            f"pooling={self.pooling!r}, {self.flat_params.size:,} parameters, dtype={self.dtype!r})"
        )


def _stacked(arrays: list[Array], stacked: bool) -> Any:
    """One array (N, T, ...) for those who gave one, a list otherwise."""
    return np.stack(arrays) if stacked else arrays


def is_stacked(X: Any) -> bool:
    return isinstance(X, np.ndarray)
