# SPDX-License-Identifier: MIT
"""The lesson: a recurrent network, three steps forward and three steps back, by hand and then by crnn.

    python examples/three_steps.py                  # everything, in a few seconds
    python examples/three_steps.py --plot flow.png  # and a picture of part 2 (needs matplotlib: the extra `plot`)

Part 1 computes the equations in plain NumPy, prints every intermediate value with its shape, and compares the results
with crnn's. Part 2 propagates gradients back over 5, 20 and 80 steps and shows them fade and explode. Part 3 measures
how time grows with steps and units. Only the times of part 3 differ from run to run.
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn

Norms = dict[tuple[float, int], NDArray[np.float64]]  # of the gradient at every step, by (radius, T)

LENGTHS = (5, 20, 80)
RADII = (0.5, 1.0, 1.5)
TINY, ORDINARY = 1e-20, 0.5  # sizes of the inputs in part 2


def title(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}")


def show(what: str, value: Any) -> Any:
    """Print a label, the shape and the numbers, a matrix row by row. Returns the value."""
    numbers = np.round(value, 5) + 0.0  # + 0.0 turns -0 into 0
    text = np.array2string(numbers, floatmode="fixed", precision=5, sign=" ", prefix=" " * 48, max_line_width=110)
    print(f"{what:<40} {shape_of(value):<6} {text}")
    return value


def shape_of(value: Any) -> str:
    return "x".join(map(str, np.shape(value))) or "number"


# ---- part 1: three steps by hand ---------------------------------------------------------------------------


def three_steps() -> None:
    title("1. Three steps by hand")
    print("""
The network reads one character at each step and predicts the next one:

    h_t = tanh( x_t W_xh + h_{t-1} W_hh + b_h )     the hidden state, from the input and the previous state
    y_t = h_t W_hy + b_y                            a score (logit) for each character
    p_t = softmax( y_t )                            the scores as probabilities
    loss = mean over t of -log p_t[target_t]        cross-entropy: small if the right character was expected

The text is "hell", the alphabet e h l o: the network reads h, e, l and should predict e, l, l. Each character is a
one-hot row. There are V = 4 characters and H = 3 hidden units; h_0 is the state after some earlier text.
""")
    x_1, x_2, x_3 = np.array([0.0, 1, 0, 0]), np.array([1.0, 0, 0, 0]), np.array([0.0, 0, 1, 0])  # h, e, l
    target_1, target_2, target_3 = np.array([1.0, 0, 0, 0]), np.array([0.0, 0, 1, 0]), np.array([0.0, 0, 1, 0])
    h_0 = np.array([0.4, -0.3, 0.6])
    W_xh = np.array([[0.5, -0.4, 0.1], [-0.2, 0.7, 0.3], [0.8, 0.2, -0.6], [-0.3, -0.5, 0.4]])
    W_hh = np.array([[0.6, -0.5, 0.2], [0.3, 0.7, -0.4], [-0.2, 0.4, 0.8]])
    b_h = np.array([0.1, -0.1, 0.2])
    W_hy = np.array([[0.9, -0.3, 0.4, -0.7], [-0.5, 0.6, 0.8, 0.2], [0.3, -0.8, 0.5, 0.1]])
    b_y = np.array([0.1, 0.0, -0.1, 0.2])
    show("h_0", h_0)
    weights = {"layer0.W_xh": W_xh, "layer0.W_hh": W_hh, "layer0.b_h": b_h, "W_hy": W_hy, "b_y": b_y}  # crnn's names
    for name, value in weights.items():
        show(name.removeprefix("layer0."), value)

    print("\nForward. Every step computes the same lines; only h is passed from one step to the next.\n")
    show("x_1: it reads h", x_1)
    a_1 = show("a_1 = x_1 W_xh + h_0 W_hh + b_h", x_1 @ W_xh + h_0 @ W_hh + b_h)
    h_1 = show("h_1 = tanh(a_1)", np.tanh(a_1))
    y_1 = show("y_1 = h_1 W_hy + b_y", h_1 @ W_hy + b_y)
    p_1 = show("p_1 = softmax(y_1)", np.exp(y_1) / np.exp(y_1).sum())
    loss_1 = show("loss_1 = -log p_1[e]", -np.log(p_1 @ target_1))
    print()
    show("x_2: it reads e", x_2)
    a_2 = show("a_2 = x_2 W_xh + h_1 W_hh + b_h", x_2 @ W_xh + h_1 @ W_hh + b_h)
    h_2 = show("h_2 = tanh(a_2)", np.tanh(a_2))
    y_2 = show("y_2 = h_2 W_hy + b_y", h_2 @ W_hy + b_y)
    p_2 = show("p_2 = softmax(y_2)", np.exp(y_2) / np.exp(y_2).sum())
    loss_2 = show("loss_2 = -log p_2[l]", -np.log(p_2 @ target_2))
    print()
    show("x_3: it reads l", x_3)
    a_3 = show("a_3 = x_3 W_xh + h_2 W_hh + b_h", x_3 @ W_xh + h_2 @ W_hh + b_h)
    h_3 = show("h_3 = tanh(a_3)", np.tanh(a_3))
    y_3 = show("y_3 = h_3 W_hy + b_y", h_3 @ W_hy + b_y)
    p_3 = show("p_3 = softmax(y_3)", np.exp(y_3) / np.exp(y_3).sum())
    loss_3 = show("loss_3 = -log p_3[l]", -np.log(p_3 @ target_3))
    print()
    loss = show("loss = (loss_1 + loss_2 + loss_3) / 3", (loss_1 + loss_2 + loss_3) / 3)

    print("""
