# SPDX-License-Identifier: MIT
"""Penn Treebank as Mikolov prepared it: words, 10,000 of them, and characters.

Words as Zaremba, Sutskever, Vinyals 2014, non-regularised, by the preset zaremba-small: their loss is the sum over the
20 steps of a window, ours the mean, so that their rate 1 and norm 5 are 20 and 0.25 here. The state is carried through
the text, which is read in 20 streams; the test text is read as one.

The regularised model has tied weights (Inan, Khosravi, Socher 2017), one dropout mask for all steps of a window (Gal,
Ghahramani 2016), dropped recurrent weights (Merity, Keskar, Socher 2018), and is the average of the weights of about
the last 1,000 updates. It is half as wide as Zaremba's, which takes a third of the time and needs less dropout.

Characters are those of the prepared text: a space becomes "_", the newline is dropped, as Mikolov et al. 2012. Results
are bits per character.

Settings are chosen by the validation text, and so is the epoch whose weights are kept; the test text is evaluated once.
"""

from __future__ import annotations

from collections.abc import Iterator

import crnn
from benchmarks.published import language
from benchmarks.published.data import find
from benchmarks.published.language import Setting, Text
from benchmarks.published.work import Work

ZAREMBA = crnn.presets.named("zaremba-small")

SETTINGS = {
    "ptb-words": Setting("perplexity", ZAREMBA.model, ZAREMBA.training),
    "ptb-words-adaptive": Setting(
        "perplexity", {**ZAREMBA.model, "adaptive_softmax": True}, {**ZAREMBA.training, "precision": "bf16"}
    ),
    "ptb-words-regularised": Setting(
        "perplexity",
        {
            "cell": "lstm",
            "hidden_size": 320,
            "num_layers": 2,
            "tie_weights": True,
            "input_dropout": 0.25,
            "dropout": 0.3,
            "variational_dropout": True,
            "weight_dropout": 0.15,
            "embedding_dropout": 0.05,
            "init": "uniform(0.05)",
        },
        {
            "batch_size": 20,
            "bptt": 35,
            "epochs": 28,
            "optimizer": "sgd",
            "lr": 20.0,
            "schedule": "linear",
            "average": "ema(0.999)",
            "clip_norm": 0.25,
        },
    ),
    "ptb-chars-tanh": Setting(
        "bits",
        {"cell": "tanh", "hidden_size": 1024},
        {"batch_size": 32, "bptt": 64, "epochs": 14, "lr": 1e-3},
    ),
    "ptb-chars-lstm": Setting(
        "bits",
        {"cell": "lstm", "hidden_size": 1024, "dropout": 0.2, "recurrent_dropout": 0.1},
        {"batch_size": 32, "bptt": 100, "epochs": 10, "lr": 2e-3},
    ),
}


def parts(unit: crnn.text.reading.Unit) -> Text:
    """The three files as ids. The vocabulary is that of the training text, words by their frequency."""
    texts = [find("ptb", f"ptb.{part}.txt").read_text(encoding="utf-8") for part in ("train", "valid", "test")]
    if unit == "char":
        texts = [text.replace(" ", "_").replace("\n", "") for text in texts]
    vocab = crnn.Vocab.from_text(texts[0], unit, order="frequency" if unit == "word" else "sorted")
    return Text(vocab, *(vocab.encode(text) for text in texts))


def run(work: Work) -> Iterator[str]:
    """Train on words or characters, as the task says. Yields the lines of the report."""
    return language.run(work, parts("word" if "words" in work.task else "char"), SETTINGS[work.task])
