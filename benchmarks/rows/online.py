# SPDX-License-Identifier: MIT
"""online: a model predicts each sample of a stream and then learns it; samples per second.

LSTM, 10 numbers in, one value out, windows of 10 samples, Adam. "every=10": each sample is learnt once, in one update
of 10. The others update at every sample, from the last 10: crnn by the losses of all of them, PyTorch's loop and
deep-river, as it does it, by that of the last one, from the state zero.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.base.measure import OURS, Contender, Figure, Missing, race, unavailable
from benchmarks.base.row import Row, Setting

D, WINDOW, RATE = 10, 10, 1e-3
OTHER, TORCH, DEEP_RIVER = "crnn, every=10", "torch, a loop", "deep-river"


def online(H: int, setting: Setting, samples: int = 500) -> dict[str, Figure]:
    """Figures of predicting and learning ``samples`` samples by each."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((samples, D))
    y = (x[:, 0] + 0.5 * np.roll(x[:, 1], 1)).tolist()
    contenders: dict[str, Contender | Missing] = {
        OURS: crnn_learner(H, x, y, 1),
        OTHER: crnn_learner(H, x, y, WINDOW),
        TORCH: unavailable("torch") or torch_loop(H, x, y),
        DEEP_RIVER: unavailable("torch") or unavailable("deep_river") or deep_river(H, x, y),
    }
    return race(contenders, setting.effort)


def crnn_learner(H: int, x: Any, y: list[float], every: int) -> Contender:
    """A learner that updates every so many samples."""
    import crnn

    model = crnn.SequenceRegressor(D, 1, hidden_size=H, cell="lstm", pooling=None, seed=0)
    learner = model.learner(optimizer="adam", lr=RATE, bptt=WINDOW, every=every, clip_norm=None)

    def run() -> None:
        for x_t, y_t in zip(x, y, strict=True):
            learner.predict(x_t)
            learner.learn(y_t)

    return Contender(run, len(y))


def torch_model(H: int) -> Any:
    """The same model in PyTorch, of a window (T, D): the value after its last step."""
    import torch

    torch.set_num_threads(1)

    class Model(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self, n_features: int = D) -> None:
            super().__init__()
            self.lstm, self.linear = torch.nn.LSTM(n_features, H), torch.nn.Linear(H, 1)

        def forward(self, x: Any) -> Any:
            return self.linear(self.lstm(x)[0][-1:] if x.dim() == 2 else self.lstm(x)[0][-1])

    return Model()


def torch_loop(H: int, x: Any, y: list[float]) -> Contender:
    """A loop over the last samples."""
    import torch

    model = torch_model(H)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    inputs = torch.from_numpy(np.concatenate([x[-WINDOW + 1 :], x]).astype(np.float32))

    def run() -> None:
        for t, y_t in enumerate(y):
            window = inputs[t : t + WINDOW]
            with torch.inference_mode():
                model(window)
            optimizer.zero_grad()
            ((model(window) - y_t) ** 2).mean().backward()
            optimizer.step()

    return Contender(run, len(y))


def deep_river(H: int, x: Any, y: list[float]) -> Contender:
    """`RollingRegressor` of deep-river."""
    from deep_river import regression

    model = regression.RollingRegressor(
        module=torch_model(H), loss_fn="mse", optimizer_fn="adam", lr=RATE, window_size=WINDOW
    )
    samples = [{f"x{i}": value for i, value in enumerate(row)} for row in x.tolist()]

    def run() -> None:
        for x_t, y_t in zip(samples, y, strict=True):
            model.predict_one(x_t)
            model.learn_one(x_t, y_t)

    return Contender(run, len(y))


ROWS = [Row(f"online-lstm-{H}", "samples/s", partial(online, H), quick=H == 64) for H in (64, 256)]
