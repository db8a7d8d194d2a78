# SPDX-License-Identifier: MIT
"""State dictionaries of PyTorch, read and written without torch, against its equations in NumPy."""

import os
import re

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from torch_tools import WRONG, B, D, H, T, agree, cells, directions, layers, network, nonlinearity, torch_tensors

import crnn
from crnn.interop.torch import from_state_dict, save_file, to_state_dict


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def torch_equations(tensors, cell, x):
    """Outputs (T, B, H * directions) by the equations in PyTorch's documentation, from a zero state, in float64."""
    tensors = {name: values.astype(np.float64) for name, values in tensors.items()}
    layer, x = 0, x.astype(np.float64)
    while f"weight_ih_l{layer}" in tensors:
        outputs = []
        for place in (f"_l{layer}", f"_l{layer}_reverse"):
            if "weight_ih" + place not in tensors:
                continue
            y, h, c = np.empty((T, B, H)), np.zeros((B, H)), np.zeros((B, H))
            for t in reversed(range(T)) if place.endswith("reverse") else range(T):
                from_x = x[t] @ tensors["weight_ih" + place].T + tensors.get("bias_ih" + place, 0)
                from_h = h @ tensors["weight_hh" + place].T + tensors.get("bias_hh" + place, 0)
                if cell == "lstm":
                    i, f, g, o = np.split(from_x + from_h, 4, axis=1)
                    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                    h = sigmoid(o) * np.tanh(c)
                elif cell == "gru":
                    (x_r, x_z, x_n), (h_r, h_z, h_n) = (np.split(a, 3, axis=1) for a in (from_x, from_h))
                    z = sigmoid(x_z + h_z)
                    h = (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h
                else:
                    h = np.tanh(from_x + from_h) if cell == "tanh" else np.maximum(from_x + from_h, 0)
                y[t] = h
            outputs.append(y)
        layer, x = layer + 1, np.concatenate(outputs, axis=2)
    return x


@cells
@layers
@directions
@pytest.mark.parametrize("bias", [True, False])
def test_a_state_dict_means_what_pytorch_documents(rng, dtype, cell, L, bidirectional, bias):
    tensors = torch_tensors(rng, cell, L, bidirectional, bias, dtype.name)
    net = from_state_dict(tensors, nonlinearity=nonlinearity(cell))
    assert (net.cell, net.num_layers, net.bidirectional, net.dtype) == (cell, L, bidirectional, dtype.name)
    assert (net.input_size, net.hidden_size) == (D, H)
    x = rng.normal(size=(T, B, D)).astype(dtype)
    agree(net(x)[0], torch_equations(tensors, cell, x))


@cells
@layers
@directions
def test_a_network_comes_back_from_a_state_dict_bit_for_bit(dtype, cell, L, bidirectional):
    net = network(cell, L, bidirectional=bidirectional, dtype=dtype.name)
    tensors = to_state_dict(net)
    again = from_state_dict(tensors, nonlinearity=nonlinearity(cell))
    assert_same_bits(again.flat_params, net.flat_params)
    assert again.config() == net.config()
    expected = torch_tensors(np.random.default_rng(0), cell, L, bidirectional)
    assert {name: array.shape for name, array in tensors.items()} == {name: a.shape for name, a in expected.items()}
    for array in tensors.values():
        assert array.flags["C_CONTIGUOUS"]
        assert not np.shares_memory(array, net.flat_params)


def test_without_rounding_only_a_sum_of_biases_is_rounded(rng, dtype):
    tensors = torch_tensors(rng, "gru", dtype=dtype.name)
    params = from_state_dict(tensors).params
    for layer in range(2):
        both = tensors[f"bias_ih_l{layer}"], tensors[f"bias_hh_l{layer}"]
        assert_same_bits(params[f"layer{layer}.W_xh"], np.ascontiguousarray(tensors[f"weight_ih_l{layer}"].T))
        assert_same_bits(params[f"layer{layer}.W_hh"], np.ascontiguousarray(tensors[f"weight_hh_l{layer}"].T))
        assert_same_bits(params[f"layer{layer}.b_h"][: 2 * H], (both[0] + both[1])[: 2 * H])
        assert_same_bits(params[f"layer{layer}.b_h"][2 * H :], both[0][2 * H :])
        assert_same_bits(params[f"layer{layer}.b_hn"], both[1][2 * H :])


def test_one_unit_and_one_input_share_no_memory():
    """Where a transpose is contiguous as it is."""
    net = crnn.RNN(1, 1, 1, "tanh")
    tensors = to_state_dict(net)
    before = net.flat_params.copy()
    for array in tensors.values():
        array += 1
    assert_same_bits(net.flat_params, before)


def test_nothing_is_shared_with_the_state_dict(rng):
    tensors = torch_tensors(rng)
    before = {name: array.copy() for name, array in tensors.items()}
    from_state_dict(tensors).flat_params[...] = 9
    for name, array in tensors.items():
        assert_same_bits(array, before[name])


def test_a_plain_network_is_tanh_unless_said_otherwise(rng):
    tensors = torch_tensors(rng, "tanh")
    assert [from_state_dict(tensors, nonlinearity=given).cell for given in (None, "tanh", "relu")] == [
        "tanh", "tanh", "relu"
    ]  # fmt: skip


def test_dropout_is_a_separate_argument(rng):
    assert from_state_dict(torch_tensors(rng), dropout=0.25).dropout == 0.25


def test_half_precision_becomes_float32(rng):
    tensors = {name: array.astype(np.float16) for name, array in torch_tensors(rng).items()}
    net = from_state_dict(tensors)
    assert net.dtype == "float32"
    assert_same_bits(net.params["layer1.W_hh"], np.ascontiguousarray(tensors["weight_hh_l1"].T.astype(np.float32)))


@pytest.mark.parametrize("prefix", ["encoder.lstm.", "", "lstm_"])
def test_other_modules_tensors_are_left_out_only_if_the_prefix_says_so(rng, prefix):
    tensors = torch_tensors(rng, prefix=prefix)
    expected = from_state_dict(tensors).flat_params
    others = {"encoder.embedding.weight": np.ones((9, D), int), "fc.weight_g": np.ones(3), prefix + "fc.bias": 1}
    assert_same_bits(from_state_dict(tensors | others, prefix).flat_params, expected)
    message = rf"got .*'fc\.weight_g'.* too; kind says .*, and prefix={prefix!r} leaves them out"
    with pytest.raises(ValueError, match=message):
        from_state_dict(tensors | others)


def test_a_prefix_chooses_among_several(rng):
    one, two = (torch_tensors(rng, cell, prefix=prefix) for cell, prefix in (("gru", "a."), ("lstm", "a.b.")))
    assert from_state_dict(one | two, "a.").cell == "gru"
    assert from_state_dict(one | two, "a.b.").cell == "lstm"
    with pytest.raises(ValueError, match=r"^prefix: expected one of 'a\.', 'a\.b\.', got None$"):
        from_state_dict(one | two)
    with pytest.raises(ValueError, match=r"^prefix: expected one of 'a\.', 'a\.b\.', got 'a'$"):
        from_state_dict(one | two, "a")


@pytest.mark.parametrize("damage", WRONG)
def test_tensors_that_are_no_such_module_are_refused(rng, damage):
    change, message = WRONG[damage]
    tensors = torch_tensors(rng)
    change(tensors)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        from_state_dict(tensors)
    assert len(str(caught.value)) < 400


def test_a_nonlinearity_is_refused_where_there_is_none(rng):
    with pytest.raises(ValueError, match="nonlinearity: expected none for the weights of cell 'gru', got 'tanh'"):
        from_state_dict(torch_tensors(rng, "gru"), nonlinearity="tanh")
    with pytest.raises(ValueError, match="nonlinearity: expected tanh or relu, got 'elu'"):
        from_state_dict(torch_tensors(rng, "tanh"), nonlinearity="elu")


NOT_IN_PYTORCH = {
    "hidden_size: expected one size for all layers, as in PyTorch, got [7, 9]": {"hidden_size": [7, 9]},
    "cell: expected one that PyTorch has, got 'original_gru'": {"cell": "original_gru"},
    "recurrent_dropout: expected 0, as in PyTorch, got 0.1": {"recurrent_dropout": 0.1},
    "trainable_initial_state: expected False, as in PyTorch, got the parameters 'layer0.h0'": {
        "trainable_initial_state": True
    },
    "model: expected an RNN without an embedding, got embedding_size=3": {"embedding_size": 3},
}


@pytest.mark.parametrize("message", NOT_IN_PYTORCH)
def test_what_pytorch_does_not_have_is_refused(tmp_path, message):
    net = crnn.RNN(D, **{"hidden_size": H, "cell": "lstm"} | NOT_IN_PYTORCH[message])
    with pytest.raises(ValueError, match=re.escape(message)):
        to_state_dict(net)
    with pytest.raises(ValueError, match=re.escape(message)):
        save_file(net, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_a_model_of_another_kind_has_no_such_state_dict():
    with pytest.raises(TypeError, match=r"^model: expected one of RNN, LanguageModel, .*, got SequenceToSequence$"):
        to_state_dict(crnn.SequenceToSequence(3, 4))
