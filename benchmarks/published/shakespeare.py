# SPDX-License-Identifier: MIT
"""tinyshakespeare by characters: the first 90 % to learn from, the last 10 % to validate on, in 20 s, 5 and 40 minutes.

nanoGPT reports the lowest loss on the validation part, as everybody does with this text; so do we, which makes the
figures slightly optimistic. It evaluates blocks of 256 characters (64 on a CPU) without the text before them, and that
is what is compared with its figures. A recurrent network that reads the whole part with its state carried on has a
lower loss, which is reported, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import crnn
from benchmarks.published import language
from benchmarks.published.data import find
from benchmarks.published.language import Setting, Text
from benchmarks.published.work import Work

BLOCK = 256

# In training, too, the state is reset after a block, so that the beginning of one is learnt.
REGULARISED = {"dropout": 0.5, "trainable_initial_state": True}

SETTINGS = {
    "shakespeare-20s": Setting(
        "nats",
        {"cell": "lstm", "hidden_size": 256},
        {"batch_size": 32, "bptt": 64, "epochs": 2, "lr": 1e-2, "precision": "bf16"},
    ),
    "shakespeare-5m": Setting(
        "nats",
        {"cell": "lstm", "hidden_size": 512, "recurrent_dropout": 0.2, **REGULARISED},
        {"batch_size": 32, "bptt": 64, "carry": BLOCK, "epochs": 12, "lr": 5e-3, "precision": "bf16"},
    ),
    "shakespeare-40m": Setting(
        "nats",
        {"cell": "lstm", "hidden_size": 1024, "recurrent_dropout": 0.3, **REGULARISED},
        {"batch_size": 32, "bptt": 128, "carry": BLOCK, "epochs": 22, "lr": 2e-3},
    ),
}


def run(work: Work) -> Iterator[str]:
    """Train on tinyshakespeare. Yields the lines of the report."""
    corpus = crnn.TextCorpus.from_file(find("tinyshakespeare.txt"), valid=0.1, test=0.0)
    return language.run(
        work, Text(corpus.vocab, corpus.train, corpus.valid), SETTINGS[work.task], block=BLOCK
    )
