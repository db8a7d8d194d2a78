# SPDX-License-Identifier: MIT
"""
Lesson 4: truncated backpropagation
===================================

Lesson 3 cut the text into windows: the state is carried from one to the next, but the gradient stops at the border.
This is truncated backpropagation through time, and every long text is trained so, because memory grows with the number
of steps that a gradient goes back. This lesson compares it with the full gradient, and shows what it cannot learn.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

rng = np.random.default_rng(0)
words = ["".join(rng.choice(list("ab"), 6)) for _ in range(600)]
text = "".join(f"{word}.{word}." for word in words)  # each random word is written twice
vocab = crnn.Vocab.from_text(text)
ids = vocab.encode(text)
print(text[:56])

# %%
# How much of the gradient is left
# --------------------------------
# The gradient of the loss of 64 steps, in windows of k steps and in one. Forward, both compute the same, because the
# state is carried. The cosine between the two gradients of W_hh says whether they point in the same direction.


def gradient(model, k, steps=64):
    """The gradient of W_hh at the loss of ``steps`` characters, summed over windows of k steps."""
    model.flat_grads[:] = 0
    x, target, state, loss = ids[:steps, None], ids[1 : steps + 1, None], None, 0.0
    for start in range(0, steps, k):
        window = slice(start, start + k)
        total, _, state = model.loss_and_gradients(x[window], target[window], state, reduction="sum")
        loss += total
    return loss, model.grads["layer0.W_hh"].ravel().copy()


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


lengths = [1, 2, 4, 8, 16, 32, 64]
figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
for radius, colour in ((0.5, "tab:blue"), (1.0, "black")):
    options = {"hidden_size": 32, "dtype": "float64", "recurrent_init": f"{radius}*orthogonal", "seed": 1}
    model = crnn.LanguageModel(vocab, "tanh", **options)
    loss, full = gradient(model, 64)
    cut = [gradient(model, k) for k in lengths]
    assert np.allclose([each[0] for each in cut], loss)  # forward, nothing is truncated
    ax.semilogx(lengths, [cosine(each[1], full) for each in cut], "o-", base=2, color=colour, label=f"radius {radius}")
ax.set(xlabel="steps in a window, k", ylabel="cosine with the full gradient", xticks=lengths, xticklabels=lengths)
ax.legend()
plt.show()

# %%
# With radius 0.5 gradients fade within a few steps (lesson 2), so little is lost when they are cut. With radius 1 more
# of the gradient comes from far away.
#
# What is out of reach
# --------------------
# In this text the second copy of a word can be predicted, if its letters are remembered for 7 steps. The first copy
# cannot: it costs log 2 nats a letter, whatever is learnt. A model is trained with windows of different lengths.

floor = np.log(2) * 6 / 14  # 6 letters of every 14 characters are random
train, test = ids[:7000], ids[7000:]
for k in (2, 4, 8, 16, 32):
    model = crnn.LanguageModel(vocab, "lstm", hidden_size=48, seed=1)
    model.fit(train, epochs=30, batch_size=8, bptt=k, patience=None, progress=False)
    print(f"bptt={k:2}: {model.evaluate(test).nats:.3f} nats a character; {floor:.3f} would be perfect")

# %%
# Windows that are shorter than the word cannot teach what to remember for 7 steps, although the state that is carried
# could hold it. ``bptt`` should be at least as long as what is to be learnt; more costs memory, not computation.