Backward. A name with d in front is the gradient of the loss with respect to it, of the same shape. The last step
comes first: h_2 is used twice, for y_2 and for a_3, so dh_2 has two terms, and the second is known only after step 3.
The derivative of tanh is 1 - h*h. The gradient of -log softmax(y)[target] is p - target; the mean divides it by 3.
""")
    dy_3 = show("dy_3 = (p_3 - target_3) / 3", (p_3 - target_3) / 3)
    dh_3 = show("dh_3 = dy_3 W_hy^T", dy_3 @ W_hy.T)
    da_3 = show("da_3 = dh_3 * (1 - h_3*h_3)", dh_3 * (1 - h_3 * h_3))
    print()
    dy_2 = show("dy_2 = (p_2 - target_2) / 3", (p_2 - target_2) / 3)
    dh_2 = show("dh_2 = dy_2 W_hy^T + da_3 W_hh^T", dy_2 @ W_hy.T + da_3 @ W_hh.T)
    da_2 = show("da_2 = dh_2 * (1 - h_2*h_2)", dh_2 * (1 - h_2 * h_2))
    print()
    dy_1 = show("dy_1 = (p_1 - target_1) / 3", (p_1 - target_1) / 3)
    dh_1 = show("dh_1 = dy_1 W_hy^T + da_2 W_hh^T", dy_1 @ W_hy.T + da_2 @ W_hh.T)
    da_1 = show("da_1 = dh_1 * (1 - h_1*h_1)", dh_1 * (1 - h_1 * h_1))
    print()
    dh_0 = show("dh_0 = da_1 W_hh^T", da_1 @ W_hh.T)

    print("""
All steps share the same weights, so the gradient of a weight is the sum of the contributions of all steps. Step t
used W_hh in a_t = ... + h_{t-1} W_hh, so it contributes the outer product h_{t-1}^T da_t:
""")
    from_1 = show("from step 1: h_0^T da_1", np.outer(h_0, da_1))
    from_2 = show("from step 2: h_1^T da_2", np.outer(h_1, da_2))
    from_3 = show("from step 3: h_2^T da_3", np.outer(h_2, da_3))
    dW_hh = show("dW_hh = their sum", from_1 + from_2 + from_3)
    print("""
How much does each step contribute? The norm is the length of a contribution. The share is its length in the direction
of the sum, <part, dW_hh> / <dW_hh, dW_hh>. Shares add up to 100 %; norms do not, because directions differ.
""")
    print(f"{'':>12} {'norm':>10} {'share':>10}")
    for name, part in (("step 1", from_1), ("step 2", from_2), ("step 3", from_3), ("dW_hh", dW_hh)):
        print(f"{name:>12} {np.linalg.norm(part):10.6f} {(part * dW_hh).sum() / (dW_hh * dW_hh).sum():10.2%}")

    print("""
