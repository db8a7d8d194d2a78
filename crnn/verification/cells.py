# SPDX-License-Identifier: MIT
"""What is verified of every cell: a network on numbers, and a trained language model with its streams; and what every
cell learns in each precision of updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from crnn import optim
from crnn.models.files import from_bytes, to_bytes
from crnn.models.language_model import LanguageModel
from crnn.nn.cells import CELLS
from crnn.nn.network import RNN
from crnn.nn.state import state_arrays
from crnn.text.corpus import TextCorpus
from crnn.training.fit import fit
from crnn.verification import samples
from crnn.verification.digest import Digest

# Defaults may change in a release, the initial weights of these networks may not. Sizes are neither multiples of the
# vectors' width nor below it.
INIT: dict[str, Any] = {"recurrent_init": "orthogonal", "input_init": "glorot"}
LENGTHS = [5, 1, 8, 8, 3, 7, 2, 8, 4, 6, 5, 8, 1]


# The cells whose results in fewer bits are one part for each precision. Every other cell has separate parts, so that a
# new cell changes no hash but the total.
TOGETHER = ("tanh", "relu", "lstm", "gru", "original_gru", "min_gru")


def verify_training(precision: Literal["bf16"], cells: Sequence[str], digest: Digest, threads: int) -> None:
    """Add what each of the cells learns with the products of its updates in another precision."""
    for cell in cells:
        digest.add("cell", cell)
        gradients(cell, "float32", digest, threads, precision)
        trained(cell, "float32", digest, threads, precision)


def verify_cell(cell: str, digest: Digest, threads: int) -> None:
    """Add the results of a cell, in both precisions."""
    for dtype in "float32", "float64":
        gradients(cell, dtype, digest, threads)
        language_model(cell, dtype, digest, threads)
    streams(cell, digest)


def gradients(
    cell: str, dtype: str, digest: Digest, threads: int, precision: Literal["bf16"] | None = None
) -> None:
    """A forward and a backward pass of two bidirectional layers over sequences of different lengths."""
    net = RNN(11, [69, 35], cell=cell, bidirectional=True, dtype=dtype, seed=1, **INIT)
    x, dy = samples.numbers(8, 13, 11, seed=1, dtype=dtype), samples.numbers(8, 13, 70, seed=2, dtype=dtype)
    for lengths in None, LENGTHS:
        y, state, tape = net.forward(x, lengths=lengths, threads=threads, precision=precision)
        dx, dstate = net.backward(tape, dy, threads=threads)
        assert dx is not None
        if lengths is not None:  # padding is not computed
            padding = np.arange(8)[:, None] >= np.array(lengths)
            y, dx = np.where(padding[:, :, None], 0, y), np.where(padding[:, :, None], 0, dx)
        digest.add("y", y)
        digest.add("state", list(state_arrays(state)))
        digest.add("dx", dx)
        digest.add("dstate", list(state_arrays(dstate)))
    digest.add("gradient", net.flat_grads)


def trained(
    cell: str, dtype: str, digest: Digest, threads: int, precision: Literal["bf16"] | None = None
) -> tuple[LanguageModel, TextCorpus]:
    """A character model after updates with dropout, tied weights, clipping and a trainable initial state."""
    corpus = samples.corpus(1800, seed=3)
    recurrent = 0.125 if CELLS[cell].info.recurrent_gates else 0.0
    model = LanguageModel(
        corpus.vocab, cell, [69, 45], embedding_size=45, tie_weights=True, dropout=0.25, recurrent_dropout=recurrent,
        trainable_initial_state=True, dtype=dtype, seed=5, **INIT,
    )  # fmt: skip
    log = fit(
        model, corpus, epochs=2, batch_size=5, bptt=11, clip_value=0.125, clip_norm=0.5, threads=threads, seed=3,
        optimizer=optim.AdamW(lr=2.0**-6), schedule=optim.linear(0.125, warmup=5), patience=None,
        log_every=1, progress=False, precision=precision,
    )  # fmt: skip
    digest.add("losses", log.column("train_loss"))
    digest.add("gradient norms", log.column("grad_norm"))
    digest.add("validation losses", log.column("valid_loss", "epoch"))
    digest.add("weights", model.flat_params)
    return model, corpus


def language_model(cell: str, dtype: str, digest: Digest, threads: int) -> None:
    """The same model, saved and loaded, with its evaluation, texts and streams."""
    model, corpus = trained(cell, dtype, digest, threads)
    model = from_bytes(to_bytes(model))
    evaluation = model.evaluate(corpus.valid, batch_size=2, threads=threads)
    digest.add("evaluation", [evaluation.nats, evaluation.accuracy, evaluation.count])
    digest.add("text", model.generate("the ", 40, temperature=0.75, top_k=9, top_p=0.9375, seed=7))
    stream = model.stream().feed("\n")
    digest.add("surprisal", stream.surprisal("there is no other one\n"))
    digest.add("probabilities", stream.next_probabilities())
    digest.add("state", list(state_arrays(stream.state)))


def streams(cell: str, digest: Digest) -> None:
    """A stream of numbers, alone and in a batch of which some rows are stepped."""
    net = RNN(11, [69, 35], cell=cell, seed=1, **INIT)
    x = samples.numbers(6, 9, 11, seed=4, dtype="float32")
    stream = net.stream()
    digest.add("steps", [stream.step(each).copy() for each in x[:3, 0]])
    digest.add("run", stream.run(x[3:, 0]))
    batch = net.stream_batch(9)
    rows = np.array([7, 0, 3, 4, 8])
    digest.add("batch", [batch.step(each).copy() for each in x[:3]])
    digest.add("rows", [batch.step(each[rows], rows).copy() for each in x[3:]])
    digest.add("states", list(state_arrays(batch.states())))
