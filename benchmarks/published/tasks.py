# SPDX-License-Identifier: MIT
"""TASKS: every task, with its module, what was published, and what it should reach in how many minutes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.published.work import Work


@dataclass(frozen=True)
class Task:
    """A row of the table in docs/published.md.

    Attributes
    ----------
    name : str
    module : str
        In this folder. Its function ``run(work)`` trains, calls ``work.report`` and yields the lines of a report; if it
        has a function ``choose(seed)``, that yields how the settings were chosen.
    minutes : float
        At most, on two cores.
    settings, published : str
        For the table. Baselines that the task computes are said to be so.
    goal : float, optional
        What the reported value must not exceed.
    """

    name: str
    module: str
    minutes: float
    settings: str
    published: str
    goal: float | None = None

    def load(self) -> Any:
        """The module."""
        return import_module(f"benchmarks.published.{self.module}")

    def run(self, work: Work) -> Iterator[str]:
        """Train, and yield the lines of the report."""
        lines: Iterator[str] = self.load().run(work)
        return lines


TASKS = {
    task.name: task
    for task in (
        Task(
            "ptb-words",
            "penn",
            20,
            "LSTM 2 x 200, weights U(-0.1, 0.1), SGD 1 halved after epoch 4, 13 epochs, 20 x 20, clip 5",
            "perplexity 114.5: Zaremba et al. 2014, non-regularised; 115.9: TensorFlow's tutorial",
            115.0,
        ),
        Task(
            "ptb-words-adaptive",
            "penn",
            20 / 3,
            "the same in bfloat16 with an adaptive softmax, cutoffs 1,000 and 5,000",
            "within 3 % of the full softmax, in a third of the time",
            118.4,
        ),
        Task(
            "ptb-words-regularised",
            "penn",
            120,
            "LSTM 2 x 320, tied, variational, weight and embedding dropout, averaged weights, 28 epochs",
            "perplexity 82.7: Zaremba et al. 2014, LSTM 2 x 650",
            85.0,
        ),
        Task(
            "ptb-chars-tanh",
            "penn",
            120,
            "tanh 1,024, 14 epochs",
            "1.42 bits: Mikolov et al. 2012",
            1.42,
        ),
        Task(
            "ptb-chars-lstm",
            "penn",
            180,
            "LSTM 1,024, dropout 0.2, recurrent 0.1, 10 epochs",
            "1.36 bits: Bai et al. 2018; 1.28: their tuned GRU",
            1.34,
        ),
        Task(
            "shakespeare-20s",
            "shakespeare",
            1 / 3,
            "LSTM 256, 2 epochs",
            "1.88 nats: nanoGPT's transformer, 3 minutes of a CPU",
            1.88,
        ),
        Task(
            "shakespeare-5m",
            "shakespeare",
            5,
            "LSTM 512, dropout 0.5, recurrent 0.2, 12 epochs",
            "1.4697 nats: nanoGPT's transformer, 3 minutes of an A100; 1.548: Feng et al. 2024, minGRU",
            1.4697,
        ),
        Task(
            "shakespeare-40m",
            "shakespeare",
            40,
            "LSTM 1,024, dropout 0.5, recurrent 0.3, 22 epochs",
            "as above",
            1.44,
        ),
        Task("names", "names", 1, "LSTM 2 x 256, dropout 0.3, 10 epochs", "1.92 nats: makemore's transformer", 1.93),
        Task(
            "digits",
            "digits",
            1,
            "64 pixels, one after another: IRNN, LSTM, GRU, tanh; 64 units",
            "the task of Le, Jaitly, Hinton 2015, on smaller digits",
        ),
        Task(
            "irnn",
            "irnn",
            5,
            "the adding problem, T 300: IRNN of 100 units, and the others",
            "MSE 0.1667 for always predicting 1: Le, Jaitly, Hinton 2015",
        ),
        Task(
            "adding",
            "adding",
            2,
            "T 200, 64 units",
            "MSE 0.1667 for always predicting 1; LSTM learns it, tanh does not: Le, Jaitly, Hinton 2015",
        ),
        Task(
            "copy",
            "copy_memory",
            2,
            "T 50, 128 units",
            "0.297 nats and 12.5 % without memory: Arjovsky, Shah, Bengio 2016",
        ),
        Task(
            "addition",
            "addition",
            2,
            "3 digits, LSTM 128, 20 epochs",
            "99 % of characters, 100 epochs: Keras' addition_rnn",
        ),
        Task(
            "airline",
            "airline",
            1,
            "24 months, ten GRUs of 32 units",
            "RMSE 77.0 seasonal naive, 137.3 persistence, 50.0 same month of the year before; computed here",
        ),
        Task("gunpoint", "gunpoint", 1, "bidirectional GRU", "0.913, 1-NN: Dau et al. 2019, and computed here"),
        Task("italy", "italy", 1, "bidirectional GRU", "0.955, 1-NN: Dau et al. 2019, and computed here"),
        Task("forecasts", "forecasts", 5, "`crnn.Forecaster` with its defaults", "see docs/forecasting.md"),
    )
}
