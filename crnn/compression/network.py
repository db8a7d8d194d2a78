# SPDX-License-Identifier: MIT
"""WindowLearner: a language model that learns windows which a stream of it has read.

A window of consecutive symbols is cut into rows, which are learnt side by side: the states that they begin with are
those that the stream had when it read them. So one symbol is read at a time, as a decompressor must, and batches are
learnt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.checks import Array, Ids
from crnn.compression.mixing import continued
from crnn.models.language_model import LanguageModel
from crnn.optim.optimizers import Adam, norm_of
from crnn.stream.stream import Stream, StreamWeights

__all__ = ["GIVEN", "NEW", "Learning", "WindowLearner"]


@dataclass(frozen=True)
class Learning:
    """How a network learns: B rows of T steps in an update, and the rates of the updates."""

    rows: int = 4
    steps: int = 20
    lr: float = 8e-3
    last: float = 1 / 4  # the rate of the last update, in units of lr; it falls linearly
    warm_up: int = 20  # updates until lr is reached
    clip_norm: float = 2.0
    replay: int = 1  # earlier windows that are learnt again after each
    most_kept: int = 4096  # of the earlier windows


NEW = Learning()
GIVEN = Learning(lr=1e-3, last=1.0, replay=0)  # of a model that has been trained


class WindowLearner:
    """A language model, which it changes, and a stream of its weights.

    For every window: the stream reads it while `learn` learns the one before, then `read`.

    Parameters
    ----------
    size : int
        Symbols of the content.
    model : LanguageModel
        In float32, without an adaptive softmax. No dropout masks are drawn.
    how : Learning
    """

    model: LanguageModel
    how: Learning
    stream: Stream
    before: int  # the last symbol that was read
    steps: int  # of a window

    def __init__(self, size: int, model: LanguageModel, how: Learning) -> None:
        self.model, self.how, self.before = model, how, 0
        self.steps = how.rows * how.steps
        self.stream = Stream(StreamWeights(model._stream_parts()))
        self._optimizer, self._updates = Adam(lr=how.lr), max(1, size // self.steps * (1 + how.replay))
        self._state, self._workspace = model.net.stack.new_state(how.rows), model.workspace()
        self._state_size = sum(array.shape[1] for array in self._state.arrays)
        self._window: tuple[Ids, Ids, Array] | None = None  # that is to be learnt
        self._earlier: list[tuple[Ids, Ids, Array]] = []
        self._learnt, self._draw = 0, 1  # windows; the last number drawn
        self._weights: StreamWeights | None = None  # that the stream has to continue with

    def new_states(self, steps: int) -> Array:
        """For the states of the stream before each row of a window of so many steps, (rows, S)."""
        return np.empty((-(-steps // self.how.steps), self._state_size), np.float32)

    def read(self, symbols: Ids, states: Array) -> None:
        """Note a window (T,) that the stream has read. It continues with the weights of the last update."""
        inputs = np.empty(len(symbols), np.int32)
        inputs[0], inputs[1:] = self.before, symbols[:-1]
        self.before = int(symbols[-1])
        if len(symbols) == self.steps:
            shape = self.how.rows, self.how.steps
            x, targets = (np.ascontiguousarray(each.reshape(shape).T) for each in (inputs, symbols))
            self._window = x, targets, states
        if self._weights is not None:
            self.stream, self._weights = continued(self.stream, self._weights), None

    def learn(self) -> None:
        """Learn the window that was read last, if it is a whole one, and earlier ones again, drawn at random."""
        if self._window is None:
            return
        window, self._window = self._window, None
        self._update(*window)
        if self.how.replay:
            earlier, place = self._earlier, self._learnt % self.how.most_kept
            earlier[place : place + 1] = [window]
            self._learnt += 1
            for _ in range(self.how.replay):
                self._draw = self._draw * 1103515245 + 12345 & 0x7FFFFFFF
                self._update(*earlier[(self._draw >> 8) % len(earlier)])
        self._weights = StreamWeights(self.model._stream_parts())

    def _update(self, x: Ids, targets: Ids, states: Array) -> None:
        """One update by the gradient of a window's mean loss, unless it is not finite."""
        self.model.loss_and_gradients(x, targets, self._state_of(states), workspace=self._workspace)
        parameters = self.model._parameters
        norm = norm_of(parameters.flat_grads, 1)
        if math.isfinite(norm):
            factor = min(1.0, self.how.clip_norm / norm) if norm > 0 else 1.0
            self._optimizer.update(parameters.flat, parameters.flat_grads, factor=factor, lr_scale=self._scale())
            parameters.changed()
        parameters.flat_grads.fill(0)

    def _scale(self) -> float:
        """Of the learning rate, for the next update."""
        done = self._optimizer.updates
        falling = 1 + (self.how.last - 1) * min(1.0, done / self._updates)
        return falling * min(1.0, (done + 1) / self.how.warm_up)

    def _state_of(self, states: Array) -> Any:
        """States (B, S) of a stream in the form of a batch's; valid until the next call."""
        start = 0
        for array in self._state.arrays:
            stop = start + array.shape[1]
            array[...] = states[:, start:stop]
            start = stop
        return self._state.value
