# SPDX-License-Identifier: MIT
"""Dynamic evaluation: a copy of a language model learns the text that it is evaluated on, after predicting it.

Krause, Kahembwe, Murray, Renals 2018, "Dynamic evaluation of neural sequence models" (arXiv:1709.07432).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from crnn._core import loss
from crnn._core import optim as kernels
from crnn._options import build_config, did_you_mean
from crnn.checks import Array, Ids, check_number
from crnn.models.language.rates import fresh_optimizer, with_defaults
from crnn.models.passes.predictor import Predictor, Workspace
from crnn.models.passes.window_options import WindowOptions
from crnn.nn.learning.config import LearnerConfig
from crnn.optim.anchored import AnchoredUpdate
from crnn.optim.optimizers import Optimizer
from crnn.text.errors import TextError
from crnn.text.windows import IGNORE_INDEX, contiguous_batches

__all__ = [
    "DEFAULTS",
    "DEFAULTS_OF_MANY",
    "LR_OF_STATISTICS",
    "MANY_STREAMS",
    "OPTIONS",
    "DynamicPass",
    "dynamic_pass",
]

# Those of a learner that mean something here; batch_size and threads are arguments of `evaluate`.
OPTIONS = ("optimizer", "lr", "bptt", "clip_norm", "clip_value", "decay", "max_change")
DEFAULTS: dict[str, Any] = {"optimizer": "adam(beta1=0)", "lr": 1e-3, "bptt": 96, "decay": 0.02}
LR_OF_STATISTICS = 1e-4

# From so many streams on, an update learns that many more tokens at once: shorter windows make up for it.
MANY_STREAMS = 16
DEFAULTS_OF_MANY: dict[str, Any] = DEFAULTS | {"lr": 7e-4, "bptt": 32, "decay": 0.005}

EPS = 1e-5  # of the rule with statistics
STREAMS = 32  # that statistics are collected in


class KnownSquares(Optimizer):
    """w -= lr * g / (sqrt(s) + eps), where s does not change: the mean of g^2 over other text."""

    def __init__(self, lr: float, squares: Array) -> None:
        super().__init__(lr, 0.0, ())
        self._squares = squares

    def _step(self, params: Array, grads: Array, factor: float, lr: float, threads: int) -> None:
        kernels.rmsprop(params, self._squares, None, grads, factor, lr, 1.0, EPS, 0.0, 0.0, threads)


def dynamic_pass(
    model: Any, dynamic: Any, batch_size: int, threads: int, ids_of: Callable[[Any], Ids]
) -> DynamicPass:
    """Dynamic evaluation with the options that the argument ``dynamic`` of `LanguageModel.evaluate` is.

    ``ids_of``: makes ids of the option ``statistics``. Raises TypeError and ValueError.
    """
    try:
        model.check_trainable()
    except ValueError as error:
        raise ValueError(f"dynamic: {error}") from None
    config, optimizer, text = checked_options(dynamic, batch_size, threads)
    return DynamicPass(model, config, optimizer, None if text is None else ids_of(text))


def checked_options(
    dynamic: bool | Mapping[str, Any], batch_size: int, threads: int
) -> tuple[LearnerConfig, Optimizer, Any]:
    """Options, a fresh optimizer and the text of ``statistics``, without a model. Raises TypeError and ValueError."""
    if dynamic is not True and not isinstance(dynamic, Mapping):
        raise TypeError(
            f"dynamic: expected True, False, or options such as {{'lr': 1e-3}}, got {type(dynamic).__name__}"
        )
    given: dict[str, Any] = {} if dynamic is True else {str(name): value for name, value in dynamic.items()}
    text = given.pop("statistics", None)
    known = [*OPTIONS, "statistics"]
    for name in given:
        if name not in OPTIONS:
            hint = did_you_mean(name, known)
            raise TypeError(f"dynamic: expected options among {', '.join(known)}, got {name!r:.100}{hint}")
    if text is not None and given.get("optimizer") is not None:
        raise ValueError(
            "dynamic: optimizer: expected none with statistics, which have their own rule, got "
            f"{given['optimizer']!r:.100}"
        )
    many = batch_size >= MANY_STREAMS and text is None
    options = with_defaults(given, DEFAULTS_OF_MANY if many else DEFAULTS)
    if text is not None and given.get("lr") is None:
        options["lr"] = LR_OF_STATISTICS
    try:
        config = build_config(LearnerConfig, {**options, "streams": batch_size, "threads": threads})
        optimizer = fresh_optimizer(config)
    except (TypeError, ValueError) as error:
        raise type(error)(f"dynamic: {error}") from None
    return config, optimizer, text


class DynamicPass:
    """One dynamic evaluation. Iterates over what each window was predicted like before it was learnt.

    Parameters
    ----------
    model : LanguageModel
        Is copied; never changes.
    config : LearnerConfig
    optimizer : Optimizer
        Fresh, for this pass alone.
    statistics : int32 (N,), optional
        Ids of a text to take the mean squares of gradients from; the ``optimizer`` is then not used.
    """

    def __init__(self, model: Any, config: LearnerConfig, optimizer: Optimizer, statistics: Ids | None) -> None:
        self.config = config
        self._model = model._changed(model._parameters.read_only())  # a copy
        self._parameters = self._model._parameters
        factors = None
        if statistics is not None:
            squares = self._mean_squares(statistics)
            roots = np.sqrt(squares)
            factors = roots / roots.dtype.type(loss.sum(roots) / len(roots) or 1.0)
            rate = check_number("lr", config.lr, 0.0)
            optimizer = KnownSquares(rate, squares)
        self._update = AnchoredUpdate(
            self._parameters.flat,
            optimizer,
            clip_norm=config.clip_norm,
            clip_value=config.clip_value,
            decay=config.decay,
            decay_factors=factors,
            max_change=config.max_change,
            threads=config.threads,
        )

    def windows(self, ids: Ids) -> Iterator[tuple[Array, Array, Array]]:
        """Losses, predictions and targets (T, B) of each window; valid until the next."""
        parameters, config = self._parameters, self.config
        for losses, predictions, targets in self._passes(ids, config.streams, predicts=True):
            yield losses, predictions, targets
            self._update(parameters.flat, parameters.flat_grads)
            parameters.changed()

    def _mean_squares(self, ids: Ids) -> Array:
        """The mean of the squares of the gradient over the windows of a text."""
        if len(ids) < 2:
            raise TextError(f"dynamic: statistics: expected at least 2 tokens, got {len(ids)}")
        grads = self._parameters.flat_grads
        squares, square, count = np.zeros_like(grads), np.empty_like(grads), 0
        try:
            for _ in self._passes(ids, min(STREAMS, len(ids) - 1), predicts=False):
                squares += np.multiply(grads, grads, out=square)
                count += 1
        except (TypeError, ValueError) as error:  # wrong ids
            raise type(error)(f"dynamic: statistics: {error}") from None
        squares /= squares.dtype.type(count)
        mean: Array = squares
        return mean

    def _passes(self, ids: Ids, batch_size: int, *, predicts: bool) -> Iterator[tuple[Array, Any, Array]]:
        """Losses, predictions and targets of each window, when its gradient has been computed."""
        model, threads = self._model, self.config.threads
        predictor: Predictor = model._predictor
        # The gradient of an adaptive softmax needs no outputs to predict from; smoothed losses are those of training.
        apart = predicts and (model.adaptive_softmax is not None or model._head.loss.smooths_gradients_only)
        workspace, reading, state = Workspace(), Workspace(), None
        for x, y in contiguous_batches(ids, batch_size, self.config.bptt, drop_last=False):
            window, targets = model.window(x, y)
            kernels.clear(self._parameters.flat_grads, threads)
            count = int(np.count_nonzero(targets != IGNORE_INDEX))
            if apart:
                options = WindowOptions(state=state, threads=threads, keep=False, predictions=True)
                _, read = predictor.window(window.x, targets, reading, options)
            options = WindowOptions(
                state=state, scale=1.0 / count, threads=threads, predictions=predicts and not apart
            )
            (tape,), head = predictor.window(window.x, targets, workspace, options)
            state = tape.after.value
            shown = read if apart else head
            yield shown.losses, shown.predictions, targets
