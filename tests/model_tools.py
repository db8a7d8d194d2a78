# SPDX-License-Identifier: MIT
"""What the tests of models and training share: texts and weights that hide nothing, the oracle of a model."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import oracle
from numpy.typing import NDArray

import crnn

WORDS = [
    "the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "with", "as", "be", "at", "one",
    "have", "this", "from", "or", "had", "by", "hot", "word", "but", "what", "some", "we", "can", "out", "other",
]  # fmt: skip


def text(length: int, seed: int = 0) -> str:
    """Words in lines, ``length`` characters, the same on every machine and in every version of Python and NumPy."""
    draws = np.random.PCG64(seed).random_raw(length // 2)
    words = [WORDS[draw % len(WORDS)] + (".\n" if draw % 11 == 0 else " ") for draw in draws.tolist()]
    return "".join(words)[:length]


def stir(flat: NDArray, seed: int = 1) -> None:
    """Move every weight a little, so that no bias is zero and no two weights are equal."""
    flat += np.random.default_rng(seed).uniform(-0.1, 0.1, flat.shape).astype(flat.dtype)


def padded(batch: Any, targets: NDArray) -> tuple[NDArray, NDArray | None, NDArray]:
    """x (T, B, ...) and targets (T, B, ...) of a batch, which may be packed, and its lengths (B,), None if equal.

    Padding of x is 0; that of targets is a missing one.
    """
    x, lengths = batch.x, None
    if batch.lengths is not None:
        lengths, x = batch.lengths.lengths, batch.lengths.unpack(x)
    if batch.target_lengths is not None:
        targets = batch.target_lengths.unpack(targets)
        targets[batch.target_lengths.padding()] = -1 if targets.dtype.kind == "i" else np.nan
    return x, lengths, targets


def network(
    D: int = 5,
    H: int | Sequence[int] = 7,
    L: int | None = 1,
    cell: str = "tanh",
    dtype: str = "float32",
    E: int | None = None,
    **options: Any,
) -> crnn.RNN:
    net = crnn.RNN(D, H, L, cell, embedding_size=E, dtype=dtype, seed=3, **options)
    stir(net.flat_params)
    return net


def language_model(
    of: str = "hello, new world!\n", H: int = 7, L: int = 1, cell: str = "tanh", *, dtype: str = "float32",
    unit: str = "char", E: int | None = None
) -> crnn.LanguageModel:  # fmt: skip
    model = crnn.LanguageModel(crnn.Vocab.from_text(of, unit), cell, H, L, embedding_size=E, dtype=dtype, seed=3)
    stir(model.flat_params)
    return model


def as_oracle(model: crnn.RNN | crnn.LanguageModel) -> oracle.Params:
    """The model's parameters for the oracle."""
    return {name: values.astype(np.float64) for name, values in model.params.items()}


def oracle_forward(
    model: crnn.RNN | crnn.LanguageModel, x: NDArray, state: oracle.States | None = None, **options: Any
) -> oracle.Tape:
    """The oracle's forward pass with the model's parameters, from its first state unless given."""
    net = model.net if isinstance(model, crnn.LanguageModel) else model
    return oracle.rnn_forward(as_oracle(model), x, state, net.cell, dense=net.dense_layers, **options)


def oracle_backward(
    model: crnn.RNN | crnn.LanguageModel, tape: oracle.Tape, dy: NDArray, dstate: oracle.States | None = None
) -> tuple[oracle.Params, NDArray, oracle.States]:
    """The oracle's gradients: of the parameters, of x and of the first state."""
    return oracle.rnn_backward(as_oracle(model), tape, dy, dstate)


def oracle_losses(
    model: crnn.LanguageModel, ids: NDArray, targets: NDArray, h0: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    """Nats (T, B), and the logits they come from."""
    logits = oracle_forward(model, ids, h0).y
    return oracle.cross_entropy(logits, targets, ignore=-1)[0], logits


def crnn_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "crnn", *map(str, arguments)]


def environment() -> dict[str, str]:
    """For a child process that imports the crnn that is being tested, wherever that lies."""
    root = str(Path(crnn.__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # hides lost flushes
    return inherited | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}


def run_python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a separate Python."""
    command: Sequence[str] = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
