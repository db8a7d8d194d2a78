# SPDX-License-Identifier: MIT
"""Protocols: what `fit` requires of a model, of its windows, evaluations and observations; and the data of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from crnn.checks import Array
from crnn.nn.module import Module
from crnn.nn.state import StateLike
from crnn.training.entries import Entry

__all__ = ["Evaluation", "Observation", "RunData", "Trainable", "View", "Windows"]


class Windows(Protocol):
    """The windows (x, targets) of an epoch, as the model's `loss_and_gradients` takes them."""

    carries_state: bool  # whether each window continues where the previous one ended

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[tuple[Any, Any]]:
        """The windows of epoch ``number``, from 1, in order; the same on every call."""
        ...


class Evaluation(Protocol):
    """The result of `Trainable.evaluate`."""

    @property
    def loss(self) -> float:
        """The loss that training minimises, per target."""
        ...

    @property
    def accuracy(self) -> float | None:
        """Fraction of the targets that are predicted correctly; None for real targets."""
        ...


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes
    ----------
    train
        What is trained on, as the model's ``windows`` takes it.
    windows : Windows
        Its windows, as what computes their gradients takes them: whole, or in shards.
    valid
        For the model's ``evaluate``, after every epoch; or None.
    test
        For the model's ``evaluate``, when training is finished; or None.
    """

    train: Any
    windows: Windows
    valid: Any = None
    test: Any = None


@dataclass(frozen=True)
class View:
    """What an observation sees in addition to the model, and how much it may cost.

    Attributes
    ----------
    train, valid
        The data of the run; ``valid`` is None if there is none.
    batch_size, bptt, threads : int
        Those of the run.
    windows : float
        Training windows whose cost an observation should not exceed; infinite if it may take the time that it needs.
    """

    train: Any
    valid: Any
    batch_size: int
    bptt: int
    threads: int
    windows: float


@dataclass(frozen=True)
class Observation:
    """Something that a model shows about itself while it is trained.

    Attributes
    ----------
    kind : str
        Of its entries in the log, see `crnn.training.entries.KINDS`, unless their fields have another one.
    when : {"often", "end", "sample"}
        Several times while training and at its end; only at its end, with the weights that are kept; or as "often" and
        also with ``sample_every``.
    fields : callable
        From the model and a `View` to the fields of each entry, except kind, epoch and update. Changes nothing:
        neither weights nor gradients, nor the state of a random generator.
    """

    kind: str
    when: Literal["often", "end", "sample"]
    fields: Callable[[Any, View], Iterator[Entry]]


@contextmanager
def changing(model: Trainable) -> Iterator[Array]:
    """The parameters (n,) of a model, for a change by crnn's own code, which keeps no reference to them."""
    try:
        yield weights_of(model)
    finally:
        note_change(model)


def note_change(model: Trainable) -> None:
    """Tell a model that crnn's own code has changed its parameters."""
    if isinstance(model, Module):
        model._parameters.changed()


def weights_of(model: Trainable) -> Array:
    """The parameters (n,) of a model, for code of crnn that reads them and keeps no reference.

    After `Module.flat_params` a model must assume that they may change at any time, and pack its weights at every call.
    """
    if isinstance(model, Module) and vars(Module)["flat_params"] is getattr(type(model), "flat_params", None):
        return model._parameters.flat
    return model.flat_params


class Trainable(Protocol):
    """A model that can be trained.

    It may also have a method ``workspace() -> object``. What that returns is passed to every call of
    `loss_and_gradients` of one training run, so that a model can reuse its arrays across windows. And it may have
    ``observed``, a sequence of `Observation`; and ``check_trainable()``, which raises ValueError if it is for inference
    only. If its `loss_and_gradients` also takes ``precision``, None or "bf16", so does its training.
    """

    loss_unit: str  # "nats", or "" for other losses
    training_runs: tuple[Mapping[str, Any], ...]  # records of runs; fit adds one

    @property
    def flat_params(self) -> Array:
        """All parameters as one array (n,), which updates change in place."""
        ...

    @property
    def flat_grads(self) -> Array:
        """The gradients (n,), in the order of `flat_params`."""
        ...

    def contents(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Tensors and header of the model's file: first the parameters, in the order of `flat_params`, then others."""
        ...

    def check_valid(self, data: Any) -> None:
        """Raise ValueError or TypeError unless ``data`` is validation data for `evaluate`."""
        ...

    def windows(self, data: Any, batch_size: int, bptt: int) -> Windows:
        """The windows of the training data. Raises ValueError or TypeError if the data is wrong."""
        ...

    def state_from(self, arrays: Sequence[Array], batch: int) -> StateLike:
        """The state of a batch from its arrays in a checkpoint, in the order of `crnn.nn.state.state_arrays`."""
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
        """Sum of the losses, number of targets, state after the last step. ACCUMULATES gradients in `flat_grads`."""
        ...

    def evaluate(self, data: Any, *, batch_size: int = ..., threads: int = ...) -> Evaluation:
        """Evaluate the model on validation data."""
        ...
