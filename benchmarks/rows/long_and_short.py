# SPDX-License-Identifier: MIT
"""long: predictions for one long sequence among 255 of 50 steps, time and memory.

LSTM 64 with a linear layer on the last state, D 4. crnn gets a list of sequences; PyTorch packs it. Everything from
the list to the probabilities is measured, on one thread: a sequence is not split. Memory is what the first prediction
adds to the peak resident size of a process that holds the sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, Missing, race, unavailable
from benchmarks.base.processes import call, peak_megabytes
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.layers import torch_layers

Array = NDArray[Any]

SHORT, BATCH, INPUTS, HIDDEN, CLASSES = 50, 256, 4, 64, 2
ONE_BY_ONE, TORCH = "crnn, one by one", "torch, packed"


def model_and_sequences(steps: int) -> tuple[Any, list[Array]]:
    """A classifier, and the sequences, one of them with so many steps."""
    import crnn

    rng = np.random.default_rng(0)
    lengths = [SHORT] * (BATCH - 1) + [steps]
    model = crnn.SequenceClassifier(
        INPUTS, CLASSES, hidden_size=HIDDEN, cell="lstm", scale=False, pooling="last", seed=0
    )
    return model, [rng.standard_normal((n, INPUTS), np.float32) for n in lengths]


def crnn_run(model: Any, sequences: list[Array], batch_size: int, threads: int) -> Callable[[], Array]:
    """Probabilities by crnn."""
    return lambda: model.predict_proba(sequences, batch_size=batch_size, threads=threads)


def torch_run(model: Any, sequences: list[Array], threads: int) -> Callable[[], Array]:
    """Probabilities by PyTorch, with the same weights."""
    import torch
    from torch.nn.utils.rnn import pack_sequence

    torch.set_num_threads(threads)
    net = torch_layers(model.params, "lstm")
    weights, bias = (torch.from_numpy(model.params[name]) for name in ("W_hy", "b_y"))

    def run() -> Array:
        with torch.inference_mode():
            packed = pack_sequence([torch.from_numpy(x) for x in sequences], enforce_sorted=False)
            _, (h, _) = net(packed)
            probabilities: Array = torch.softmax(h[-1] @ weights + bias, dim=1).numpy()
            return probabilities

    return run


def times(steps: int, setting: Setting) -> dict[str, Figure]:
    """Batches per second."""
    model, sequences = model_and_sequences(steps)
    ours = crnn_run(model, sequences, BATCH, setting.threads)
    contenders: dict[str, Contender | Missing] = {
        OURS: Contender(ours, 1),
        ONE_BY_ONE: Contender(crnn_run(model, sequences, 1, setting.threads), 1),
    }
    absent = unavailable("torch")
    if absent is None:
        run = torch_run(model, sequences, setting.threads)
        require_close(TORCH, run(), ours())
    contenders[TORCH] = absent or Contender(run, 1)
    return race(contenders, setting.effort)


def sizes(steps: int, setting: Setting) -> dict[str, Figure]:
    """Megabytes that a prediction takes, each in a separate process."""
    figures = {}
    for who in (OURS, ONE_BY_ONE, TORCH):
        absent = unavailable("torch") if who == TORCH else None
        if absent:
            figures[who] = Figure(None, absent.reason)
        else:
            figures[who] = Figure(call(megabytes, who, steps, threads=setting.threads))
    return figures


def megabytes(who: str, steps: int) -> float:
    """What a prediction by one contender adds to the peak resident size of this process."""
    model, sequences = model_and_sequences(steps)
    small = sequences[: BATCH // 16]  # loads what is loaded at first use
    if who == TORCH:
        make = partial(torch_run, model, threads=1)
    else:
        make = partial(crnn_run, model, batch_size=BATCH if who == OURS else 1, threads=1)
    make(small)()
    before = peak_megabytes()
    make(sequences)()
    return peak_megabytes() - before


ROWS = [
    *[
        Row(
            f"long-{steps}",
            "batches/s",
            partial(times, steps),
            goals={ONE_BY_ONE: 1 / 1.3, TORCH: 1.0},
            quick=steps == 10_000,
        )
        for steps in (10_000, 30_000)
    ],
    *[
        Row(f"memory-long-{steps}", "MB", partial(sizes, steps), goals={TORCH: 1.0}, lower=True, quick=steps == 10_000)
        for steps in (10_000, 30_000)
    ],
]