The other parameters are used once per step too, so their gradients are also sums over the steps. Each row of dW_xh
belongs to a character: it is the da of the step that read the character, and zero for o, which was never read.
""")
    dW_xh = show("dW_xh = sum of x_t^T da_t", np.outer(x_1, da_1) + np.outer(x_2, da_2) + np.outer(x_3, da_3))
    db_h = show("db_h  = sum of da_t", da_1 + da_2 + da_3)
    dW_hy = show("dW_hy = sum of h_t^T dy_t", np.outer(h_1, dy_1) + np.outer(h_2, dy_2) + np.outer(h_3, dy_3))
    db_y = show("db_y  = sum of dy_t", dy_1 + dy_2 + dy_3)

    title("The same with crnn, digit by digit")
    model = crnn.LanguageModel(crnn.Vocab.from_text("hello"), "tanh", hidden_size=3, dtype="float64")
    for name, value in weights.items():
        model.params[name][...] = value
    ids = model.vocab.encode("hell")[:, None]  # time-major: (T + 1, B), one row in the batch
    state = h_0[None, None, :]  # (L, B, H), one layer
    logits, _ = model.forward(ids[:-1], state)
    total, count, _ = model.loss_and_gradients(ids[:-1], ids[1:], state)
    # The network without its head, on one-hot rows: from the gradient of its outputs it computes that of h_0 too.
    net = crnn.RNN(input_size=4, hidden_size=3, dtype="float64")
    net.flat_params[...] = model.flat_params[: net.flat_params.size]
    h, _, tape = net.forward(np.stack([x_1, x_2, x_3])[:, None], state)
    _, dstate = net.backward(tape, np.stack([dy_1 @ W_hy.T, dy_2 @ W_hy.T, dy_3 @ W_hy.T])[:, None])
    pairs = [
        ("loss", loss, total / count),
        ("h_1, h_2, h_3", np.stack([h_1, h_2, h_3]), h[:, 0]),
        ("y_1, y_2, y_3", np.stack([y_1, y_2, y_3]), logits[:, 0]),
        ("dW_xh", dW_xh, model.grads["layer0.W_xh"]),
        ("dW_hh", dW_hh, model.grads["layer0.W_hh"]),
        ("db_h", db_h, model.grads["layer0.b_h"]),
        ("dW_hy", dW_hy, model.grads["W_hy"]),
        ("db_y", db_y, model.grads["b_y"]),
        ("dh_0", dh_0, dstate[0, 0]),
    ]
    print("\nThe nine elements of dW_hh, then the largest difference in every array:\n")
    print(f"{'':>12} {'by hand':>22} {'crnn':>22} {'difference':>12}")
    for (i, j), mine in np.ndenumerate(dW_hh):
        theirs = model.grads["layer0.W_hh"][i, j]
        print(f"{f'dW_hh[{i},{j}]':>12} {mine:22.17f} {theirs:22.17f} {theirs - mine:12.1e}")
    print()
    differences = [float(np.abs(theirs - mine).max()) for _, mine, theirs in pairs]
    for (name, mine, _), difference in zip(pairs, differences, strict=True):
        print(f"{name:>16} {shape_of(mine):<6} largest difference {difference:.1e}")
    print(f"\nLargest difference of all: {max(differences):.1e}")
    print("""
Two neighbouring float64 numbers just above 1 differ by 2.2e-16, so the differences are rounding errors: crnn uses
fused multiply-adds, which round once, and has its own exp and tanh. Central differences are a third check: the slope
of the loss from its values a little to both sides of every weight and of h_0 (crnn.gradient_check):
""")
    check = crnn.gradient_check(model, (ids[:-1], ids[1:]), state=state)
    print(f"Largest relative error against the slopes: {check.largest:.1e} ({check.checked} numbers)")


# ---- part 2: fade or explode -------------------------------------------------------------------------------


def fade_or_explode(plot: str | None) -> None:
    title("2. Gradients fade or explode")
    print("""
If only the last step has a loss, each step back multiplies the gradient by the slopes 1 - h*h and by W_hh^T:

    dh_{t-1} = ( dh_t * (1 - h_t*h_t) ) W_hh^T

The effect of T - 1 such factors depends on the spectral radius of W_hh, its largest |eigenvalue|. Here W_hh (H = 32) is
a random orthogonal matrix, which has radius 1 and preserves lengths, times 0.5, 1.0 or 1.5. The table shows
|dh_1| / |dh_T|: the norm of the gradient at the first step relative to the last, from crnn.gradient_flow.""")
    norms = {size: flow_table(name, size) for name, size in (("A. Tiny", TINY), ("B. Ordinary", ORDINARY))}
    print("""
A. Inputs this small keep tanh near 0, where its slope is 1, so only the matrix matters: the ratio is radius^(T-1).
   With 5 steps all three networks could learn. With 80 steps the first cannot (a gradient of 10^-24 changes
   nothing), and one update would destroy the weights of the third (10^14). clip_norm limits the norm of the gradient
   for this reason.
