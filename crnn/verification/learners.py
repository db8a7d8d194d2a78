# SPDX-License-Identifier: MIT
"""What is verified of learners: predictions, losses and weights of models that learn while they predict, and files."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from crnn.models.language_model import LanguageModel
from crnn.models.regressor import SequenceRegressor
from crnn.models.tagger import SequenceTagger
from crnn.nn.cells import CELLS
from crnn.nn.network import RNN
from crnn.verification import samples
from crnn.verification.cells import INIT
from crnn.verification.digest import Digest


def verify_learners(digest: Digest, threads: int) -> None:
    """Add the results of learners of networks of every cell, of text, of values and of classes."""
    x = samples.numbers(24, 3, 5, seed=1)
    for cell in CELLS:
        net = RNN(5, [19, 17], cell=cell, trainable_initial_state=True, seed=1, **INIT)
        learner = net.learner(optimizer="sgd", lr=2.0**-6, bptt=6, streams=3, threads=threads)
        for step in range(len(x)):
            if step == 9:
                learner.reset([1])
            y = learner.step(x[step])
            learner.learn(y)  # of half the sum of the squares
            digest.add(f"y {cell}", y)
        digest.add(f"weights {cell}", learner.model.flat_params)
    corpus = samples.corpus(900, seed=6)
    runs: list[tuple[int, dict[str, Any]]] = [(8, {"decay": 2.0**-7}), (3, {"max_change": 0.125})]
    for every, limits in runs:
        model = LanguageModel(corpus.vocab, "lstm", 23, embedding_size=7, seed=2, **INIT)
        text = model.learner(bptt=8, every=every, lr=2.0**-6, streams=2, threads=threads, **limits)
        ids = corpus.train[:200].reshape(2, -1).T
        digest.add("surprisals", text.feed(ids[:1]).surprisal(ids[1:]))
        digest.add("weights", text.model.flat_params)
    for kind in SequenceRegressor, SequenceTagger:
        one = kind(5, 2, hidden_size=19, seed=4, **INIT).learner(bptt=5, every=2, lr=2.0**-6, threads=threads)
        for step in range(16):
            found = [one.predict(x[step, 0]), one.learn(x[step, 1, :2] if kind is SequenceRegressor else step % 2)]
            digest.add("predictions", np.concatenate([found[0], [found[1]]]))
        digest.add("weights", copy.deepcopy(one).model.flat_params)
