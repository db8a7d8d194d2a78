# SPDX-License-Identifier: MIT
"""
Piano rolls: which keys come next?
==================================

A piano roll says at every step which keys are down. Any number of keys may be down at once, so the model
gives every key its own probability. How well it predicts is measured as in the literature: the negative
log-likelihood (NLL) of all keys of a step, in nats. The music here is made up: chord progressions with a
melody.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

KEYS, MAJOR = 36, np.array([0, 2, 4, 5, 7, 9, 11])
NEXT = [[3, 4, 5, 1], [4, 4, 3], [5, 3], [0, 4, 1], [0, 0, 5], [3, 1, 4]]  # chords that follow a chord


def piece(rng, bars=12):
    """A roll (4 * bars, KEYS): per bar a chord and its bass; above it a melody, mostly of the chord's notes."""
    roll, degree, place = np.zeros((4 * bars, KEYS), np.float32), 0, 16
    shift = rng.integers(0, 5)
    for bar in range(bars):
        chord = shift + MAJOR[(degree + np.array([0, 2, 4])) % 7]
        roll[4 * bar : 4 * bar + 4, 12 + chord % 12] = 1
        roll[4 * bar : 4 * bar + 2, chord[0] % 12] = 1
        for step in range(4 * bar, 4 * bar + 4):
            place = int(np.clip(place + rng.integers(-1, 2), 14, 20))
            note = 24 + (shift + MAJOR[place % 7]) % 12
            roll[step, note if rng.random() < 0.3 else 24 + chord[rng.integers(3)] % 12] = 1
        degree = NEXT[degree][rng.integers(len(NEXT[degree]))]
    return roll


rng = np.random.default_rng(0)
train, test = [piece(rng) for _ in range(400)], [piece(rng) for _ in range(60)]

# %%
# Train
# -----
# The roll at one step is the input, the roll at the next step the target. A tagger with ``multilabel=True``
# predicts for every step and every class, here the keys, yes or no.

model = crnn.SequenceTagger(KEYS, KEYS, hidden_size=96, cell="gru", multilabel=True, scale=False, seed=0)
model.fit([roll[:-1] for roll in train], [roll[1:] for roll in train], epochs=25)


def nll(p, keys):
    """Nats per step (T,) of the keys (T, KEYS)."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return -np.where(keys == 1, np.log(p), np.log(1 - p)).sum(axis=-1)


often = np.concatenate(train).mean(axis=0)
predicted = model.predict_proba([roll[:-1] for roll in test])
by_model = [nll(p, roll[1:]) for p, roll in zip(predicted, test, strict=True)]
by_frequency = [nll(often, roll[1:]) for roll in test]
print(f"NLL per step, each key as often as in the training data: {np.mean(by_frequency):.2f} nats")
print(f"NLL per step, the model:                                 {np.mean(by_model):.2f} nats")

# %%
# What it heard, how surprised it was, and how it continues
# ---------------------------------------------------------
# The first eight bars are a piece of the test set. The last eight bars are the model's: at every step each
# key goes down with its probability, and that is the next input. The surprise is largest where a bar begins
# and the chord changes.

stream, roll = model.stream(), list(test[1][:32])
rng = np.random.default_rng(5)
for step in range(64):
    p = 1 / (1 + np.exp(-stream.step(roll[step])))
    if step >= 31:
        roll.append((rng.random(KEYS) < p).astype(np.float32))

figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, height_ratios=[3, 1], layout="constrained")
top.imshow(np.array(roll[:64]).T, origin="lower", aspect="auto", cmap="Greys", interpolation="nearest")
top.axvline(31.5, color="tab:red")
top.set(ylabel="key", title="left of the line: a piece of the test set; right: the model continues it")
bottom.bar(range(1, 32), by_model[1][:31], color="tab:blue")
bottom.set(xlabel="step, 4 to a bar", ylabel="NLL, nats", xticks=range(0, 64, 4))
plt.show()
