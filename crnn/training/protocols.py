# SPDX-License-Identifier: MIT
"""Protocols: what `fit` needs of a model, of its windows and of its evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from crnn.checks import Array
from crnn.nn.state import StateLike

__all__ = ["Evaluation", "Trainable", "Windows"]


class Windows(Protocol):
    """The windows (x, targets) of an epoch, as the model's `loss_and_gradients` takes them."""

    carries_state: bool  # whether a window continues where the one before it ended

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[tuple[Any, Any]]:
        """The windows of epoch 1, 2, ... in order, the same each time."""
        ...


class Evaluation(Protocol):
    """How well a model did on validation data."""

    @property
    def loss(self) -> float:
        """What training lowers."""
        ...

    @property
    def accuracy(self) -> float | None: ...


class Trainable(Protocol):
    """A model that can be trained.

    It may also have a method ``workspace() -> object``. What that returns is passed to every `loss_and_gradients` of
    one training, so that a model can keep its arrays from window to window.
    """

    loss_unit: str  # "nats", or "" for others

    @property
    def flat_params(self) -> Array: ...
    @property
    def flat_grads(self) -> Array: ...
    def check_valid(self, data: Any) -> None:
        """Raise ValueError or TypeError unless `evaluate` can take this validation data."""
        ...

    def windows(self, data: Any, batch_size: int, bptt: int) -> Windows: ...
    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state whose arrays, as `crnn.nn.state.state_arrays` lists them, a checkpoint holds."""
        ...

    def loss_and_gradients(
        self,
        x: Any,
        targets: Any,
        state: StateLike | None = ...,
        *,
        reduction: str = ...,
        threads: int = ...,
        workspace: Any = ...,
        dropout_seed: int | list[int] | None = ...,
    ) -> tuple[float, int, StateLike]:
        """Sum of the losses, number of targets, and the state after the last step; adds to `flat_grads`."""
        ...

    def evaluate(self, data: Any, *, batch_size: int = ..., threads: int = ...) -> Evaluation: ...
