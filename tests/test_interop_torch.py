# SPDX-License-Identifier: MIT
"""To and from PyTorch: state dictionaries and files against its equations in NumPy, modules against torch itself."""

import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import run_python, stir

import crnn
from crnn import ModelFileError
from crnn.interop.torch import from_module, from_state_dict, load_file, save_file, to_module, to_state_dict

package = pytest.importorskip("safetensors.numpy")  # what PyTorch's users read and write files with
load_tensors, save_tensors = package.load_file, package.save_file

D, H, T, B = 5, 7, 6, 3
LENGTHS = [4, 6, 1]
GATES = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}
CELLS = list(GATES)
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}  # of an array's largest element
PAGE = Path(__file__).parents[1] / "docs" / "pytorch.md"  # not there when a wheel is tested

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


# ---- state dictionaries, without torch -------------------------------------------------------------------------------


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


def nonlinearity(cell):
    return cell if cell == "relu" else None


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


def test_dropout_is_said_beside(rng):
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


# ---- files, without torch --------------------------------------------------------------------------------------------

ALONE = """
import sys, crnn
assert not [name for name in sys.modules if name.startswith("crnn.interop")]
sys.modules["torch"] = None                       # an import of it would fail
import crnn.interop.torch as interop
net = crnn.RNN(5, 7, 2, "tanh", seed=1)
interop.save_file(net, sys.argv[1])
assert interop.load_file(sys.argv[1]).flat_params.tobytes() == net.flat_params.tobytes()
assert interop.from_state_dict(interop.to_state_dict(net)).flat_params.tobytes() == net.flat_params.tobytes()
"""


def test_import_crnn_leaves_this_out_and_files_need_no_torch(tmp_path):
    result = run_python(ALONE, tmp_path / "m")
    assert result.returncode == 0, result.stderr


@cells
@directions
def test_a_network_comes_back_from_a_file(tmp_path, dtype, cell, bidirectional):
    net = network(cell, bidirectional=bidirectional, dtype=dtype.name)
    path = tmp_path / "m.safetensors"
    save_file(net, path)
    for again in (load_file(place, nonlinearity=nonlinearity(cell)) for place in (path, str(path))):
        assert_same_bits(again.flat_params, net.flat_params)
        assert again.config() == net.config()
    tensors = load_tensors(path)
    assert tensors.keys() == to_state_dict(net).keys()
    for name, array in to_state_dict(net).items():
        assert_same_bits(tensors[name], array)
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_a_file_says_that_it_is_pytorchs(tmp_path):
    """Some readers insist on it."""
    save_file(network(), tmp_path / "m")
    with package.safe_open(tmp_path / "m", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def write(path, entries):
    """A safetensors file of (dtype, shape, bytes) by name, whatever they say."""
    header, data = {}, b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path, rng):
    tensors = torch_tensors(rng, "tanh", L=1, bias=False)
    halves = {name: (array.view(np.uint32) >> 16).astype("<u2") for name, array in tensors.items()}
    write(tmp_path / "m", {name: ("BF16", half.shape, half.tobytes()) for name, half in halves.items()})
    net = load_file(tmp_path / "m")
    assert net.dtype == "float32"
    got = net.params["layer0.W_hh"].T
    assert np.abs(got - tensors["weight_hh_l0"]).max() < 2**-8
    assert_same_bits(np.ascontiguousarray(got).view(np.uint32) >> 16, halves["weight_hh_l0"].astype(np.uint32))
    assert not (np.ascontiguousarray(got).view(np.uint32) & 0xFFFF).any()


def test_a_part_of_a_larger_file_is_read(tmp_path, rng):
    one, two = (torch_tensors(rng, cell, prefix=prefix) for cell, prefix in (("gru", "enc.rnn."), ("lstm", "dec.rnn.")))
    one["embedding.weight"] = np.ones((9, D), np.int64)
    one["fc.weight"] = np.full((3, H), np.nan, np.float32)  # of no concern here
    path = tmp_path / "m"
    save_tensors(one | two, path)
    assert_same_bits(load_file(path, "enc.rnn.").flat_params, from_state_dict(one, "enc.rnn.").flat_params)
    assert load_file(path, "dec.rnn.", dropout=0.5).dropout == 0.5
    with pytest.raises(ModelFileError, match=r"prefix: expected one of 'dec\.rnn\.', 'enc\.rnn\.', got None"):
        load_file(path)
    with pytest.raises(ModelFileError, match=r"prefix: expected one of 'dec\.rnn\.', 'enc\.rnn\.', got 'fc\.'"):
        load_file(path, "fc.")


