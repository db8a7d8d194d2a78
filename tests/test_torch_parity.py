# SPDX-License-Identifier: MIT
"""PyTorch agrees: outputs, states and gradients of nn.RNN, LSTM and GRU, and of a head with cross-entropy on top."""

import numpy as np
import pytest
from model_tools import language_model, network

TOLERANCE = {"float32": 2e-6, "float64": 1e-10}  # of an array's largest element


def agree(got, tensor):
    expected = tensor.detach().numpy()
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    scale = np.abs(expected).max()
    assert scale > 0
    assert np.abs(got - expected).max() / scale <= TOLERANCE[got.dtype.name]


def torch_twin(torch, net):
    """PyTorch's module with a crnn.RNN's weights. It stores (out, in), and has a second bias: zero but for b_hn."""
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    options = {} if net.cell in kinds else {"nonlinearity": net.cell}
    twin = kinds.get(net.cell, torch.nn.RNN)(
        net.input_size,
        net.hidden_size,
        net.num_layers,
        bidirectional=net.bidirectional,
        dtype=getattr(torch, net.dtype),
        **options,
    )
    with torch.no_grad():
        for prefix, suffix in names(net):
            for theirs, ours in TORCH_NAMES.items():
                getattr(twin, theirs + suffix).copy_(torch.from_numpy(net.params[prefix + ours].T))
            second = getattr(twin, "bias_hh" + suffix).zero_()
            if net.cell == "gru":
                second[2 * net.hidden_size :] = torch.from_numpy(net.params[prefix + "b_hn"])
    return twin


TORCH_NAMES = {"weight_ih": "W_xh", "weight_hh": "W_hh", "bias_ih": "b_h"}


def names(net):
    """What the names of each layer and direction begin with here and end with there."""
    for layer in range(net.num_layers):
        yield f"layer{layer}.", f"_l{layer}"
        if net.bidirectional:
            yield f"layer{layer}.reverse.", f"_l{layer}_reverse"


def gradients_agree(net, twin):
    for prefix, suffix in names(net):
        for theirs, ours in TORCH_NAMES.items():
            agree(net.grads[prefix + ours].T, getattr(twin, theirs + suffix).grad)
        if net.cell == "gru":
            agree(net.grads[prefix + "b_hn"], getattr(twin, "bias_hh" + suffix).grad[2 * net.hidden_size :])


def run_twin(torch, twin, x, state, lengths):
    """y and the state after the last step, of each row its own last step."""
    if lengths is None:
        return twin(x, state)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
    packed, state = twin(packed, state)
    return torch.nn.utils.rnn.pad_packed_sequence(packed, total_length=len(x))[0], state


@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "two ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
@pytest.mark.parametrize("sizes", [(3, 2, 5, 7), (20, 9, 17, 33)], ids=["small", "large"])
def test_pytorch_agrees_on_outputs_states_and_gradients(torch, rng, dtype, sizes, cell, layers, bidirectional, unequal):
    T, B, D, H = sizes
    net = network(D, H, layers, cell, dtype.name, bidirectional=bidirectional)
    of_states = (net.num_layers * net.directions, B, H)
    parts = 2 if cell == "lstm" else 1
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    x, dy = draw(T, B, D), draw(T, B, H * net.directions)
    state, dstate = ([draw(*of_states) for _ in range(parts)] for _ in range(2))
    lengths = None
    if unequal:
        lengths = rng.integers(1, T, size=B, endpoint=True)
        lengths[:2] = 1, T
    whole = lambda arrays: tuple(arrays) if cell == "lstm" else arrays[0]  # noqa: E731
    parts_of = lambda state: state if cell == "lstm" else [state]  # noqa: E731
    y, last, tape = net.forward(x, whole(state), lengths=lengths)
    dx, dfirst = net.backward(tape, dy, whole(dstate))

    twin = torch_twin(torch, net)
    x_t, *state_t = (torch.from_numpy(array).requires_grad_() for array in (x, *state))
    y_t, last_t = run_twin(torch, twin, x_t, whole(state_t), lengths)
    torch.autograd.backward([y_t, *parts_of(last_t)], [torch.from_numpy(array) for array in (dy, *dstate)])
    agree(y, y_t)
    agree(dx, x_t.grad)
    for got, expected in zip(parts_of(last), parts_of(last_t), strict=True):
        agree(got, expected)
    for got, expected in zip(parts_of(dfirst), state_t, strict=True):
        agree(got, expected.grad)
    gradients_agree(net, twin)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "two ways"])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru"])
def test_layers_of_pytorch_that_read_all_below_them_agree(torch, rng, dtype, cell, bidirectional):
    sizes, options = [17, 5, 9], {"bidirectional": bidirectional}
    net = network(5, sizes, None, cell, dtype.name, dense_layers=True, **options)
    x = rng.normal(size=(11, 3, 5)).astype(dtype)
    dy = rng.normal(size=(11, 3, net.output_size)).astype(dtype)
    y, _, tape = net.forward(x)
    dx, _ = net.backward(tape, dy)

    x_t, pairs, outputs = torch.from_numpy(x).requires_grad_(), [], []
    for layer, H in enumerate(sizes):
        read = torch.cat(outputs, 2) if outputs else x_t
        alone = network(read.shape[2], H, 1, cell, dtype.name, **options)
        for name in alone.params:
            alone.params[name][...] = net.params[name.replace("layer0", f"layer{layer}")]
            alone.grads[name][...] = net.grads[name.replace("layer0", f"layer{layer}")]
        pairs.append((alone, torch_twin(torch, alone)))
        outputs.append(pairs[-1][1](read)[0])
    y_t = torch.cat(outputs, 2)
    y_t.backward(torch.from_numpy(dy))
    agree(y, y_t)
    agree(dx, x_t.grad)
    for alone, twin in pairs:
        gradients_agree(alone, twin)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_linear_head_with_cross_entropy_agrees(torch, rng, dtype, layers, reduction):
    model = language_model(H=33, L=layers, dtype=dtype.name)
    V, T, B = len(model.vocab), 11, 5
    ids, targets = rng.integers(V, size=(T, B)), rng.integers(V, size=(T, B))
    targets[3, 1] = targets[-1, 0] = -1
    h0 = rng.normal(size=(layers, B, 33)).astype(dtype)
    total, count, state = model.loss_and_gradients(ids, targets, h0, reduction=reduction)

    twin = torch_twin(torch, model.net)
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
