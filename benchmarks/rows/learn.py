# SPDX-License-Identifier: MIT
"""learn: a whole training run of `crnn.fit` and of PyTorch on the same text, epoch by epoch, at all cores.

Tanh RNN, H 256, B 32, T 64, embedding of size H, Adam with learning rate 2e-3 and cosine decay to 0, gradient norm
clipped at 0.25, 10 epochs; the last tenth of the text is the validation set. Both read the same contiguous windows and
carry the state; each starts from its own library's initial weights. The two run one after the other, each in a separate
process. Seconds are those of the whole loop, validation included.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from benchmarks.base.measure import OURS, Figure, unavailable
from benchmarks.base.processes import call
from benchmarks.base.row import Row, Setting
from benchmarks.base.texts import text

HIDDEN, BATCH, STEPS, EPOCHS = 256, 32, 64, 10
RATE, CLIP, VALID = 2e-3, 0.25, 0.1
TORCH = "torch, embedding"

Curve = list[dict[str, float]]  # epoch, train_loss, valid_loss, seconds since the start


def measure(setting: Setting) -> dict[str, Figure]:
    """Seconds of the whole run; each figure's ``curve`` holds the losses by epoch."""
    figures = {}
    for who, module, function in ((OURS, "crnn", train_with_crnn), (TORCH, "torch", train_with_torch)):
        if absent := unavailable(module):
            figures[who] = Figure(None, absent.reason)
            continue
        curve: Curve = call(function, setting.threads, setting.quick, threads=setting.threads)
        best = min(entry["valid_loss"] for entry in curve)
        note = f"{text()[1]}, {len(curve)} epochs, best validation loss {best:.4f} nats"
        figures[who] = Figure(curve[-1]["seconds"], note, curve=curve)
    return figures


def _text_and_epochs(quick: bool) -> tuple[str, int]:
    return (text()[0][:60_000], 2) if quick else (text()[0], EPOCHS)


def train_with_crnn(threads: int, quick: bool) -> Curve:
    """Train with `crnn.fit`. Returns the losses by epoch."""
    import crnn

    training_text, epochs = _text_and_epochs(quick)
    corpus = crnn.TextCorpus.from_text(training_text, unit="char", valid=VALID, test=0.0)
    model = crnn.LanguageModel(corpus.vocab, "tanh", hidden_size=HIDDEN, embedding_size=HIDDEN, seed=0)
    curve: Curve = []

    def on_epoch(log: crnn.TrainingLog) -> None:
        entry = log.entries[-1]
        _append(curve, entry["train_loss"], entry["valid_loss"], started)

    started = time.perf_counter()
    crnn.fit(
        model,
        corpus,
        epochs=epochs,
        batch_size=BATCH,
        bptt=STEPS,
        optimizer=crnn.optim.Adam(lr=RATE),
        schedule=crnn.optim.cosine(),
        clip_norm=CLIP,
        patience=None,
        threads=threads,
        progress=False,
        on_epoch=on_epoch,
    )
    return curve


def train_with_torch(threads: int, quick: bool) -> Curve:
    """Train the same model with PyTorch. Returns the losses by epoch."""
    import torch
    from torch.nn.functional import cross_entropy

    from crnn.text.corpus import TextCorpus
    from crnn.text.windows import IGNORE_INDEX, contiguous_batches

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    training_text, epochs = _text_and_epochs(quick)
    corpus = TextCorpus.from_text(training_text, unit="char", valid=VALID, test=0.0)
    V = len(corpus.vocab)

    def windows(ids: Any, steps: int, drop_last: bool) -> list[tuple[Any, Any]]:
        batches = contiguous_batches(ids, BATCH, steps, drop_last=drop_last)
        return [(torch.from_numpy(x.astype(np.int64)), torch.from_numpy(y.astype(np.int64))) for x, y in batches]

    train, valid = windows(corpus.train, STEPS, True), windows(corpus.valid, 2 * STEPS, False)
    embedding, rnn, head = torch.nn.Embedding(V, HIDDEN), torch.nn.RNN(HIDDEN, HIDDEN), torch.nn.Linear(HIDDEN, V)
    parameters = [*embedding.parameters(), *rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: 0.5 * (1 + math.cos(math.pi * k / (len(train) * epochs)))
    )

    def loss_of(x: Any, y: Any, state: Any) -> tuple[Any, Any]:
        h, state = rnn(embedding(x), state)
        loss = cross_entropy(head(h).view(-1, V), y.view(-1), ignore_index=IGNORE_INDEX, reduction="sum")
        return loss, state.detach()

    def evaluate() -> float:
        nats, count, state = 0.0, 0, None
        with torch.inference_mode():
            for x, y in valid:
                loss, state = loss_of(x, y, state)
                nats += float(loss)
                count += int((y != IGNORE_INDEX).sum())
        return nats / count

    curve: Curve = []
    started = time.perf_counter()
    for _ in range(epochs):
        nats, count, state = 0.0, 0, None
        for x, y in train:
            optimizer.zero_grad(set_to_none=True)
            loss, state = loss_of(x, y, state)
            (loss / y.numel()).backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            schedule.step()
            nats += float(loss)
            count += y.numel()
        _append(curve, nats / count, evaluate(), started)
    return curve


def _append(curve: Curve, train_loss: float, valid_loss: float, started: float) -> None:
    seconds = time.perf_counter() - started
    curve.append({"epoch": len(curve) + 1, "train_loss": train_loss, "valid_loss": valid_loss, "seconds": seconds})


def draw(curves: dict[str, Curve], path: str) -> None:
    """Validation loss over epochs, and over seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for axis, over in zip(axes, ("epoch", "seconds"), strict=True):
        for color, (who, curve) in zip(("C0", "C1"), curves.items(), strict=False):
            x = [entry[over] for entry in curve]
            axis.plot(x, [entry["valid_loss"] for entry in curve], color=color, marker="o", label=f"{who}, validation")
            axis.plot(x, [entry["train_loss"] for entry in curve], color=color, linestyle=":", label=f"{who}, training")
        axis.set_xlabel(over)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("nats per character")
    axes[1].legend()
    figure.savefig(path, dpi=150)


ROWS = [
    Row("learn", "s", measure, all_cores=True, goals={TORCH: 2.0}, lower=True, long=True),
]