def refused(path, message="m"):
    with pytest.raises(ModelFileError, match=re.escape(message)) as caught:
        load_file(path)
    assert str(caught.value).startswith(f"{path}: "), "the message names no file"
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("damage", WRONG)
def test_a_file_without_such_a_module_is_refused(tmp_path, rng, damage):
    change, message = WRONG[damage]
    tensors = torch_tensors(rng)
    change(tensors)
    save_tensors({name: np.ascontiguousarray(array) for name, array in tensors.items()}, tmp_path / "m")
    refused(tmp_path / "m", message.replace("float32, float64, float16 or bfloat16, got int64", "one of F64, F32,"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1", "bias_ih_l0", "bias_hh_l1"])
def test_a_value_that_is_not_finite_is_refused(tmp_path, rng, name, bad):
    for cell in ("gru", "lstm"):
        tensors = torch_tensors(rng, cell)
        tensors[name].flat[-1] = bad
        save_tensors(tensors, tmp_path / "m")
        refused(tmp_path / "m", "expected finite values, got NaN or infinity")


def test_biases_whose_sum_is_not_finite_are_refused(tmp_path, rng):
    tensors = torch_tensors(rng)
    tensors["bias_ih_l1"][3] = tensors["bias_hh_l1"][3] = 3e38
    save_tensors(tensors, tmp_path / "m")
    refused(tmp_path / "m", "layer1.b_h: expected finite values, got NaN or infinity")


@pytest.mark.parametrize(
    ("dtype", "shape", "length"),
    [
        ("F8_E4M3", (7, 7), 49),
        ("I32", (7, 7), 196),
        ("BOOL", (7, 7), 49),
        ("F99", (7, 7), 196),
        ("F32", (7, 7), 195),
        ("F32", (2**62, 4), 16),
        ("F32", (2**40, 0), 0),
        ("F32", (2**64 - 1, 0), 0),
        ("F32", (2**70, 0), 0),
        ("F32", (0, 2**40), 0),
        ("F32", (-7, -7), 196),
        ("F32", (), 4),
        ("F32", (1,) * 70, 4),
    ],
)
def test_a_tensor_entry_that_lies_is_refused(tmp_path, rng, dtype, shape, length):
    entries = {name: ("F32", a.shape, a.tobytes()) for name, a in torch_tensors(rng, "tanh", L=1).items()}
    write(tmp_path / "m", entries)
    load_file(tmp_path / "m")
    write(tmp_path / "m", entries | {"weight_hh_l0": (dtype, shape, bytes(length))})
    refused(tmp_path / "m")


def test_a_file_with_very_many_modules_gets_a_short_message(tmp_path):
    names = [f"{'long' * 100}{number}.weight_ih_l0" for number in range(1000)]
    save_tensors({name: np.ones((1, 1), np.float32) for name in names}, tmp_path / "m")
    refused(tmp_path / "m", " and 992 more, got None")
    save_tensors({name + "_raw": np.ones((1, 1), np.float32) for name in names}, tmp_path / "m")
    refused(tmp_path / "m", " and 992 more")


@pytest.mark.thread_unsafe
def test_a_file_cut_off_or_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "m"
    save_file(network(), path)
    whole = path.read_bytes()
    for length in (0, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)
    for content in (whole + b"more", b"\x80\x04\x95" * 100, b"PK\x03\x04" * 100, struct.pack("<Q", 2**63) + b"{}"):
        path.write_bytes(content)
        refused(path)


def test_flipped_bits_never_do_more_than_be_refused_or_change_a_weight(tmp_path, rng):
    path = tmp_path / "m"
    save_file(network("gru"), path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    loaded = 0
    for place in [*rng.integers(header, size=300).tolist(), *rng.integers(header, len(whole), size=30).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            net = load_file(path)
        except ModelFileError:
            continue
        assert np.isfinite(net.flat_params).all()
        loaded += 1
    assert 0 < loaded < 300


def test_a_missing_file_and_a_folder_are_the_usual_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_file(tmp_path / "nowhere")
    with pytest.raises(OSError, match=tmp_path.name):  # a PermissionError on Windows
        load_file(tmp_path)


def test_the_old_file_survives_a_failure_and_nothing_is_left_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "m"
    save_file(network("gru"), path)
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        save_file(network("lstm"), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["m"]


# ---- modules ---------------------------------------------------------------------------------------------------------


def torch_module(torch, cell, L=2, dtype="float32", size=D, **options):
    if cell in ("tanh", "relu"):
        options["nonlinearity"] = cell
    kind = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}.get(cell, torch.nn.RNN)
    torch.manual_seed(4)
    return kind(size, H, L, dtype=getattr(torch, dtype), **options)


def run_torch(torch, module, x, state, lengths=None):
    """Outputs and the parts of the state, as arrays, zero where a row has ended."""
    with torch.no_grad():
        x = torch.from_numpy(x)
        if lengths is not None:
            x = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        first = tuple(torch.from_numpy(part) for part in parts(state))
        y, state = module(x, first if len(first) == 2 else first[0])
        if lengths is not None:
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    return y.numpy(), [part.numpy() for part in parts(state)]


def runs_agree(torch, rng, net, module, lengths):
    x = rng.normal(size=(T, B, D)).astype(net.dtype)
    state = state_like(rng, net.cell, net.num_layers * (1 + net.bidirectional), net.dtype)
    expected, state_expected = run_torch(torch, module, x, state, lengths)
    y, state = net(x, state, **{"lengths": lengths} if lengths else {})
    agree(y, expected)
    assert len(parts(state)) == len(state_expected)
    for got, part in zip(parts(state), state_expected, strict=True):
        agree(got, part)


@cells
@layers
@directions
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_module_carries_over(torch, rng, dtype, cell, L, bidirectional, lengths, bias):
    module = torch_module(torch, cell, L, dtype.name, bidirectional=bidirectional, bias=bias)
    net = from_module(module)
    assert (net.cell, net.num_layers, net.bidirectional, net.dtype) == (cell, L, bidirectional, dtype.name)
    runs_agree(torch, rng, net, module, lengths)
    same = from_state_dict(module.state_dict(), nonlinearity=nonlinearity(cell))
    assert_same_bits(same.flat_params, net.flat_params)


@cells
@layers
@directions
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_a_network_carries_over(torch, rng, dtype, cell, L, bidirectional, lengths):
    net = network(cell, L, bidirectional=bidirectional, dtype=dtype.name)
    module = to_module(net)
    runs_agree(torch, rng, net, module, lengths)
    assert_same_bits(from_module(module).flat_params, net.flat_params)
    kind = torch_module(torch, cell, L, dtype.name, bidirectional=bidirectional)
    assert repr(module) == repr(kind)
    kind.load_state_dict({name: torch.from_numpy(array) for name, array in to_state_dict(net).items()})
    runs_agree(torch, rng, net, kind, lengths)


def test_a_module_made_here_can_be_trained_and_moved(torch, rng):
    net = network("lstm")
    before = net.flat_params.copy()
    module = to_module(net)
    assert module.training
    x = torch.from_numpy(rng.normal(size=(T, B, D)).astype("float32"))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    first = module(x)[0].square().sum()
    first.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    optimizer.step()
    assert module(x)[0].square().sum() < first
    assert module.double()(x.double())[0].dtype == torch.float64
    assert_same_bits(net.flat_params, before)  # shares no memory


def test_to_module_draws_nothing_from_torchs_generator(torch):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    to_module(network("gru"))
    to_module(language_model("lstm", embedding_size=D))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_carries_over_both_ways(torch):
    assert from_module(torch_module(torch, "gru", dropout=0.3)).dropout == 0.3
    assert to_module(network("gru", dropout=0.3)).dropout == 0.3
    assert to_module(network("gru", 1, dropout=0.3)).dropout == 0  # nothing lies between the layers
    with pytest.raises(ValueError, match="variational_dropout: expected False, as PyTorch's dropout is, got True"):
        to_module(network("gru", dropout=0.3, variational_dropout=True))
    assert to_module(network("gru", variational_dropout=True)).dropout == 0  # of no effect


def test_batch_first_concerns_only_how_arrays_lie(torch, rng):
    net = from_module(torch_module(torch, "lstm", batch_first=True))
    runs_agree(torch, rng, net, torch_module(torch, "lstm"), None)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_module_in_half_precision_becomes_float32(torch, name):
    module = torch_module(torch, "gru").to(getattr(torch, name))
    net = from_module(module)
    assert net.dtype == "float32"
    assert_same_bits(net.params["layer1.W_hh"].T.copy(), module.weight_hh_l1.detach().float().numpy())


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_files_go_both_ways(torch, tmp_path, name):
    safetensors = pytest.importorskip("safetensors.torch")
    module = torch_module(torch, "lstm", bidirectional=True).to(getattr(torch, name))
    safetensors.save_file(module.state_dict(prefix="encoder.lstm."), tmp_path / "m")
    net = load_file(tmp_path / "m", "encoder.lstm.")
    assert_same_bits(net.flat_params, from_module(module).flat_params)
    save_file(net, tmp_path / "back")
    again = torch_module(torch, "lstm", bidirectional=True, dtype=net.dtype)
    again.load_state_dict(safetensors.load_file(tmp_path / "back"))
    assert_same_bits(from_module(again).flat_params, net.flat_params)


def test_modules_that_have_no_like_are_refused(torch):
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got str"):
        from_module("lstm")
    with pytest.raises(ValueError, match="got 'weight_hr_l0' of a projection"):
        from_module(torch.nn.LSTM(D, H, proj_size=3))
    normed = torch.nn.utils.parametrizations.spectral_norm(torch.nn.GRU(D, H), "weight_hh_l0")
    with pytest.raises(ValueError, match=r"no other, got 'parametrizations\.weight_hh_l0\.original'"):
        from_module(normed)
    with pytest.raises(TypeError, match=r"model: expected one of RNN, LanguageModel, .*, got str"):
        to_module("net")
    with pytest.raises(ValueError, match="model: expected an RNN without an embedding, got embedding_size=3"):
        to_module(crnn.RNN(D, H, 1, "gru", embedding_size=3))
    with pytest.raises(ValueError, match=r"trainable_initial_state: expected False, as in PyTorch, got the parameters"):
        to_module(language_model("gru", trainable_initial_state=True))


# ---- language models -------------------------------------------------------------------------------------------------

VOCAB = crnn.Vocab.from_text("hello, new world!\n")
V = len(VOCAB)


def language_model(cell="lstm", L=2, **options):
    model = crnn.LanguageModel(VOCAB, cell, H, L, **{"seed": 3} | options)
    stir(model.flat_params)
    return model


def models_agree(torch, rng, model, run):
    ids = rng.integers(V, size=(T, B))
    state = state_like(rng, model.net.cell, model.net.num_layers, model.dtype)
    with torch.no_grad():
        first = tuple(torch.from_numpy(part) for part in parts(state))
        expected, state_expected = run(torch.from_numpy(ids), first if len(first) == 2 else first[0])
    logits, state = model.forward(ids, state)
    agree(logits, expected)
    for got, part in zip(parts(state), parts(state_expected), strict=True):
        agree(got, part)


INPUTS = {"one-hot": {}, "embedding": {"embedding_size": D}, "tie_weights": {"embedding_size": H, "tie_weights": True}}


@cells
@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("given", INPUTS)
def test_a_language_model_comes_back_from_a_module(torch, rng, dtype, cell, L, given):
    model = language_model(cell, L, dropout=0.25, dtype=dtype.name, **INPUTS[given])
    module = to_module(model)
    assert module.training
    assert module.dropout.p == 0.25
    assert (module.head.weight is getattr(module.embedding, "weight", None)) == (given == "tie_weights")
    module.eval()
    models_agree(torch, rng, model, module)
    assert module(torch.zeros((T, B), dtype=torch.int64))[0].shape == (T, B, V)  # from a zero state
    embedding = None if given == "one-hot" else module.embedding
    again = from_module(module.rnn, head=module.head, embedding=embedding, vocab=VOCAB)
    assert_same_bits(again.flat_params, model.flat_params)
    assert again.config() == model.config() | {"dropout": again.config()["dropout"]}
    assert again.vocab == model.vocab


def test_a_language_models_module_can_be_trained(torch, rng):
    model = language_model("gru", embedding_size=H, tie_weights=True)
    before = model.flat_params.copy()
    module = to_module(model)
    assert len(list(module.parameters())) == 2 * 4 + 2  # two layers, and the matrix that head and embedding share
    ids = torch.from_numpy(rng.integers(V, size=(T + 1, B)))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)

    def loss():
        return torch.nn.functional.cross_entropy(module(ids[:-1])[0].reshape(-1, V), ids[1:].reshape(-1))

    first = loss()
    first.backward()
    optimizer.step()
    assert loss() < first
    assert_same_bits(model.flat_params, before)


def test_a_language_models_module_drops_before_its_head_while_training(torch):
    module = to_module(language_model("gru", 1, dropout=0.5))
    ids = torch.zeros((T, B), dtype=torch.int64)
    assert not torch.equal(module(ids)[0], module(ids)[0])
    module.eval()
    assert torch.equal(module(ids)[0], module(ids)[0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("embedded", [True, False])
def test_a_language_model_is_made_of_modules(torch, rng, bias, embedded):
    rnn = torch_module(torch, "gru", size=D if embedded else V, dropout=0.2).eval()
    embedding = torch.nn.Embedding(V, D, padding_idx=0) if embedded else None
    head = torch.nn.Linear(H, V, bias=bias)
    model = from_module(rnn, head=head, embedding=embedding, vocab=VOCAB)
    assert model.net.dropout == 0.2

    def run(ids, state):
        x = embedding(ids) if embedded else torch.nn.functional.one_hot(ids, V).float()
        y, state = rnn(x, state)
        return head(y), state

    models_agree(torch, rng, model, run)


def test_parts_that_do_not_fit_each_other_are_refused(torch):
    nn = torch.nn
    rnn, head, embedding = nn.GRU(D, H), nn.Linear(H, V), nn.Embedding(V, D)
    whole = {"head": head, "embedding": embedding, "vocab": VOCAB}
    for changed, error, message in (
        ({"head": None}, TypeError, r"head: expected an nn\.Linear, got NoneType"),
        ({"vocab": None}, TypeError, "vocab: expected a Vocab, got NoneType"),
        ({"embedding": head}, TypeError, r"embedding: expected an nn\.Embedding, got Linear"),
        ({"embedding": None}, ValueError, f"module: expected input_size={V}, one-hot tokens .*, got {D}"),
        ({"embedding": nn.Embedding(9, D)}, ValueError, rf"embedding\.weight: .*\({V}, {D}\), got .*\(9, {D}\)"),
        ({"embedding": nn.Embedding(V, D, max_norm=1.0)}, ValueError, r"embedding: expected no max_norm, got 1\.0"),
        ({"head": nn.Linear(H, 9)}, ValueError, rf"head\.weight: .*\({V}, {H}\), got .*\(9, {H}\)"),
        ({"head": nn.Linear(H, V).double()}, ValueError, r"head\.weight: expected float32 .*, got float64"),
    ):
        with pytest.raises(error, match=message):
            from_module(rnn, **whole | changed)
    with pytest.raises(ValueError, match="expected one direction for a language model, got bidirectional=True"):
        from_module(nn.GRU(D, H, bidirectional=True), **whole)


@pytest.mark.thread_unsafe
@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of this tree")
def test_the_pages_code_runs(torch, tmp_path, monkeypatch):
    """All of it; the blocks that need no torch also run with the other pages'."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python(?: torch)?\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    namespace = {}
    for block in blocks:
        exec(compile(block, PAGE, "exec"), namespace)
