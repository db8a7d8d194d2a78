# SPDX-License-Identifier: MIT
"""
A guitar amplifier, learnt sample by sample
===========================================

An amplifier distorts, and it remembers: loud notes shift the bias of its tubes, and the notes after them
sound different. A small recurrent network can learn both from a recording of what goes in and what comes out,
and then replace the amplifier: 128 samples go in, 128 come out, hundreds of times a second. Here a made-up
circuit stands for the amplifier, and plucked strings for the guitar.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

RATE = 16_000  # samples per second
rng = np.random.default_rng(0)


def pluck(frequency, strength, seconds=0.5):
    """A plucked string (Karplus, Strong 1983): noise that goes round in a delay line and loses its edges."""
    string, out = rng.uniform(-strength, strength, int(RATE / frequency)), []
    while len(out) < seconds * RATE:
        out.extend(string)
        string = 0.497 * (string + np.roll(string, 1))
    return out[: int(seconds * RATE)]


def amplifier(dry):
    """A bias that follows the loudness, a soft clipper around it, and a loudspeaker that is slow."""
    wet, bias, cone = np.empty_like(dry), 0.0, 0.0
    for n, x in enumerate(dry):
        bias += 0.004 * (abs(x) - bias)
        cone += 0.35 * (np.tanh(5 * x - 3 * bias) + bias - cone)
        wet[n] = cone
    return wet


keys, strengths = rng.integers(0, 25, 12), rng.uniform(0.2, 1, 12)
dry = np.concatenate([pluck(110 * 2 ** (k / 12), s) for k, s in zip(keys, strengths, strict=True)])
wet = amplifier(dry)
print(f"{len(dry) / RATE:.0f} seconds, {len(dry):,} samples")

# %%
# Train
# -----
# The first 10 of 12 notes, in pieces of 1,024 samples. A piece begins with the state of silence although the
# notes were sounding, so its first 256 targets are NaN: the network hears those samples, but is not judged by
# them. Audio is in [-1, 1] and needs no scaling.

starts = range(0, 10 * RATE // 2 - 1024, 384)
X = np.stack([dry[i : i + 1024] for i in starts])  # (N, T): sequences of one variable
y = np.stack([wet[i : i + 1024] for i in starts])[:, :, None]
y[:, :256] = np.nan
model = crnn.SequenceRegressor(1, 1, hidden_size=16, cell="gru", pooling=None, scale=False, seed=0)
model.fit(X, y, valid=None, epochs=40, batch_size=16)

# %%
# Play
# ----
# The last two notes in blocks of 128 samples, as the callback of a sound card gets them. A stream keeps the
# state, and the size of the blocks does not change the result.

stream, out = model.stream(), np.empty((RATE, 1), np.float32)
sound = dry[-RATE:, None].astype(np.float32)
for start in range(0, RATE, 128):
    stream.run(sound[start : start + 128], out=out[start : start + 128])

error = ((out[:, 0] - wet[-RATE:]) ** 2).sum() / (wet[-RATE:] ** 2).sum()
print(f"energy of the error relative to the signal: {error:.4f}, {10 * np.log10(error):.0f} dB")

figure, panels = plt.subplots(2, 1, figsize=(9, 5), layout="constrained")
begin = RATE // 2  # where the last note begins
for ax, part in zip(panels, (slice(0, RATE), slice(begin, begin + 400)), strict=True):
    t = np.arange(part.start, part.stop) / RATE * 1000
    ax.plot(t, sound[part, 0], color="0.7", lw=1, label="guitar")
    ax.plot(t, wet[-RATE:][part], color="tab:blue", lw=1.5, label="amplifier")
    ax.plot(t, out[part, 0], color="tab:red", lw=1, ls="--", label="network")
panels[1].set_xlabel("milliseconds")
panels[0].legend(loc="upper right", ncols=3)
plt.show()
