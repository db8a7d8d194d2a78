# SPDX-License-Identifier: MIT
"""
Gestures from an accelerometer, before they have ended
======================================================

A watch measures acceleration along three axes, fifty times a second. Which gesture is it? The sequences have
different lengths, and a program would like to know the answer before the gesture has ended. This example
makes up four gestures with noise, different speeds and strengths, classifies them, and then watches the
decision while one arrives.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

GESTURES = ["circle", "shake", "swipe", "tap"]


def record(gesture, rng):
    """Acceleration (T, 3) in g, T from 40 to 90 steps."""
    T = int(rng.integers(40, 90))
    t = np.linspace(0, 1, T)
    strength, phase, turns = rng.uniform(0.6, 1.4), rng.uniform(0, 2 * np.pi), rng.uniform(1, 2)
    x = np.zeros((T, 3))
    if gesture == "circle":
        x[:, 0], x[:, 1] = np.cos(2 * np.pi * turns * t + phase), np.sin(2 * np.pi * turns * t + phase)
    elif gesture == "shake":
        x[:, 0] = 1.5 * np.sin(2 * np.pi * 5 * turns * t + phase)
    elif gesture == "swipe":
        x[:, 0] = 2 * np.sin(2 * np.pi * t) * np.exp(-((t - 0.5) ** 2) / 0.05)
    else:
        x[:, 2] = 3 * np.exp(-((t - rng.uniform(0.3, 0.7)) ** 2) / 0.001)
    return strength * x + [0, 0, 1] + rng.normal(0, 0.25, (T, 3))  # gravity, and noise


rng = np.random.default_rng(0)
y = [GESTURES[i % 4] for i in range(400)]
X = [record(gesture, rng) for gesture in y]

figure, panels = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True, layout="constrained")
for ax, x, name in zip(panels, X, GESTURES, strict=False):
    ax.plot(x, lw=1)
    ax.set(title=name, xlabel="step")
panels[0].set_ylabel("acceleration, g")

# %%
# Train
# -----
# A list of arrays (T, 3) and a list of names is all that is needed. Sizes, classes and the scaling of the
# inputs come from the data. 80 of the 400 recordings are kept for the test.

model = crnn.SequenceClassifier(hidden_size=32, cell="gru", seed=0)
model.fit(X[:320], y[:320], epochs=30)
print(f"accuracy on 80 other recordings: {model.evaluate(X[320:], y[320:]).accuracy:.3f}")

# %%
# Which gesture is it so far?
# ---------------------------
# A stream of the classifier takes one step at a time. After each it gives what ``predict`` would compute for
# the sequence so far. The decision for a circle can be taken long before the end.

fresh = [record(gesture, np.random.default_rng(7 + i)) for i, gesture in enumerate(GESTURES)]
# sphinx_gallery_thumbnail_number = 2
figure, panels = plt.subplots(1, 4, figsize=(10, 2.8), sharey=True, layout="constrained")
for ax, x, gesture in zip(panels, fresh, GESTURES, strict=True):
    logits = model.stream().run(x)  # the same as a call of step for each row
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    ax.stackplot(range(len(x)), (p / p.sum(axis=1, keepdims=True)).T, labels=model.classes, alpha=0.8)
    ax.set(title=f"it is a {gesture}", xlabel="step", xlim=(0, len(x) - 1), ylim=(0, 1))
panels[0].set_ylabel("probability")
panels[0].legend(loc="lower right", fontsize=8)
plt.show()
