# SPDX-License-Identifier: MIT
"""
A sensor drifts, and the model keeps learning
=============================================

A model that is trained once knows the world of its training data. This example makes up a pump whose flow follows
from three settings with a memory of some seconds, trains a small network on an hour of it, and then changes the
pump: a filter clogs, and a valve is replaced. A stream of the trained model gets worse; a learner on the same model
learns from every value that arrives, and follows.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

rng = np.random.default_rng(0)


def pump(settings, clogging, valve):
    """The flow at each second: a leaky sum of the settings, dampened by clogging and scaled by the valve."""
    flow, flows = 0.0, []
    for s, clog, v in zip(settings, clogging, valve, strict=True):
        flow += (0.3 - 0.2 * clog) * (v * s[0] * (1 - clog) + 0.5 * np.tanh(s[1] - s[2]) - flow)
        flows.append(flow)
    return np.array(flows) + 0.02 * rng.normal(size=len(flows))


def settings_of(seconds):
    """Three settings that change slowly."""
    return np.cumsum(rng.normal(size=(seconds, 3)), axis=0) / 15 % 2 - 1


train = settings_of(3600)
flow = pump(train, np.zeros(3600), np.ones(3600))
model = crnn.SequenceRegressor(3, 1, hidden_size=24, cell="gru", pooling=None, seed=0)
windows = range(0, 3600, 100)
model.fit([train[i : i + 100] for i in windows], [flow[i : i + 100] for i in windows], epochs=30)

# %%
# Two hours later
# ---------------
# From minute 30 to 70 a filter clogs; at minute 100 somebody replaces a valve.

seconds = 8000
clogging = np.clip((np.arange(seconds) - 1800) / 2400, 0, 0.6)
valve = np.where(np.arange(seconds) < 6000, 1.0, 1.6)
settings = settings_of(seconds)
measured = pump(settings, clogging, valve)

# %%
# Predict, then learn
# -------------------
# `predict` reads one step, and `learn` gives the value that was measured. Every 20 steps the learner updates a copy
# of the weights; `max_change` says how far they may move.

stream = model.stream()
learner = model.learner(optimizer="adam", lr=1e-3, bptt=20, max_change=0.5)
errors = {"trained once": [], "keeps learning": []}
for x, y in zip(settings, measured, strict=True):
    errors["trained once"].append(stream.step(x)[0] - y)
    errors["keeps learning"].append(learner.predict(x)[0] - y)
    learner.learn(y)

for name, each in errors.items():
    parts = [np.sqrt(np.mean(np.square(part))) for part in np.split(np.array(each), [1800, 6000])]
    print(f"{name:15} error before {parts[0]:.3f}, clogging {parts[1]:.3f}, new valve {parts[2]:.3f}")
print(f"{learner.updates} updates")

figure, axes = plt.subplots(figsize=(8, 3.5))
for name, each in errors.items():
    smooth = np.sqrt(np.convolve(np.square(each), np.ones(200) / 200, "same"))
    axes.plot(np.arange(seconds) / 60, smooth, label=name)
axes.axvspan(30, 70, alpha=0.15, label="the filter clogs")
axes.axvline(100, color="gray", linestyle=":", label="another valve")
axes.set(xlabel="minute", ylabel="error of the predicted flow", ylim=(0, None))
axes.legend()
plt.show()
