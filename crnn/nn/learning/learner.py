# SPDX-License-Identifier: MIT
"""Learner: a model that learns from a stream while it predicts."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from crnn._attributes import fixed_attributes
from crnn._core import optim as kernels
from crnn._core.arrays import checked_ids
from crnn._core.gemm import aligned_empty
from crnn._core.threads import Exclusive
from crnn._float_mode import in_ieee_mode, public_methods_in_ieee_mode
from crnn.array_input import as_array
from crnn.checks import Array, check_threads, memory_for
from crnn.io import model_file, registry
from crnn.io.atomic_write import PathLike
from crnn.io.model_file import Header, ModelFileError
from crnn.nn.config import DROPOUTS
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.learning.files import contents, learner_from
from crnn.nn.learning.readout import Readout
from crnn.nn.learning.unrolled import Unrolled
from crnn.nn.learning.window import KeptWindow, RereadWindow, Window, set_initial
from crnn.nn.precision import check_trainable
from crnn.nn.stack import Stack
from crnn.nn.state import State, StateLike
from crnn.optim.anchored import AnchoredUpdate
from crnn.optim.named import optimizer_from
from crnn.optim.optimizers import Optimizer

__all__ = ["Learner"]


class Learner(ABC):
    """A model that learns from a stream, step by step, while it predicts; ``model.learner()`` makes one.

    Conventions
    -----------
    B is ``streams``: independent streams that are read together and share the weights. With B = 1 inputs, outputs,
    targets and losses have no axis for it, otherwise it is their first. The learner works on a copy of the model, which
    never changes: `model` is another copy, with the current weights.

    A step is a call of `predict`. Every ``every`` steps, an update follows when the last of them has its target, or is
    followed by another `predict`: the gradient of the mean loss of the targets of the last ``bptt`` steps, of all
    streams, is backpropagated through these steps with the current weights, from the state before the first of them.
    With ``every`` = ``bptt``, each step is part of one update. With fewer, losses of steps that are in several windows
    count again in each: the outputs are computed again, from the state that was computed when the first step of the
    window was read (truncated backpropagation BPTT(h; h') of Williams and Peng 1990). The state that is carried on is
    always the one that was computed when a step was read. No gradient passes a `reset`. There is no dropout.

    An update is skipped, and counted in `skipped`, if its gradient is not finite, and left out if no step of the window
    has a target. Only one thread at a time may use a learner: a concurrent call raises RuntimeError and changes
    nothing. `snapshot` is for other threads. Results are bit-identical for any number of threads and on every
    instruction set.

    Attributes
    ----------
    config : LearnerConfig
        The options, as they were given; each is also an attribute. They cannot change, but see `optimizer`.
    steps : int
        Steps so far.
    updates : int
        Updates so far, without those that were skipped.
    skipped : int
        Updates that were skipped, because the gradient was not finite.
    frozen : bool
        Whether the learner only predicts.
    """

    config: LearnerConfig
    _window: Window
    _module: Any  # a copy of the model
    _ids: bool  # whether inputs are ids

    def __init__(self, model: Any, config: LearnerConfig, *, ids: bool) -> None:
        self._exclusive = Exclusive("learner")
        self.config, self._ids, self._several = config, ids, config.streams > 1
        check_trainable(model.config()["precision"])
        self._module = model._changed(model._parameters.read_only())
        self._parameters = self._module._parameters
        net = self._network()
        if net.bidirectional:
            raise ValueError(
                "learner: expected a network that reads forward, got bidirectional=True, which needs whole sequences"
            )
        # There is no dropout: what was predicted is what is learnt.
        self._stack = Stack(replace(net._config, **dict.fromkeys(DROPOUTS, 0.0)), net._parameters)
        shape = (1, config.streams) if ids else (1, config.streams, net.input_size)
        with memory_for(streams=config.streams):
            self._readout = self._new_readout()
            self._row = aligned_empty(shape, "int32" if ids else net.dtype)  # for `_inputs`
            self._target_row = self._readout.new_targets(1, config.streams)  # for `_targets`
        optimizer = optimizer_from("optimizer", config.optimizer, config.lr)
        self._update = self._new_update(_own_optimizer(optimizer, config), None)
        window = KeptWindow if config.interval == config.bptt else RereadWindow
        with memory_for(streams=config.streams, bptt=config.bptt):
            self._window = window(
                self._stack, self._readout, self._unrolled, config.bptt, config.interval, config.streams
            )
            self._to_reset = np.zeros(config.streams, bool)  # before the next step
        self._resets = False  # whether there are some
        self._pending = False  # a prediction has no target yet
        self._frozen = self._leaving = False  # leaving: the steps in the window will not be learnt
        self._spent = False  # an update has begun, and its window has not been left
        self._steps = self._updates = 0

    def _new_update(self, optimizer: Optimizer, anchor: Array | None) -> AnchoredUpdate:
        """What updates the weights, held near ``anchor``, or near the current ones if it is not given."""
        names = ("clip_norm", "clip_value", "decay", "max_change", "threads")
        options = {name: getattr(self.config, name) for name in names}
        return AnchoredUpdate(self._parameters.flat, optimizer, anchor=anchor, **options)

    def _unrolled(self, steps: int, packed: Unrolled | None) -> Unrolled:
        B, threads = self.config.streams, self.config.threads
        return Unrolled(self._stack, self._readout, steps, B, ids=self._ids, threads=threads, packed=packed)

    # ---- what the kinds of models differ in -----------------------------------------------------------------------

    @abstractmethod
    def _network(self) -> Any:
        """The network of the copy."""

    @abstractmethod
    def _new_readout(self) -> Readout:
        """What reads the network."""

    @abstractmethod
    def _inputs(self, x: Any) -> Array:
        """A step x as the network reads it: (1, B, D), or ids (1, B), valid until the next call.

        Raises TypeError and ValueError.
        """

    @abstractmethod
    def _targets(self, y: Any) -> Array:
        """Targets of a step, (1, B, ...), valid until the next call. Raises TypeError and ValueError."""

    def _predictions(self, outputs: Array) -> Array:
        """Predictions (B, ...), fresh, from outputs (B, V)."""
        return outputs.copy()

    # ---- steps ----------------------------------------------------------------------------------------------------

    def predict(self, x: Any) -> Any:
        """Read one step of every stream, and return the prediction, as `Stream.step` of the model does.

        Parameters
        ----------
        x : array (D,), or an id
            With several streams (B, D), or ids (B,). Not referenced after the call.

        Returns
        -------
        array (V,), or (B, V)
            Fresh. For a network, h of its top layer. For a model, the output of its head: logits, or values in the
            units of the targets.

        Raises
        ------
        TypeError, ValueError
            x is wrong; then nothing is read.
        """
        with self._exclusive:
            inputs = self._inputs(x)
            self._finish_step()
            self._run(inputs)
            self._pending = True
            predictions = self._predictions(self._window.outputs(1)[0])
            return predictions if self._several else predictions[0]

    def learn(self, y: Any) -> Any:
        """Give the target of the last prediction, and learn if it is time for an update.

        Returns
        -------
        float, or array (B,), or None
            The loss of the prediction, 0 for a missing target, such as None; None for a network.

        Raises
        ------
        TypeError, ValueError
            The target is wrong, or there is no prediction without one; then nothing changes.
        """
        with self._exclusive:
            if not self._pending:
                raise ValueError("learn: expected a call of predict before each learn, got none")
            return self._learn_targets(self._targets(y))

    def _check_target(self, y: Any) -> None:
        """Raise what `learn` raises for a wrong target."""
        with self._exclusive:
            self._targets(y)

    def _check_inputs(self, x: Any) -> None:
        """Raise what `predict` raises for wrong inputs."""
        with self._exclusive:
            self._inputs(x)

    def _take_back(self) -> None:
        """Take back the last `predict`, which no `learn` has followed: as if it had not been."""
        with self._exclusive:
            assert self._pending
            self._window.take_back()
            self._steps -= 1
            self._pending = False

    def _learn_targets(self, targets: Array) -> Any:
        """Give the targets (1, B, ...) of the last step, and learn if an update is due. Returns what `learn` does."""
        window = self._window
        last = window.steps - 1
        window.set_targets(last, targets)
        found = window.losses(last, last + 1)
        losses = None if found is None else found[0].copy() if self._several else float(found[0, 0])
        self._pending = False
        if window.due:
            self._learn()
        return losses

    def _finish_step(self) -> None:
        """What has to be done before the next step is read."""
        self._pending = False
        if self._window.due or self._leaving or self._spent:
            self._learn()
        if self._resets:
            self._window.reset(self._to_reset)
            self._to_reset[:] = False
            self._resets = False

    def _run(self, inputs: Array) -> None:
        """Read steps (m, B, ...)."""
        self._window.run(inputs)
        self._steps += len(inputs)

    def _learn(self) -> None:
        """Update the weights from the window, and begin the next one."""
        window = self._window
        if self._spent:  # an interrupt may have come before it
            self._parameters.changed()
        if self._frozen or self._leaving:
            window.forget()
            self._leaving = self._spent = False
            return
        weight = 0.0 if self._spent else window.weight()
        if weight:
            self._spent = True  # the backward pass overwrites the window: an interrupted one is not learnt again
            grads = self._parameters.flat_grads
            kernels.clear(grads, self.config.threads)
            window.backward(1.0 / weight)
            try:
                self._updates += self._update._update(self._parameters.flat, grads)
            finally:  # also after an interrupt
                self._parameters.changed()
        window.begin_next()
        self._spent = False

    # ---- control --------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stop learning: from now on the learner predicts, bit-identical to a stream on the current weights.

        The steps since the last update are not learnt.
        """
        with self._exclusive:
            self._leaving |= not self._frozen
            self._frozen = True

    def unfreeze(self) -> None:
        """Learn again, from the next step on."""
        with self._exclusive:
            self._leaving |= self._frozen
            self._frozen = False

    @property
    def frozen(self) -> bool:
        """Whether the learner only predicts: see `freeze`."""
        return self._frozen

    def reset(self, streams: Any = None) -> None:
        """Reset streams to the initial state: the trainable one, or zeros. No gradient passes a reset.

        Parameters
        ----------
        streams : integers, or bool (B,), optional
            Which streams; all if not given.
        """
        with self._exclusive:
            chosen = np.zeros(self.config.streams, bool)
            chosen[_stream_index(streams, self.config.streams)] = True
            self._to_reset |= chosen
            self._resets = bool(self._to_reset.any())

    @property
    def state(self) -> StateLike:
        """The state, a copy, in the form of the network's own state for a batch of B."""
        with self._exclusive:
            return self._state().copied()

    def _state(self) -> State:
        state: State = self._stack.new_state(self.config.streams)
        state.set_arrays(self._window.state)
        if self._resets:
            set_initial(self._stack, state.arrays, self._to_reset)
        return state

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self._steps

    @property
    def updates(self) -> int:
        """Updates so far, without those that were skipped."""
        return self._updates

    @property
    def optimizer(self) -> Optimizer:
        """The learner's own optimizer. If its ``lr`` is set, the next update has that rate."""
        return self._update.optimizer

    @property
    def skipped(self) -> int:
        """Updates that were skipped, because the gradient was not finite."""
        return self._update.skipped

    @property
    def model(self) -> Any:
        """A copy of the model with the current weights, which later learning does not change."""
        with self._exclusive:
            return self._module._changed(self._parameters.read_only())

    def snapshot(self) -> Any:
        """A `Stream` on the current weights and state, which later learning does not change; of B streams a
        `StreamBatch`. For other threads.
        """
        with self._exclusive:
            return self._snapshot(self._state().value)

    def _snapshot(self, state: StateLike) -> Any:
        if self.config.streams > 1:
            batch = self._module.stream_batch(self.config.streams)
            batch.set_states(state)
            return batch
        stream = self._module.stream()
        stream.state = state
        return stream

    # ---- files ----------------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write a file, atomically, from which `load` makes a learner that continues bit-identically.

        It holds the model with the current weights, which `crnn.load` reads from it, the weights of the beginning if an
        option needs them, the state of the optimizer, the steps of the window and the states of the streams.

        Raises
        ------
        OSError
            The file cannot be written. An existing file is then unchanged, as in the other cases.
        TypeError
            The model's class is not registered, or the optimizer is not one of crnn's.
        ValueError
            A weight, a state or an array of the optimizer is not finite; the message names it.
        """
        with self._exclusive:
            registry.check_kind(type(self._module).__name__)
            model_file.write(path, *self._contents())

    @classmethod
    def load(cls, path: PathLike, *, threads: int | None = None) -> Any:
        """Read a learner that `save` wrote.

        Parameters
        ----------
        path : str or path
        threads : int, optional
            Other threads than those of the learner that was saved. The results do not depend on it.

        Returns
        -------
        Learner
            Of the class that fits the model.

        Raises
        ------
        ModelFileError
            The file is truncated, damaged, or not a learner; the message says what was found.
        OSError
            The file cannot be read.
        """
        threads = None if threads is None else check_threads(threads)
        with model_file.opened(path) as (tensors, header):  # raises at its end if the file is damaged
            return _restored(os.fsdecode(path), tensors, header, threads)

    def __reduce__(self) -> tuple[Any, ...]:
        with self._exclusive:
            return _from_bytes, (model_file.to_bytes(*self._contents()),)

    def _contents(self) -> tuple[dict[str, Array], dict[str, Any]]:
        if self._spent:  # after an interrupt; files hold windows whose steps were run with the current weights
            self._learn()
        return contents(self)

    def _stored_own(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What the class adds to a file: arrays, and an entry of the header."""
        return {}, {}

    def _restore_own(self, arrays: Mapping[str, Array], header: Any) -> None:
        """Set what `_stored_own` returned, arrays of the shapes and dtypes that it says. Raises ValueError."""
        if header != {}:
            raise ValueError(f"own: expected nothing, got {header!r:.100}")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The option ``name``."""

    def __repr__(self) -> str:
        config = self.config
        return (
            f"{type(self).__name__}({self._module!r}, bptt={config.bptt}, every={config.interval}, "
            f"streams={config.streams}, {self._update.optimizer!r}, {self.steps} steps, {self.updates} updates)"
        )


def _restored(name: str, tensors: Mapping[str, Array], header: Header, threads: int | None) -> Any:
    """The learner that a file holds. Raises ModelFileError, which calls the file ``name``."""
    try:
        return learner_from(header, tensors, threads)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{name}: {error}") from None


@in_ieee_mode
def _from_bytes(content: bytes) -> Any:
    """The learner that pickle or copy restores."""
    return _restored("pickle", *model_file.from_bytes("pickle", content, borrow=True), None)


def _own_optimizer(optimizer: Optimizer, config: LearnerConfig) -> Optimizer:
    """A copy of an optimizer that has done no updates. Raises ValueError."""
    if optimizer.updates:
        raise ValueError(
            f"optimizer: expected one that has done no updates, got {optimizer!r} after {optimizer.updates}"
        )
    if config.lr is not None and isinstance(config.optimizer, Optimizer):
        raise ValueError(f"lr: expected None with an optimizer that has its own, got {config.lr}")
    return copy.deepcopy(optimizer)


def _stream_index(streams: Any, count: int) -> Any:
    """An index of streams. Raises TypeError and ValueError."""
    if streams is None:
        return slice(None)
    array = as_array("streams", streams)
    if array.dtype == bool:
        if array.shape != (count,):
            raise ValueError(f"streams: expected bool of shape ({count},), got shape {array.shape}")
        return array.copy()
    if array.size == 0:
        return []
    if array.dtype.kind not in "iu":
        raise TypeError(f"streams: expected integers or bool, got {array.dtype}")
    return checked_ids("streams", array.reshape(-1), count)


for _each in fields(LearnerConfig):
    if _each.name not in vars(Learner):
        setattr(Learner, _each.name, property(attrgetter(f"config.{_each.name}"), doc=_each.metadata["help"]))
fixed_attributes(made_by="learner()", arguments=frozenset(each.name for each in fields(LearnerConfig)))(Learner)
public_methods_in_ieee_mode(Learner)
