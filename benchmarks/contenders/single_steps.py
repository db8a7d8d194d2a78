# SPDX-License-Identifier: MIT
"""A step of one layer in peers, with our weights and the state carried from step to step.

``x``: a vector (D,), or the id of a character model, for which peers get a prepared one-hot vector or look a row up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.latency import Stepper, statement
from benchmarks.base.measure import Missing
from benchmarks.contenders.inference import PEERS, Peer, Work
from benchmarks.contenders.layers import GATES, TORCH_NAMES, torch_layers

Array = NDArray[Any]
Params = Mapping[str, Array]
Input = Array | int


def _vector(params: Params, x: Input) -> Array:
    return np.eye(len(params["layer0.W_xh"]), dtype=np.float32)[x] if isinstance(x, int) else x


def torch_nn(params: Params, cell: str, x: Input, threads: int) -> Stepper:
    """`torch.nn.RNN`, `GRU` or `LSTM`, and the output layer if there is one, in inference mode."""
    import torch

    torch.set_num_threads(threads)
    net, text = torch_layers(params, cell).eval(), "y, state = net(x, state)"
    names = {"net": net, "x": torch.from_numpy(_vector(params, x))[None, None], "state": None}
    return _with_head(params, text, names)


def torch_cell(params: Params, cell: str, x: Input, threads: int) -> Stepper:
    """`torch.nn.RNNCell`, `GRUCell` or `LSTMCell`."""
    import torch

    torch.set_num_threads(threads)
    H = len(params["layer0.W_hh"])
    net: Any = getattr(torch.nn, f"{TORCH_NAMES[cell]}Cell")(len(params["layer0.W_xh"]), H).eval()
    net.load_state_dict({name.removesuffix("_l0"): w for name, w in torch_layers(params, cell).state_dict().items()})
    names = {"net": net, "x": torch.from_numpy(_vector(params, x))[None], "state": None}
    if cell == "lstm":
        return _with_head(params, "state = net(x, state); y = state[0]", names)
    return _with_head(params, "y = state = net(x, state)", names)


def _with_head(params: Params, text: str, names: dict[str, Any]) -> Stepper:
    import torch

    if "W_hy" in params:
        head = torch.nn.Linear(*params["W_hy"].shape)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(params["W_hy"].T))
            head.bias.copy_(torch.from_numpy(params["b_y"]))
        text, names = f"{text}; y = head(y)", names | {"head": head}
    return statement(text, names, context=torch.inference_mode)


def of_peers(params: Params, cell: str, x: Input, threads: int) -> dict[str, Stepper | Missing]:
    """Steps of all `PEERS`, by name."""
    work = Work(params, cell, _vector(params, x)[None, None], carried=True)

    def stepper(peer: Peer) -> Stepper:
        return statement("y = run()", {"run": peer.make(work, threads)}, tolerance=peer.tolerance)

    return {peer.name: peer.missing(cell) or stepper(peer) for peer in PEERS}


# ---- NumPy -----------------------------------------------------------------------------------------------------------


def numpy_product(params: Params, x: Input) -> Stepper:
    """All matrix products of a step as a single ``W @ v``, and nothing else."""
    parts = [params["layer0.W_hh"]] if isinstance(x, int) else [params["layer0.W_xh"], params["layer0.W_hh"]]
    W = np.ascontiguousarray(np.concatenate(parts).T)
    v = np.random.default_rng(0).standard_normal(W.shape[1], np.float32)
    stepper = statement("y = W @ v", {"W": W, "v": v})
    return Stepper(stepper.times, stepper.idle, note="no activation, no state, no head")


def numpy_cell(params: Params, cell: str, x: Input) -> Stepper:
    """The whole step, as one would write it in NumPy."""
    W_xh, W_hh, b_h = (params[f"layer0.{name}"] for name in ("W_xh", "W_hh", "b_h"))
    b_hn = params.get("layer0.b_hn", b_h)  # a GRU's
    H, head = len(W_hh), "W_hy" in params
    U = np.ascontiguousarray(W_hh.T)
    W = W_xh if isinstance(x, int) else np.ascontiguousarray(W_xh.T)  # an id selects a row
    V, b_y = (np.ascontiguousarray(params["W_hy"].T), params["b_y"]) if head else (U, b_h)
    h = c = np.zeros(H, np.float32)

    def sigmoid(a: Array) -> Array:
        s: Array = 1 / (1 + np.exp(-a))
        return s

    def step(x: Input) -> Array:
        nonlocal h, c
        a, u = (W[x] if isinstance(x, int) else W @ x) + b_h, U @ h
        if cell == "tanh":
            h = np.tanh(a + u)
        elif cell == "gru":
            gates = sigmoid(a[: 2 * H] + u[: 2 * H])
            n = np.tanh(a[2 * H :] + gates[:H] * (u[2 * H :] + b_hn))
            h = n + gates[H:] * (h - n)
        else:
            a += u
            gates = sigmoid(a[: 2 * H])
            c = gates[H:] * c + gates[:H] * np.tanh(a[2 * H : 3 * H])
            h = sigmoid(a[3 * H :]) * np.tanh(c)
        return V @ h + b_y if head else h

    return statement("y = step(x)", {"step": step, "x": x})


def weight_bytes(params: Params, cell: str, x: Input) -> int:
    """Bytes of the float32 weights that a step must read; with an id, one row of W_xh."""
    H = len(params["layer0.W_hh"])
    all_weights = sum(array.size for array in params.values())
    unread = params["layer0.W_xh"].size - GATES[cell] * H if isinstance(x, int) else 0
    return 4 * (all_weights - unread)
