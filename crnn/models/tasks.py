# SPDX-License-Identifier: MIT
"""TaskModel: a network, pooling and a head on whole sequences. The tasks themselves are in classify.py and
regress.py, and what it shares with SequenceToSequence is in sequence_model.py."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from crnn._core import loss as kernels
from crnn.checks import check_dtype, check_flag, check_size, check_threads
from crnn.models.base import Workspace
from crnn.models.data import Batch, SequenceData, Standardizer, by_length, check_sequences
from crnn.models.losses import Loss
from crnn.models.pooling import POOLINGS
from crnn.models.sequence_model import Judged, SequenceModel
from crnn.nn.cells import Slice
from crnn.nn.init import initial_matrix, uniform_draws
from crnn.nn.network import RNN, Shapes, check_sizes
from crnn.stream.streaming import StreamParts

Array = NDArray[Any]
_ONE = Slice(0, 1)  # the rows of a single sequence


class NetworkOptions(TypedDict, total=False):
    """Arguments that go to `RNN` as they are."""

    bidirectional: bool
    reset_after: bool
    forget_bias: float
    embedding_size: int | None
    dropout: float
    variational_dropout: bool
    recurrent_dropout: float
    trainable_initial_state: bool
    dtype: str
    recurrent_init: str
    input_init: str


class TaskModel(SequenceModel[Judged]):
    """A network on whole sequences, with one output a step or one a sequence; see the subclasses.

    Conventions
    -----------
    X is a list of N sequences, real (T_i, D) or integer ids (T_i,), or an array of equally long ones, (N, T, D) or
    (N, T). Lengths may differ; nothing is computed for padding. Real inputs are standardised column by column with
    mean and deviation of the training data, which are kept and saved with the model, unless ``scale=False``.
    Results do not depend on ``threads``, and not on how sequences are batched.
    """

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
            "dtype": check_dtype("dtype", options.get("dtype", "float32")),
            "seed": seed,
        }
        shapes = RNN.parameter_shapes(**network) | self._head_shapes(network, self.steps, loss.outputs)
        self._build(network, shapes, loss, pooling=pooling)
        draw = uniform_draws(seed + 1)
        self.params["W_hy"][...] = initial_matrix("glorot", draw, shapes["W_hy"], "W_hy")  # type: ignore[arg-type]
        self.scalings = {"x": Standardizer(input_size)}

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

    def _shared_config(self) -> dict[str, Any]:
        return self.net.config() | {"pooling": self.pooling, "steps": self.steps, "scale": self.scale}

    def _stream_parts(self) -> StreamParts:
        if self.pooling not in (None, "last"):
            raise ValueError(
                f"stream: expected pooling None or 'last', got {self.pooling!r}, which needs whole sequences"
            )
        return StreamParts(self.net, self._head, self.scalings["x"], self.scalings.get("y"))

    def _decode(self, outputs: list[Array], stacked: bool) -> Any:
        """Predictions as users see them, from the head's outputs for each sequence."""
        return np.concatenate(outputs) if self.pooling is not None else _stacked(outputs, stacked)

    # ---- data -----------------------------------------------------------------------------------------------------

    def _sequences(self, name: str, X: Any) -> list[Array]:
        x = check_sequences(name, X, self.net.input_size, ids=self.net.embedding_size is not None)
        kinds = {array.ndim for array in x}
        if len(kinds) > 1:
            raise ValueError(f"{name}: expected either numbers or ids, got both")
        if self.steps is not None and {len(array) for array in x} != {self.steps}:
            raise ValueError(f"{name}: expected sequences of {self.steps} steps, for pooling='flatten'")
        return x

    def _data(self, x: list[Array], targets: list[Array]) -> SequenceData:
        padding = -1 if targets[0].dtype.kind in "iu" else np.nan
        return SequenceData(self._scaled(x), targets, single=self.pooling is not None, padding=padding)

    def _check_targets(self, targets: Array, batch: Batch) -> Array:
        steps = 1 if self.pooling is not None else len(batch.x)
        return self._head.loss.check("y", targets, steps, batch.x.shape[1], self.dtype)

    # ---- using ----------------------------------------------------------------------------------------------------

    def _outputs(self, data: SequenceData, batch_size: int, threads: int) -> list[Array]:
        """The head's outputs for each sequence: (T_i, V), or (1, V)."""
        threads = check_threads(threads)
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

    @abstractmethod
    def _judge(self, data: SequenceData, outputs: list[Array]) -> Judged: ...

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
