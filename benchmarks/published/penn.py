# SPDX-License-Identifier: MIT
"""Penn Treebank as Mikolov prepared it: words, 10,000 of them, and characters.

Words as Zaremba, Sutskever, Vinyals 2014, non-regularised: their loss is the sum over the 20 steps of a window and the
mean over the batch, ours the mean over both, so that their rate 1 and norm 5 are 20 and 0.25 here. The state is carried
through the text, which is read in 20 streams. The test text is read as one stream.

Characters are those of the prepared text: a space becomes "_", the newline is dropped, as Mikolov et al. 2012. Results
are bits per character.

Settings are chosen by the validation text, and so is the epoch whose weights are kept; the test text is evaluated once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import crnn
from benchmarks.published import language
from benchmarks.published.data import find
from benchmarks.published.language import Setting, Text
from benchmarks.published.work import Work

STEPS = 20

SETTINGS = {
    "ptb-words": Setting(
        unit="perplexity",
        model={
            "cell": "lstm",
            "hidden_size": 200,
            "num_layers": 2,
            "embedding_size": 200,
            "init": "uniform(0.1)",
            "forget_bias": 0.0,
        },
        fit={"batch_size": 20, "bptt": STEPS, "epochs": 13, "clip_norm": 5 / STEPS, "precision": "bf16"},
        optimizer=partial(crnn.optim.SGD, lr=1.0 * STEPS),
        schedule="steps(0.5, after=4)",
    ),
    "ptb-words-regularised": Setting(
        unit="perplexity",
        model={
            "cell": "lstm",
            "hidden_size": 650,
            "num_layers": 2,
            "tie_weights": True,
            "dropout": 0.5,
            "variational_dropout": True,
            "recurrent_dropout": 0.3,
            "init": "uniform(0.05)",
        },
        fit={"batch_size": 20, "bptt": 35, "epochs": 40, "clip_norm": 0.25, "precision": "bf16"},
        optimizer=partial(crnn.optim.SGD, lr=20.0),
    ),
    "ptb-chars-tanh": Setting(
        unit="bits",
        model={"cell": "tanh", "hidden_size": 1024, "recurrent_dropout": 0.05},
        fit={"batch_size": 32, "bptt": 64, "epochs": 20, "precision": "bf16"},
        optimizer=partial(crnn.optim.Adam, lr=1e-3),
    ),
    "ptb-chars-lstm": Setting(
        unit="bits",
        model={"cell": "lstm", "hidden_size": 1024, "dropout": 0.2, "recurrent_dropout": 0.2},
        fit={"batch_size": 32, "bptt": 100, "epochs": 20, "precision": "bf16"},
        optimizer=partial(crnn.optim.Adam, lr=2e-3),
    ),
}


def parts(unit: crnn.text.reading.Unit) -> Text:
    """The three files as ids. The vocabulary is that of the training text."""
    texts = [find("ptb", f"ptb.{part}.txt").read_text(encoding="utf-8") for part in ("train", "valid", "test")]
    if unit == "char":
        texts = [text.replace(" ", "_").replace("\n", "") for text in texts]
    vocab = crnn.Vocab.from_text(texts[0], unit)
    return Text(vocab, *(vocab.encode(text) for text in texts))


def run(work: Work) -> Iterator[str]:
    """Train on words or characters, as the task says. Yields the lines of the report."""
    return language.run(work, parts("word" if "words" in work.task else "char"), SETTINGS[work.task])
