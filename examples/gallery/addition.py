# SPDX-License-Identifier: MIT
"""
Addition, letter by letter
==========================

The network reads ``"47+38"`` as five characters and writes ``"85"`` as two. Nobody tells it what a digit, a
plus sign or a carry is. One network, the encoder, reads the question; a second one, the decoder, starts from
the encoder's last state and writes the answer. It is a test of memory: all that passes from the one to the
other are the numbers in that state.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

rng = np.random.default_rng(0)
pairs = [(a, b) for a in range(100) for b in range(100)]
order = rng.permutation(len(pairs))
questions = [f"{pairs[i][0]}+{pairs[i][1]}" for i in order]
answers = [str(sum(pairs[i])) for i in order]
print(*[f"{q}={a}" for q, a in zip(questions[:8], answers, strict=False)], sep="  ")

# %%
# Train on 6,000 of the 10,000 sums
# ---------------------------------
# The question is read backwards: then the last digits, which decide the first carry, are read first.

model = crnn.SequenceToSequence(
    hidden_size=96,
    cell="lstm",
    source_vocab=crnn.Vocab.from_text("0123456789+"),
    target_vocab=crnn.Vocab.from_text("0123456789"),
    reverse_source=True,
    seed=0,
)
model.fit(questions[:6000], answers[:6000], valid=None, epochs=35, batch_size=64, lr=8e-3)

# %%
# Test on the other 4,000
# -----------------------

written = model.predict(questions[6000:])
right = np.array([w == a for w, a in zip(written, answers[6000:], strict=True)])
print(f"{right.mean():.1%} of the sums that it has never seen are entirely right")
asked = zip(questions[6000:], answers[6000:], written, strict=True)
wrong = [f"{q}={w} (it is {a})" for q, a, w in asked if a != w]
print("wrong:", *wrong[:5], sep="\n    ")

# %%
# Every point is a sum a + b. Mistakes are rare and not spread evenly: they gather where few questions look
# alike.

grid = np.zeros((100, 100))
for i, ok in zip(order[6000:], right, strict=True):
    grid[pairs[i]] = 1 if ok else 2
figure, ax = plt.subplots(figsize=(6, 5.4), layout="constrained")
colours = plt.matplotlib.colors.ListedColormap(["#dddddd", "tab:blue", "tab:red"])
image = ax.imshow(grid, origin="lower", cmap=colours, vmin=-0.5, vmax=2.5, interpolation="nearest")
bar = figure.colorbar(image, ticks=[0, 1, 2], shrink=0.6)
bar.set_ticklabels(["learnt from", "never seen, right", "never seen, wrong"])
ax.set(xlabel="b", ylabel="a", title="a + b")
plt.show()
