# SPDX-License-Identifier: MIT
"""Files with PyTorch's names: what comes back, what is refused, and what damaged ones do. Without torch."""

import json
import os
import re
import struct

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import run_python
from torch_tools import WRONG, D, H, cells, directions, network, nonlinearity, torch_tensors

from crnn import ModelFileError
from crnn.interop.torch import from_state_dict, load_file, save_file, to_state_dict

package = pytest.importorskip("safetensors.numpy")  # what PyTorch's users read and write files with
load_tensors, save_tensors = package.load_file, package.save_file


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


def test_the_old_file_survives_a_failure_and_no_other_file_is_left(tmp_path, monkeypatch):
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
