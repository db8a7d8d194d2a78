# SPDX-License-Identifier: MIT
"""What worker.js runs: a character model is trained on a text for some seconds, and writes text."""

import time

import crnn

model = None


def train(text, cell, hidden_size, seconds, report):
    """Train on ``text``, from the current weights if the characters and the sizes are still the same.

    ``report(losses, samples_per_second, sample)`` is called about five times a second, the sample is new every 3 s.
    """
    global model
    corpus = crnn.TextCorpus.from_text(text, unit="char")
    if model is None or (model.cell, model.hidden_size, model.vocab) != (cell, hidden_size, corpus.vocab):
        model = crnn.LanguageModel(corpus.vocab, cell=cell, hidden_size=hidden_size, seed=1)
    begin = shown = written = time.monotonic()
    losses, sample = [], ""

    def on_update(progress):
        nonlocal losses, shown, written, sample
        now = time.monotonic()
        losses.append(progress.loss)
        over = now - begin > seconds
        if over or now - shown > 0.2:
            if over or now - written > 3:
                sample, written = write("", 160, 0.7), now
            report(losses, progress.update * batch * bptt / (now - begin), sample)
            losses, shown = [], now
        return over

    bptt = 24
    batch = max(1, min(8, len(corpus.train) // (2 * bptt)))
    crnn.fit(model, corpus, epochs=100_000, batch_size=batch, bptt=bptt, on_update=on_update, progress=False)


def write(prompt, length, temperature):
    known = "".join(character for character in prompt if character in model.vocab.tokens)
    return known + model.generate(known, length=length, temperature=temperature)
