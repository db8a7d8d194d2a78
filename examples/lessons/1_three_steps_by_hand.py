# SPDX-License-Identifier: MIT
"""
Lesson 1: three steps by hand
=============================

A recurrent network reads a sequence one step at a time and keeps a hidden state. This lesson computes three
steps forward and three steps back with nothing but NumPy, looks at every number, and compares the result with
crnn.

The network reads one character at each step and predicts the next one::

    h_t = tanh( x_t W_xh + h_{t-1} W_hh + b_h )     the hidden state, from the input and the previous state
    y_t = h_t W_hy + b_y                            a score (logit) for each character
    p_t = softmax( y_t )                            the scores as probabilities
    loss = mean over t of -log p_t[target_t]        cross-entropy: small if the right character was expected

The text is "hell", the alphabet is e, h, l, o. The network reads h, e, l and should predict e, l, l. There
are V = 4 characters and H = 3 hidden units.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

np.set_printoptions(precision=4, suppress=True)

one_hot = dict(zip("ehlo", np.eye(4), strict=True))  # a character is a row with a single 1
x_1, x_2, x_3 = (one_hot[character] for character in "hel")
target_1, target_2, target_3 = (one_hot[character] for character in "ell")

h_0 = np.array([0.4, -0.3, 0.6])  # the state after some earlier text
W_xh = np.array([[0.5, -0.4, 0.1], [-0.2, 0.7, 0.3], [0.8, 0.2, -0.6], [-0.3, -0.5, 0.4]])
W_hh = np.array([[0.6, -0.5, 0.2], [0.3, 0.7, -0.4], [-0.2, 0.4, 0.8]])
b_h = np.array([0.1, -0.1, 0.2])
W_hy = np.array([[0.9, -0.3, 0.4, -0.7], [-0.5, 0.6, 0.8, 0.2], [0.3, -0.8, 0.5, 0.1]])
b_y = np.array([0.1, 0.0, -0.1, 0.2])


def softmax(y):
    return np.exp(y) / np.exp(y).sum()


# %%
# Forward
# -------
# Every step computes the same lines with the same weights. Only h is passed from one step to the next.

h_1 = np.tanh(x_1 @ W_xh + h_0 @ W_hh + b_h)
h_2 = np.tanh(x_2 @ W_xh + h_1 @ W_hh + b_h)
h_3 = np.tanh(x_3 @ W_xh + h_2 @ W_hh + b_h)
p_1, p_2, p_3 = [softmax(state @ W_hy + b_y) for state in (h_1, h_2, h_3)]
losses = -np.log([p_1 @ target_1, p_2 @ target_2, p_3 @ target_3])
print("states\n", np.stack([h_1, h_2, h_3]))
print("probabilities of e, h, l, o\n", np.stack([p_1, p_2, p_3]))
print("losses", losses, "mean", losses.mean().round(4))

# %%
# Backward
# --------
# A name with d in front is the gradient of the loss with respect to it, of the same shape. The last step
# comes first: h_2 is used twice, for y_2 and, through W_hh, for step 3. So dh_2 has two terms, and the second
# is known only after step 3. The derivative of tanh is 1 - h*h. The gradient of -log softmax(y)[target] is p
# minus the target.

dy_3 = (p_3 - target_3) / 3
da_3 = (dy_3 @ W_hy.T) * (1 - h_3 * h_3)
dy_2 = (p_2 - target_2) / 3
da_2 = (dy_2 @ W_hy.T + da_3 @ W_hh.T) * (1 - h_2 * h_2)
dy_1 = (p_1 - target_1) / 3
da_1 = (dy_1 @ W_hy.T + da_2 @ W_hh.T) * (1 - h_1 * h_1)

# %%
# All steps share the same weights, so the gradient of a weight is the sum of the contributions of all steps.
# Step t used W_hh in h_{t-1} W_hh, so it contributes the outer product of h_{t-1} and da_t.

parts = [np.outer(h_0, da_1), np.outer(h_1, da_2), np.outer(h_2, da_3)]
dW_hh = sum(parts)
figure, panels = plt.subplots(1, 4, figsize=(9, 2.4), layout="constrained")
for ax, part, name in zip(panels, [*parts, dW_hh], ["from step 1", "+ step 2", "+ step 3", "= dW_hh"], strict=True):
    image = ax.imshow(part, cmap="RdBu", vmin=-0.6, vmax=0.6)
    ax.set(title=name, xticks=[], yticks=[])
    for (i, j), value in np.ndenumerate(part):
        ax.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8)
figure.colorbar(image, ax=panels)
plt.show()

# %%
# The same with crnn
# ------------------
# A language model with these weights, on the same text. Its gradients agree to the last digits of float64.

model = crnn.LanguageModel(crnn.Vocab.from_text("hello"), "tanh", hidden_size=3, dtype="float64")
weights = {"layer0.W_xh": W_xh, "layer0.W_hh": W_hh, "layer0.b_h": b_h, "W_hy": W_hy, "b_y": b_y}
for name, value in weights.items():
    model.params[name][...] = value
ids = model.vocab.encode("hell")[:, None]  # (T + 1, B): time first, then the sequences of the batch
total, count, _ = model.loss_and_gradients(ids[:-1], ids[1:], h_0[None, None])
print(f"loss by hand {losses.mean():.15f}, by crnn {total / count:.15f}")
difference = np.abs(model.grads["layer0.W_hh"] - dW_hh).max()
print(f"largest difference in dW_hh: {difference:.0e}")
assert difference < 1e-15
