# SPDX-License-Identifier: MIT
"""lengths: sequences of different lengths in one batch, forward and backward; batches/s.

LSTM, T 100, B 32, D 64, H 128, lengths uniform in 1..T, unsorted. crnn gets the lengths and skips the padding; the same
batch with all sequences T long is measured too. PyTorch packs the sequences and pads the outputs again, or reads the
padded batch, which gives the same gradients because the padded outputs have no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, Missing, race, unavailable
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.layers import torch_layers

Array = NDArray[Any]
Run = Callable[[], tuple[Array, Array, Array]]  # y, dx and dW_hh, in crnn's layout

STEPS, BATCH, INPUTS, HIDDEN = 100, 32, 64, 128
ALL_LONG, PACKED, PADDED = "crnn, all T long", "torch, packed", "torch, padded"


def measure(setting: Setting) -> dict[str, Figure]:
    """Figures of crnn with and without lengths, and of PyTorch with packed and padded sequences."""
    import crnn

    rng, threads = np.random.default_rng(0), setting.threads
    net = crnn.RNN(INPUTS, HIDDEN, cell="lstm", seed=0)
    lengths = rng.integers(1, STEPS, BATCH, endpoint=True)
    x = rng.standard_normal((STEPS, BATCH, INPUTS), np.float32)
    dy = rng.standard_normal((STEPS, BATCH, HIDDEN), np.float32)
    dy[np.arange(STEPS)[:, None] >= lengths] = 0  # the padding has no loss
    ours = crnn_pass(net, x, dy, lengths, threads)
    expected = [array.copy() for array in ours()]
    contenders: dict[str, Contender | Missing] = {
        OURS: Contender(ours, 1, f"{lengths.sum() / (STEPS * BATCH):.0%} of the steps"),
        ALL_LONG: Contender(crnn_pass(net, x, dy, None, threads), 1),
    }
    for name, packed in ((PACKED, True), (PADDED, False)):
        absent = unavailable("torch")
        if absent is None:
            run = torch_pass(net.params, x, dy, lengths, threads, packed)
            for theirs, expected_array in zip(run(), expected, strict=True):
                require_close(name, theirs, expected_array)
        contenders[name] = absent or Contender(run, 1)
    return race(contenders, setting.effort)


def crnn_pass(net: Any, x: Array, dy: Array, lengths: Array | None, threads: int) -> Run:
    """A forward and backward pass in crnn, which returns y, dx and dW_hh."""
    tape: Any = None

    def run() -> tuple[Array, Array, Array]:
        nonlocal tape
        net.flat_grads.fill(0)
        y, _, tape = net.forward(x, lengths=lengths, threads=threads, tape=tape)
        dx, _ = net.backward(tape, dy, threads=threads)
        return y, dx, net.grads["layer0.W_hh"]

    return run


def torch_pass(params: Any, x: Array, dy: Array, lengths: Array, threads: int, packed: bool) -> Run:
    """A forward and backward pass in PyTorch, which returns y, dx and dW_hh."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(threads)
    net = torch_layers(params, "lstm")
    theirs, gradient = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
    counts = torch.from_numpy(lengths)
    mask = torch.from_numpy(np.arange(STEPS)[:, None] < lengths)[:, :, None]

    def run() -> tuple[Array, Array, Array]:
        net.zero_grad(set_to_none=True)
        theirs.grad = None
        if packed:
            y, _ = net(pack_padded_sequence(theirs, counts, enforce_sorted=False))
            y, _ = pad_packed_sequence(y, total_length=STEPS)
        else:
            y = net(theirs)[0] * mask
        y.backward(gradient)
        assert theirs.grad is not None
        return y.detach().numpy(), theirs.grad.numpy(), net.weight_hh_l0.grad.numpy().T

    return run


ROWS = [
    Row(
        "lengths",
        "batches/s",
        measure,
        all_cores=all_cores,
        goals={ALL_LONG: 1 / 0.65, PACKED: 5.0},  # half the steps, at 0.65 of the time at most
        quick=not all_cores,
    )
    for all_cores in (False, True)
]
