# SPDX-License-Identifier: MIT
"""tutorial: the NumPy character RNN of the tutorials and `crnn.fit`, with the same updates; characters/s.

H 100, T 25, batch 1, the sum of the losses, gradients clipped to +-5, Adagrad
with rate 0.1. The NumPy program is written from the equations in the tutorials' way: column vectors, a dictionary per
time step, small normal initial weights, float64. It uses NumPy's BLAS (the note says which) on one thread: its matrices
are too small for more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, race
from benchmarks.base.row import Row, Setting
from benchmarks.base.texts import text
from benchmarks.contenders.blas import blas_kernel

Array = NDArray[Any]

HIDDEN, STEPS, RATE, CLIP = 100, 25, 0.1, 5.0
OUR_UPDATES = 1000  # in one call of fit, so that its start-up is a small part
CHECKED_UPDATES = 20


def measure(setting: Setting) -> dict[str, Figure]:
    """Figures in characters/s of crnn and of the program of the tutorials."""
    import crnn

    corpus = crnn.TextCorpus.from_text(text()[0], unit="char", valid=0.0, test=0.0)
    ids = corpus.train[: STEPS * OUR_UPDATES + 1]

    def model(dtype: str = "float32") -> crnn.LanguageModel:
        fresh = crnn.LanguageModel(corpus.vocab, "tanh", hidden_size=HIDDEN, dtype=dtype)
        rng = np.random.default_rng(0)
        for name, values in fresh.params.items():
            values[...] = 0.0 if "b_" in name else 0.01 * rng.standard_normal(values.shape)
        return fresh

    def fit(fitted: crnn.LanguageModel, updates: int, log_every: int = 100) -> crnn.TrainingLog:
        return crnn.fit(
            fitted,
            ids,
            epochs=1,
            batch_size=1,
            bptt=STEPS,
            reduction="sum",
            clip_value=CLIP,
            clip_norm=None,
            schedule=None,
            optimizer=crnn.optim.Adagrad(lr=RATE, eps=0, initial=1e-8),
            max_updates=updates,
            log_every=log_every,
            progress=False,
        )

    # In float64, as the program: this training is chaotic, and a difference grows tenfold every few updates.
    losses = fit(model("float64"), CHECKED_UPDATES, log_every=1).column("train_loss")
    step = numpy_program(model("float64").params, ids)
    require_close("the NumPy program", [step() for _ in range(CHECKED_UPDATES)], losses)
    fitted = model()
    return race(
        {
            OURS: Contender(lambda: fit(fitted, OUR_UPDATES), STEPS * OUR_UPDATES, "crnn.fit"),
            "numpy tutorial": Contender(step, STEPS, f"float64, {blas_kernel()}"),
        },
        setting.effort,
    )


def numpy_program(params: Any, ids: Array) -> Callable[[], float]:
    """Each call is one update on the next STEPS characters; returns their mean loss in nats before it."""
    weights = {name: np.array(value, np.float64) for name, value in params.items()}
    Wxh = weights["layer0.W_xh"].T.copy()  # the tutorials multiply columns from the left
    Whh = weights["layer0.W_hh"].T.copy()
    Why = weights["W_hy"].T.copy()
    bh = weights["layer0.b_h"].reshape(-1, 1)
    by = weights["b_y"].reshape(-1, 1)
    memory = [np.full_like(w, 1e-8) for w in (Wxh, Whh, Why, bh, by)]
    vocab_size = len(by)
    hprev = np.zeros((HIDDEN, 1))
    position = 0

    def loss_and_gradients(inputs: list[int], targets: list[int], hprev: Array) -> tuple[float, list[Array], Array]:
        xs, hs, ps = {}, {-1: hprev}, {}
        loss = 0.0
        for t in range(len(inputs)):
            xs[t] = np.zeros((vocab_size, 1))
            xs[t][inputs[t]] = 1
            hs[t] = np.tanh(Wxh @ xs[t] + Whh @ hs[t - 1] + bh)
            y = Why @ hs[t] + by
            ps[t] = np.exp(y) / np.sum(np.exp(y))
            loss += -np.log(ps[t][targets[t], 0])
        dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
        dbh, dby = np.zeros_like(bh), np.zeros_like(by)
        dhnext = np.zeros_like(hprev)
        for t in reversed(range(len(inputs))):
            dy = ps[t].copy()
            dy[targets[t]] -= 1
            dWhy += dy @ hs[t].T
            dby += dy
            dh = Why.T @ dy + dhnext
            da = (1 - hs[t] * hs[t]) * dh
            dbh += da
            dWxh += da @ xs[t].T
            dWhh += da @ hs[t - 1].T
            dhnext = Whh.T @ da
        gradients = [dWxh, dWhh, dWhy, dbh, dby]
        for gradient in gradients:
            np.clip(gradient, -CLIP, CLIP, out=gradient)
        return loss, gradients, hs[len(inputs) - 1]

    def step() -> float:
        nonlocal hprev, position
        if position + STEPS + 1 > len(ids):
            hprev, position = np.zeros((HIDDEN, 1)), 0
        inputs = [int(i) for i in ids[position : position + STEPS]]
        targets = [int(i) for i in ids[position + 1 : position + STEPS + 1]]
        loss, gradients, hprev = loss_and_gradients(inputs, targets, hprev)
        for w, dw, square_sum in zip((Wxh, Whh, Why, bh, by), gradients, memory, strict=True):
            square_sum += dw * dw
            w -= RATE * dw / np.sqrt(square_sum)
        position += STEPS
        return float(loss) / STEPS

    return step


ROWS = [Row("tutorial", "characters/s", measure, goals={"numpy tutorial": 30.0}, quick=True)]
