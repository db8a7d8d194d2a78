# SPDX-License-Identifier: MIT
"""
Lesson 2: gradients fade or explode
===================================

To learn that an early input matters for a late output, the gradient must travel back over all steps between
them. If only the last step has a loss, each step back multiplies it by the slopes of tanh and by the
recurrent weights::

    dh_{t-1} = ( dh_t * (1 - h_t*h_t) ) W_hh^T

What is left after T steps is a product of T - 1 such factors. This lesson measures it, for a tanh network and
then for an LSTM and a GRU.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

T = 80
x = np.random.default_rng(0).uniform(-1, 1, (T, 1, 8))  # (T, B, D)

# %%
# The size of W_hh decides
# ------------------------
# The effect depends on the spectral radius of W_hh, its largest eigenvalue in absolute value. Here W_hh is a
# random orthogonal matrix, which preserves lengths, times 0.5, 1.0 or 1.5. ``crnn.gradient_flow`` returns the
# norm of the gradient at every step.
#
# Solid lines: inputs so tiny that tanh stays where its slope is 1. Then only the matrix counts, and the norm
# changes by exactly the radius at each step. Dashed lines: ordinary inputs. The slopes are below 1 there, so
# gradients fade more and explode less.

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for radius, colour in ((1.5, "tab:red"), (1.0, "black"), (0.5, "tab:blue")):
    net = crnn.RNN(8, 32, cell="tanh", dtype="float64", recurrent_init=f"{radius}*orthogonal", seed=0)
    for size, style in ((1e-20, "-"), (0.5, "--")):
        norms = crnn.gradient_flow(net, size * x).norms[0]
        label = f"radius {radius}, inputs {size:g}"
        ax.semilogy(range(1, T + 1), norms / norms[-1], style, color=colour, label=label)
ax.set(xlabel="step t", ylabel="|dL/dh_t| / |dL/dh_T|", title="Norm of the gradient at each step, relative to the last")
ax.legend(fontsize=8)
plt.show()

# %%
# With radius 0.5 a gradient of 10^-24 of the last one reaches the first step: nothing can be learnt from
# there. With 1.5 it would be 10^14 times as large, and one update would destroy the weights. That is why
# training limits the norm of the gradient (``clip_norm``), and why recurrent weights start orthogonal, with
# radius 1.

# %%
# Gates
# -----
# LSTM and GRU update their memory by addition: c = f * c + i * g. Along this path the gradient is multiplied
# by the forget gate f, not by a matrix. If f is near 1, it survives. The bias of the forget gate decides
# where it starts.

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
cells = [("tanh", {}), ("gru", {}), *[("lstm", {"forget_bias": bias}) for bias in (0.0, 1.0, 4.0)]]
for cell, options in cells:
    net = crnn.RNN(8, 32, cell=cell, dtype="float64", recurrent_init="0.5*orthogonal", **options)
    flow = crnn.gradient_flow(net, 0.5 * x)
    label = cell + "".join(f", {name} {value:g}" for name, value in options.items())
    ax.semilogy(range(1, T + 1), flow.norms[0] / flow.norms[0][-1], label=f"{label}: {flow.rate[0]:.2f} per step")
ax.set(xlabel="step t", ylabel="|dL/dh_t| / |dL/dh_T|", title="Recurrent weights of radius 0.5")
ax.legend(fontsize=8)
plt.show()

# %%
# A real task: remember the first input
# -------------------------------------
# The class of a sequence is the sign of its first number; 40 numbers of noise follow, and the network is
# judged at the end. It can learn the task only if the gradient reaches the first step.

rng = np.random.default_rng(1)
X = rng.normal(size=(600, 41, 1))
y = (X[:, 0, 0] > 0).astype(int)
for cell in ("tanh", "gru", "lstm"):
    model = crnn.SequenceClassifier(
        hidden_size=16, cell=cell, pooling="last", recurrent_init="0.5*orthogonal", forget_bias=4.0, seed=0
    )
    model.fit(X[:400], y[:400], max_updates=600, valid=None)
    print(f"{cell:5} {model.evaluate(X[400:], y[400:]).accuracy:.2f} correct; chance is 0.50")