B. Ordinary inputs move h away from 0, where the slope is below 1. So gradients fade with radius 1.0 as well, though
   slowly, and with radius 1.5 they grow much less, because the slopes nearly cancel the 1.5. Orthogonal weights of
   radius 1 (crnn's default) are a good start, but not a cure. LSTM and GRU cells were invented for this: they update
   their memory by addition, not through W_hh and tanh.""")
    if plot:
        draw(norms, plot)
        print(f"\nThe picture is in {plot}: tiny inputs solid, ordinary ones dashed.")
    else:
        print("\nFor a picture run this again with --plot flow.png (needs matplotlib).")


def flow_table(name: str, size: float) -> Norms:
    """Print ratios of gradient norms. Returns the norms at every step, by radius and length."""
    x = size * np.random.default_rng(0).uniform(-1, 1, (max(LENGTHS), 1, 8))
    norms: Norms = {}
    print(f"\n{name} inputs, within +-{size:g}\n")
    print(f"{'radius':>8}" + "".join(f"{f'T = {T}':>12}" for T in LENGTHS) + f"{'per step':>12}{'mean 1-h*h':>12}")
    for radius in RADII:
        net = crnn.RNN(8, 32, dtype="float64", recurrent_init=f"{radius}*orthogonal", seed=0)
        for T in LENGTHS:
            flow = crnn.gradient_flow(net, x[:T])
            norms[radius, T] = flow.norms[0]
        left = "".join(f"{norms[radius, T][0] / norms[radius, T][-1]:12.2e}" for T in LENGTHS)
        slope = 1 - np.mean(net(x)[0] ** 2)
        print(f"{flow.spectral_radius[0]:8.3f}{left}{flow.rate[0]:12.3f}{slope:12.3f}")
    return norms


def draw(norms: dict[float, Norms], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, len(LENGTHS), sharey=True)
    for ax, T in zip(panels, LENGTHS, strict=True):
        for radius, colour in zip(reversed(RADII), ("tab:red", "black", "tab:blue"), strict=True):
            for size, style in ((TINY, "-"), (ORDINARY, "--")):
                values = norms[size][radius, T]
                label = f"radius {radius}" if size == TINY else None
                ax.semilogy(np.arange(1, T + 1), values / values[-1], style, color=colour, lw=2, label=label)
        ax.set_title(f"T = {T}")
        ax.set_xlabel("time step t")
        ax.grid(alpha=0.3)
    panels[0].set_ylabel(r"$|\partial L/\partial h_t|\;/\;|\partial L/\partial h_T|$")
    panels[0].legend(title="solid: tiny inputs\ndashed: ordinary ones", loc="lower left")
    figure.suptitle("Norm of the gradient at each step, relative to the last step")
    figure.savefig(path, dpi=120)


# ---- part 3: what it costs ---------------------------------------------------------------------------------


def cost() -> None:
    title("3. What it costs: O(T H^2)")
    print("""
One step multiplies a row of h by W_hh: H*H multiplications. Forward does this T times, backward 2 T times: for dh and
for dW_hh. So twice the steps should take twice the time, and twice the units four times the time. The inputs are
character ids (a row of W_xh each, no product), batch 16, float32, one thread; medians in milliseconds.""")
    for expected, settings in (
        (2, [(T, 128) for T in (4, 8, 16, 32, 64, 128)]),
        (4, [(32, H) for H in (16, 32, 64, 128, 256, 512)]),
    ):
        print(f"\n{'T':>5}{'H':>5}{'forward':>11}{'ratio':>7}{'backward':>11}{'ratio':>7}     (expected {expected})")
        before: list[float] = []
        for T, H in settings:
            now = measure(T, H)
            ratios = [f"{new / old:.2f}" for new, old in zip(now, before, strict=True)] if before else ["-", "-"]
            print(f"{T:5}{H:5}{now[0] * 1e3:11.3f}{ratios[0]:>7}{now[1] * 1e3:11.3f}{ratios[1]:>7}")
            before = now
    print("""
At small sizes time grows by less. A call has costs that do not depend on T (Python, packing W_hh for the kernels), and
a step has costs that grow with H, not H*H: tanh, reading ids, writing h. At H = 16 they are most of the work. At large
H the product dominates, and the ratio approaches 4. More than 4 means that some array no longer fits a cache, or that
the machine is busy. With CRNN_ISA=generic, plain C, the product is so slow that it always dominates, and the ratios
are closer to 2 and 4.""")


def measure(T: int, H: int) -> list[float]:
    """Median seconds of a forward and of a backward pass: of 25, or of fewer if they are slow."""
    net = crnn.RNN(input_size=64, hidden_size=H, seed=0)
    ids = np.random.default_rng(0).integers(0, 64, (T, 16)).astype(np.int32)
    dy = np.full((T, 16, H), 1 / (16 * T), np.float32)
    _, _, tape = net.forward(ids)
    net.backward(tape, dy)  # the first calls touch fresh memory
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + 0.2
    while len(times) < 3 or (len(times) < 25 and time.perf_counter() < end):
        start = time.perf_counter()
        net.forward(ids, tape=tape)
        middle = time.perf_counter()
        net.backward(tape, dy)
        times.append((middle - start, time.perf_counter() - middle))
    return [float(median) for median in np.median(times, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description="A recurrent network by hand and by crnn: the lesson.")
    parser.add_argument("--plot", metavar="FILE.png", help="draw part 2 into this file (needs matplotlib)")
    arguments = parser.parse_args()
    if arguments.plot and find_spec("matplotlib") is None:
        parser.error('--plot needs matplotlib: pip install "crnn[plot]"')
    three_steps()
    fade_or_explode(arguments.plot)
    cost()


if __name__ == "__main__":
    main()
