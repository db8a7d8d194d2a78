# SPDX-License-Identifier: MIT
"""What is verified of models in fewer bits: rounded weights, and the results of whole sequences and of streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crnn.models.files import from_bytes, to_bytes
from crnn.models.language_model import LanguageModel
from crnn.nn.network import RNN
from crnn.verification import samples
from crnn.verification.cells import INIT, LENGTHS, TOGETHER
from crnn.verification.digest import Digest


def verify_precision(precision: str, digest: Digest, threads: int) -> None:
    """Add the results of quantised networks, and of a language model with tied weights."""
    verify_networks(precision, TOGETHER, digest, threads)
    corpus = samples.corpus(900, seed=6, unit="byte")
    model = LanguageModel(corpus.vocab, "gru", 23, embedding_size=23, tie_weights=True, seed=2, **INIT)
    restored = from_bytes(to_bytes(model.quantize(precision)))
    ids = corpus.train[:40]
    digest.add("logits", restored.forward(ids[:, None], threads=threads)[0])
    digest.add("logits of a stream", restored.stream().run(ids))


def verify_networks(precision: str, cells: Sequence[str], digest: Digest, threads: int) -> None:
    """Add the results of a quantised network of each of the cells."""
    x = samples.numbers(8, 13, 11, seed=1, dtype="float32")
    for cell in cells:
        net = RNN(11, [69, 35], cell=cell, seed=1, **INIT).quantize(precision)
        digest.add(f"weights {cell}", net.flat_params)
        y, _ = net(x, threads=threads)
        digest.add(f"y {cell}", y)
        padding = np.arange(8)[:, None, None] >= np.array(LENGTHS)[:, None]
        digest.add(f"y with lengths {cell}", np.where(padding, 0, net(x, lengths=LENGTHS, threads=threads)[0]))
        digest.add(f"stream {cell}", net.stream().run(x[:, 0]))
