# SPDX-License-Identifier: MIT
"""
Lesson 3: a network that learns to write
========================================

Lesson 1 computed gradients. This lesson uses them: a window of text, its gradients, a small step of all weights
against them, and the same again with the next window. The loop is 30 lines of NumPy. Then crnn trains the same
network from the same weights, and both losses are compared, update by update.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

text = "the cat sat on the mat. the dog sat on the cat. " * 70
vocab = crnn.Vocab.from_text(text)
H, V, T, RATE = 32, len(vocab), 25, 0.5
ids = vocab.encode(text)[: 120 * T + 1]  # 120 windows

model = crnn.LanguageModel(vocab, "tanh", hidden_size=H, dtype="float64", seed=0)
weights = {name: value.copy() for name, value in model.params.items()}  # where both begin
print({name: value.shape for name, value in weights.items()})

# %%
# The loop
# --------
# The state at the end of a window is the state at the beginning of the next one, but the gradient does not flow
# back over this border. That is truncated backpropagation through time. A gradient that is longer than 1 is
# shortened to 1.


def train(weights, ids):
    """Yield the mean loss per character of every window; ``weights`` change."""
    W_xh, W_hh, b_h = (weights[f"layer0.{name}"] for name in ("W_xh", "W_hh", "b_h"))
    W_hy, b_y = weights["W_hy"], weights["b_y"]
    h_0 = np.zeros(H)
    for start in range(0, len(ids) - T, T):
        x, target = ids[start : start + T], ids[start + 1 : start + T + 1]
        h, p, loss = [h_0], [], 0.0
        for t in range(T):  # forward; a row of W_xh is the product of a one-hot x with it
            h.append(np.tanh(W_xh[x[t]] + h[-1] @ W_hh + b_h))
            y = h[-1] @ W_hy + b_y
            p.append(np.exp(y - y.max()) / np.exp(y - y.max()).sum())
            loss -= np.log(p[-1][target[t]]) / T
        d = {name: np.zeros_like(value) for name, value in weights.items()}
        da = np.zeros(H)
        for t in reversed(range(T)):  # backward; h[t + 1] is the state after step t
            dy = p[t] / T
            dy[target[t]] -= 1 / T
            da = (dy @ W_hy.T + da @ W_hh.T) * (1 - h[t + 1] ** 2)
            d["W_hy"] += np.outer(h[t + 1], dy)
            d["b_y"] += dy
            d["layer0.W_hh"] += np.outer(h[t], da)
            d["layer0.W_xh"][x[t]] += da
            d["layer0.b_h"] += da
        norm = np.sqrt(sum((gradient**2).sum() for gradient in d.values()))
        for name, value in weights.items():
            value -= RATE * min(1.0, 1.0 / norm) * d[name]
        h_0 = h[-1]
        yield loss


losses = np.array(list(train(weights, ids)))
print(f"{len(losses)} updates; the loss falls from {losses[0]:.3f} to {losses[-1]:.3f} nats")

# %%
# The same with crnn
# ------------------
# One stream of text, windows of T steps, plain gradient descent at a constant rate.

options = {"batch_size": 1, "bptt": T, "clip_norm": 1.0, "epochs": 1, "schedule": None, "log_every": 1}
model.fit(ids, optimizer=crnn.optim.SGD(lr=RATE), **options)
by_crnn = np.array(model.log.column("train_loss", kind="train"))
print(f"largest difference of the losses of {len(by_crnn)} updates: {np.abs(by_crnn - losses).max():.0e}")
assert np.abs(by_crnn - losses).max() < 1e-9

figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
ax.plot(losses, color="tab:blue", lw=3, alpha=0.5, label="by hand")
ax.plot(by_crnn, color="black", lw=1, ls="--", label="crnn")
ax.axhline(np.log(V), color="0.6", lw=1, label=f"every one of {V} characters equally likely")
ax.set(xlabel="update", ylabel="nats per character", ylim=(0, 3.2))
ax.legend()
plt.show()

# %%
# What has it learnt?
# -------------------

print(repr(model.generate("the ", length=70, temperature=0.5, seed=1)))
