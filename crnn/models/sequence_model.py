# SPDX-License-Identifier: MIT
"""SequenceModel: what models of whole sequences and their targets share.

X, y --check, scale--> SequenceData --batches of like lengths--> the model's pass and loss <-- crnn.fit
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from crnn._core import loss as kernels
from crnn._options import takes_options
from crnn.checks import check_threads
from crnn.io.atomic_write import PathLike
from crnn.models.base import HeadedModel, Workspace
from crnn.models.data import Batch, SequenceBatches, SequenceData, Standardizer, shuffled
from crnn.models.metrics import Evaluation, RegressionEvaluation
from crnn.nn.network import Shapes
from crnn.training.config import TrainingConfig
from crnn.training.fit import fit
from crnn.training.log import TrainingLog

Array = NDArray[Any]
Judged = TypeVar("Judged", bound=Evaluation | RegressionEvaluation)


class SequenceModel(HeadedModel, Generic[Judged]):
    """A model that is trained on sequences and their targets. A subclass says what these are, and what is predicted."""

    loss_unit = "nats"
    scale: bool  # whether `scalings` are learnt
    scalings: dict[str, Standardizer]  # of real inputs "x", and of what else there is
    seed: int

    @classmethod
    @abstractmethod
    def shapes_of(cls, config: Mapping[str, Any]) -> Shapes:
        """Names and shapes of the parameters of a model with this `config`."""

    @classmethod
    @abstractmethod
    def scaled_sizes(cls, config: Mapping[str, Any]) -> dict[str, int]:
        """What is standardised, and how many columns it has."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that make a model of this shape. JSON-able."""

    @abstractmethod
    def _sequences(self, name: str, X: Any) -> list[Array]:
        """The inputs X, which errors call ``name``, one array a sequence."""

    @abstractmethod
    def _encode(self, name: str, y: Any, x: list[Array]) -> list[Array]:
        """Targets for `SequenceData`, one array a sequence. An error calls them ``name``."""

    @abstractmethod
    def _data(self, x: list[Array], targets: list[Array]) -> SequenceData:
        """What `_sequences` and `_encode` have made, scaled."""

    @abstractmethod
    def _check_targets(self, targets: Array, batch: Batch) -> Array:
        """A batch's targets as the kernels take them."""

    @abstractmethod
    def evaluate(self, X: Any, y: Any = None, *, batch_size: int = 256, threads: int = 1) -> Judged:
        """How well the model predicts y from X; X may also be the model's own `data`."""

    def _check_some(self, name: str, targets: list[Array]) -> list[Array]:
        """Refuse targets of which none is known: their loss would be 0, the best there is."""
        if not any(self._head.loss.count(array) for array in targets):
            raise ValueError(f"{name}: expected at least one target, got only unknown ones")
        return targets

    def _learn_scaling(self, x: list[Array], y: list[Array]) -> None:
        """Take mean and deviation from the training data."""
        if self.scale and x[0].ndim == 2:
            self.scalings["x"].learn("X", x)

    def astype(self, dtype: str) -> SequenceModel[Judged]:
        """A copy of the model in another precision."""
        model = type(self)(**self._vocabs, **(self.config() | {"dtype": dtype, "seed": self.seed}))
        model.flat_params[...] = self.flat_params
        model.scalings = {name: copy(scaling) for name, scaling in self.scalings.items()}
        return model

    # ---- data -----------------------------------------------------------------------------------------------------

    def _scaled(self, x: list[Array]) -> list[Array]:
        if x[0].ndim == 1:
            return x
        return [self.scalings["x"].apply(array, self.dtype) for array in x]

    def data(self, X: Any, y: Any) -> SequenceData:
        """X and y as `windows` and `evaluate` take them, scaled as the model is."""
        return self._data(*self._for_evaluation(X, y))

    def window(self, x: Any, targets: Any) -> tuple[Array, Array, Array | None]:
        """A batch of X and y, as `fit` takes them, side by side."""
        data = self.data(x, targets)
        batch, wanted = data.batch(np.arange(len(data)))
        return batch.x, self._check_targets(wanted, batch), batch.lengths

    def _for_evaluation(self, X: Any, y: Any) -> tuple[list[Array], list[Array]]:
        x = self._sequences("X", X)
        return x, self._scaled_targets(self._check_some("y", self._encode("y", y, x)))

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
        threads = check_threads(threads)
        wanted = self._check_targets(targets, x)
        loss = self._head.loss
        scale = 1.0 / (loss.weight(wanted) or 1.0) if reduction == "mean" else 1.0
        _, head = self._pass(
            self._networks[0]._check_input(x.x),
            wanted,
            workspace or Workspace(),
            lengths=x.lengths,
            scale=scale,
            threads=threads,
            dropout_seed=dropout_seed,
        )
        return kernels.sum(head.losses.reshape(-1)), loss.count(wanted), None

    def save(self, path: PathLike) -> None:
        """Write the model to a safetensors file, whole or not at all. `crnn.load` reads it."""
        from crnn.io.model_file import save

        save(self, path)
