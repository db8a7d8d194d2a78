# SPDX-License-Identifier: MIT
"""What the tests of conversions to and from PyTorch share: small networks, states, and state dictionaries."""

import numpy as np
import pytest
from model_tools import stir

import crnn

D, H, T, B = 5, 7, 6, 3
LENGTHS = [4, 6, 1]
GATES = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}
CELLS = list(GATES)
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}  # of an array's largest element

cells = pytest.mark.parametrize("cell", CELLS)
layers = pytest.mark.parametrize("L", [1, 3])
directions = pytest.mark.parametrize("bidirectional", [False, True])


def agree(got, expected):
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 0
    assert np.abs(got - expected).max() / scale <= TOLERANCE[got.dtype.name]


def network(cell="lstm", L=2, **options):
    net = crnn.RNN(D, H, L, cell, **{"seed": 3} | options)
    stir(net.flat_params)
    return net


def state_like(rng, cell, rows, dtype):
    """A state of ``rows`` layers and directions; of an LSTM two that differ."""
    h, c = (rng.normal(size=(rows, B, H)).astype(dtype) for _ in range(2))
    return (h, c) if cell == "lstm" else h


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def torch_tensors(rng, cell="lstm", L=2, bidirectional=False, bias=True, dtype="float32", prefix=""):
    """A state dictionary as PyTorch makes it, both biases at work."""
    rows = GATES[cell] * H
    tensors = {}
    for layer in range(L):
        for suffix in ("", "_reverse")[: 1 + bidirectional]:
            below = H * (1 + bidirectional) if layer else D
            shapes = {"weight_ih": (rows, below), "weight_hh": (rows, H)}
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {}
            for name, shape in shapes.items():
                tensors[f"{prefix}{name}_l{layer}{suffix}"] = rng.uniform(-0.6, 0.6, shape).astype(dtype)
    return tensors


def nonlinearity(cell):
    return cell if cell == "relu" else None


def rename(old, new):
    return lambda tensors: tensors.update({new: tensors.pop(old)})


def put(name, make):
    return lambda tensors: tensors.update({name: make(tensors.get(name))})


WRONG = {
    "nothing": (dict.clear, "expected a tensor weight_ih_l0, perhaps after a prefix, found none among no tensors"),
    "no recurrent module": (
        lambda tensors: (tensors.clear(), tensors.update(fc=1)),
        "expected a tensor weight_ih_l0, perhaps after a prefix, found none among 'fc'",
    ),
    "a projection": (
        put("weight_hr_l0", lambda _: np.ones((3, H), np.float32)),
        "got 'weight_hr_l0' of a projection (proj_size)",
    ),
    "weight norm": (rename("weight_hh_l1", "weight_hh_l1_v"), "no other, got 'weight_hh_l1_v'"),
    "a leading zero": (rename("weight_hh_l1", "weight_hh_l01"), "no other, got 'weight_hh_l01'"),
    "a foreign digit": (rename("weight_hh_l1", "weight_hh_l\u0661"), "no other, got 'weight_hh_l\u0661'"),
    "a very high layer": (rename("weight_hh_l1", "weight_hh_l" + "9" * 5000), "no other, got 'weight_hh_l999"),
    "a gap": (
        lambda tensors: [rename(name, name.replace("l1", "l2"))(tensors) for name in list(tensors) if "l1" in name],
        "expected layers numbered without a gap, got 2 up to number 2",
    ),
    "no recurrent matrix": (
        lambda tensors: tensors.pop("weight_hh_l0"),
        "weight_ih_l0, weight_hh_l0: expected two matrices, neither empty, got shapes {'weight_ih_l0': (28, 5)}",
    ),
    "a vector": (put("weight_hh_l0", np.ravel), "expected two matrices, neither empty"),
    "no units": (put("weight_hh_l0", lambda tensor: tensor[:, :0]), "expected two matrices, neither empty"),
    "no inputs": (put("weight_ih_l0", lambda tensor: tensor[:, :0]), "expected two matrices, neither empty"),
    "two gates": (
        put("weight_hh_l0", lambda tensor: tensor[: 2 * H]),
        "weight_hh_l0: expected (H, H), (3H, H) of a GRU or (4H, H) of an LSTM, got (14, 7)",
    ),
    "half a gate": (put("weight_hh_l0", lambda tensor: tensor[:-1]), "of an LSTM, got (27, 7)"),
    "a layer's matrix is missing": (
        lambda tensors: tensors.pop("weight_ih_l1"),
        "weight_ih_l1: expected a tensor of shape (28, 7), found none",
    ),
    "a bias is missing": (
        lambda tensors: tensors.pop("bias_hh_l0"),
        "bias_hh_l0: expected a tensor of shape (28,), found none",
    ),
    "half a direction": (
        put("weight_hh_l0_reverse", lambda _: np.ones((4 * H, H), np.float32)),
        "weight_ih_l0_reverse: expected a tensor of shape (28, 5), found none",
    ),
    "a matrix the other way round": (put("weight_ih_l1", np.transpose), "weight_ih_l1: expected shape (28, 7), got (7"),
    "a bias for each unit": (put("bias_ih_l1", lambda tensor: tensor[:H]), "bias_ih_l1: expected shape (28,), got (7,"),
    "integers": (
        put("bias_ih_l1", lambda tensor: tensor.astype(np.int64)),
        "bias_ih_l1: expected float32, float64, float16 or bfloat16, got int64",
    ),
    "two precisions": (
        put("bias_ih_l1", lambda tensor: tensor.astype(np.float64)),
        "expected tensors of one dtype, got float32 and float64",
    ),
}  # fmt: skip
