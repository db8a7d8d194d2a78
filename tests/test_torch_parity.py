# SPDX-License-Identifier: MIT
"""PyTorch agrees: outputs, states and all gradients of nn.RNN, and of a linear head with cross-entropy on top."""

import warnings

import numpy as np
import pytest
from model_tools import language_model, network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch's own making
    torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # for sizes like these more only stand in each other's way

TOLERANCE = {"float32": 2e-6, "float64": 1e-10}  # of an array's largest element


def agree(got, tensor):
    expected = tensor.detach().numpy()
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    scale = np.abs(expected).max()
    assert scale > 0
    assert np.abs(got - expected).max() / scale <= TOLERANCE[got.dtype.name]


def torch_twin(net):
    """An nn.RNN with the weights of a crnn.RNN. PyTorch stores (out, in), and a second bias that stays zero."""
    twin = torch.nn.RNN(
        net.input_size, net.hidden_size, net.num_layers, nonlinearity=net.cell, dtype=getattr(torch, net.dtype)
    )
    with torch.no_grad():
        for layer in range(net.num_layers):
            for theirs, ours in TORCH_NAMES.items():
                getattr(twin, f"{theirs}_l{layer}").copy_(torch.from_numpy(net.params[f"layer{layer}.{ours}"].T))
            getattr(twin, f"bias_hh_l{layer}").zero_()
    return twin


TORCH_NAMES = {"weight_ih": "W_xh", "weight_hh": "W_hh", "bias_ih": "b_h"}


def gradients_agree(net, twin):
    for layer in range(net.num_layers):
        for theirs, ours in TORCH_NAMES.items():
            agree(net.grads[f"layer{layer}.{ours}"].T, getattr(twin, f"{theirs}_l{layer}").grad)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", [(3, 2, 5, 7), (20, 9, 17, 33)])
def test_nn_rnn_agrees_on_outputs_states_and_gradients(rng, dtype, sizes, cell, layers):
    T, B, D, H = sizes
    net = network(D, H, layers, cell, dtype.name)
    x, h0, dy, dstate = (
        rng.normal(size=shape).astype(dtype) for shape in ((T, B, D), (layers, B, H), (T, B, H), (layers, B, H))
    )
    y, state, tape = net.forward(x, h0)
    dx, dh0 = net.backward(tape, dy, dstate)

    twin = torch_twin(net)
    x_t, h0_t = (torch.from_numpy(array).requires_grad_() for array in (x, h0))
    y_t, state_t = twin(x_t, h0_t)
    torch.autograd.backward([y_t, state_t], [torch.from_numpy(dy), torch.from_numpy(dstate)])
    agree(y, y_t)
    agree(state, state_t)
    agree(dx, x_t.grad)
    agree(dh0, h0_t.grad)
    gradients_agree(net, twin)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_linear_head_with_cross_entropy_agrees(rng, dtype, layers, reduction):
    model = language_model(H=33, L=layers, dtype=dtype.name)
    V, T, B = len(model.vocab), 11, 5
    ids, targets = rng.integers(V, size=(T, B)), rng.integers(V, size=(T, B))
    targets[3, 1] = targets[-1, 0] = -1
    h0 = rng.normal(size=(layers, B, 33)).astype(dtype)
    total, count, state = model.loss_and_gradients(ids, targets, h0, reduction=reduction)

    twin = torch_twin(model.net)
    head = torch.nn.Linear(33, V, dtype=getattr(torch, dtype.name))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(model.params["W_hy"].T))
        head.bias.copy_(torch.from_numpy(model.params["b_y"]))
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(ids), V).to(getattr(torch, dtype.name))
    y_t, state_t = twin(one_hot, torch.from_numpy(h0))
    loss = torch.nn.functional.cross_entropy(
        head(y_t).reshape(-1, V), torch.from_numpy(targets).reshape(-1), ignore_index=-1, reduction=reduction
    )
    loss.backward()
    assert count == T * B - 2
    ours = total / count if reduction == "mean" else total
    assert ours == pytest.approx(loss.item(), rel=TOLERANCE[dtype.name])
    agree(state, state_t)
    gradients_agree(model.net, twin)
    agree(model.grads["W_hy"].T, head.weight.grad)
    agree(model.grads["b_y"], head.bias.grad)
