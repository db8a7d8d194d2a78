# SPDX-License-Identifier: MIT
"""sample-V, generate: tokens drawn from logits, and characters that a small model generates; per second.

sample: temperature 0.8, top-k 40, top-p 0.95 of V logits. generate: tanh 128, V 65, temperature 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, race, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.training import crnn_model
from benchmarks.contenders.training_task import TrainingTask

Array = NDArray[Any]

TEMPERATURE, TOP_K, TOP_P = 0.8, 40, 0.95
SIZES = (65, 10_000)
DRAWS = 100  # in one call of a contender
LENGTH = 5000  # characters of a generated text
STEPS_ALONE = "crnn, steps alone"


def sample(V: int, setting: Setting) -> dict[str, Figure]:
    """Figures in draws/s of crnn, of NumPy and of PyTorch."""
    import crnn

    logits = np.random.default_rng(1).normal(0, 3, V).astype(np.float32)
    sampler = crnn.sampling.Sampler(TEMPERATURE, TOP_K, TOP_P, seed=1)
    expected = sampler.probabilities(logits)
    numbers = np.random.default_rng(2)

    def numpy_draw() -> int:
        cumulative = np.cumsum(numpy_probabilities(logits))
        return int(cumulative.searchsorted(numbers.random() * cumulative[-1], side="right"))

    require_close("NumPy", numpy_probabilities(logits), expected)
    return race(
        {
            OURS: repeated(lambda: sampler(logits)),
            "numpy": repeated(numpy_draw),
            "torch": unavailable("torch") or repeated(torch_draw(logits, expected, setting.threads)),
        },
        setting.effort,
    )


def repeated(draw: Callable[[], int]) -> Contender:
    def run() -> None:
        for _ in range(DRAWS):
            draw()

    return Contender(run, DRAWS)


def numpy_probabilities(logits: Array) -> Array:
    """Softmax of the logits after temperature, top-k and top-p, float64; written for different logits."""
    x = (logits - logits.max()).astype(np.float64) / TEMPERATURE
    p = np.zeros(x.size)
    ids = np.argpartition(x, -TOP_K)[-TOP_K:] if x.size > TOP_K else np.arange(x.size)
    ids = ids[np.argsort(-x[ids])]
    weights = np.exp(x[ids])
    cumulative = np.cumsum(weights)
    count = int(cumulative.searchsorted(TOP_P * cumulative[-1])) + 1
    p[ids[:count]] = weights[:count] / cumulative[count - 1]
    return p


def torch_draw(logits: Array, expected: Array, threads: int) -> Callable[[], int]:
    """PyTorch's operations, in inference mode."""
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(logits)
    k = min(TOP_K, len(logits))

    def probabilities() -> tuple[Any, Any]:
        values, ids = torch.topk(x / TEMPERATURE, k)  # largest first
        p = torch.softmax(values, 0)
        p = torch.where(torch.cumsum(p, 0) - p < TOP_P, p, 0.0)
        return p, ids

    @torch.inference_mode()
    def draw() -> int:
        p, ids = probabilities()
        return int(ids[torch.multinomial(p, 1)])

    p, ids = probabilities()
    found = np.zeros_like(expected)
    found[ids.numpy()] = (p / p.sum()).numpy()
    require_close("PyTorch", found, expected)
    return draw


def generate(setting: Setting) -> dict[str, Figure]:
    """Figures in characters/s of `LanguageModel.generate`, and of the steps of a stream alone."""
    task = TrainingTask("tanh", 128)
    model: Any = crnn_model(task, task.random_weights())
    step: Callable[..., Any] = model.stream().step
    out = np.empty(task.vocabulary, np.float32)

    def steps() -> None:
        for _ in range(LENGTH):
            step(1, out)

    return race(
        {
            OURS: Contender(lambda: model.generate(length=LENGTH, seed=1), LENGTH),
            STEPS_ALONE: Contender(steps, LENGTH),
        },
        setting.effort,
    )


ROWS = [
    *(Row(f"sample-{V}", "draws/s", partial(sample, V), quick=SIZES[0] == V) for V in SIZES),
    Row("generate", "characters/s", generate),
]
