# SPDX-License-Identifier: MIT
"""Model files: what comes back, what a hostile file gets, and that a failed write leaves the old file."""

import contextlib
import os
import struct
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from file_tools import edit, load_file, outer_header, save_file, with_outer_header
from kernel_tools import assert_same_bits
from model_tools import language_model, run_python

import crnn
import crnn.models.files
from crnn import ModelFileError

pytestmark = pytest.mark.thread_unsafe  # files at the same path, damaged and read again

WORDS = "the cat sat on the mat\nthe dog saw\n"


# ---- round trip ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("E", [None, 3])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("unit", "cell"), [("char", "tanh"), ("byte", "relu"), ("word", "tanh")])
def test_a_model_comes_back_whole(tmp_path, dtype, unit, cell, layers, E):
    model = language_model(WORDS, L=layers, cell=cell, dtype=dtype.name, unit=unit, E=E)
    path = tmp_path / "m.safetensors"
    model.save(path)
    for loaded in (crnn.load(path), crnn.load(str(path))):
        assert_same_bits(loaded.flat_params, model.flat_params)
        assert loaded.vocab == model.vocab
        assert loaded.config() == model.config()
        assert repr(loaded) == repr(model)
        assert loaded.evaluate(WORDS) == model.evaluate(WORDS)
        assert loaded.generate("the ", 20, seed=1) == model.generate("the ", 20, seed=1)
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize("text", ['a\u2028\U0001f600\x00"\\\n', "\ud800a", "<unk>\u202e"])
def test_any_character_comes_back(tmp_path, text):
    model = language_model(text)
    model.save(tmp_path / "m")
    assert crnn.load(tmp_path / "m").vocab == model.vocab


def test_how_it_was_initialised_is_remembered(tmp_path):
    options = {"recurrent_init": "0.5*identity", "input_init": "uniform"}
    model = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=5, **options)
    model.save(tmp_path / "m")
    config = crnn.load(tmp_path / "m").config()
    assert {name: config[name] for name in options} == options


def test_a_loaded_model_can_go_on_training(tmp_path):
    model = language_model()
    model.save(tmp_path / "m")
    twin = crnn.load(tmp_path / "m")
    ids = np.arange(200) % 12
    for each in (model, twin):
        crnn.fit(each, ids, epochs=1, batch_size=3, bptt=7)
    assert_same_bits(twin.flat_params, model.flat_params)
    assert twin.astype("float64").evaluate(ids).nats == pytest.approx(model.evaluate(ids).nats, rel=1e-5)


def test_other_tools_can_read_the_file(tmp_path):
    model = language_model(L=2)
    model.save(tmp_path / "m")
    tensors = load_file(tmp_path / "m")
    assert set(tensors) == set(model.params)
    for name, tensor in tensors.items():
        assert_same_bits(tensor, model.params[name])


def test_the_same_model_makes_the_same_file(tmp_path):
    for name in ("one", "two"):
        language_model().save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# ---- hostile files ---------------------------------------------------------------------------------------------


def refused(path, message=None):
    with pytest.raises(ModelFileError, match=message) as caught:
        crnn.load(path)
    assert str(caught.value).startswith(str(path)), "the message names no file"
    assert len(str(caught.value)) < 1500
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "m.safetensors"
    language_model(L=2).save(file)
    return file


def test_a_file_cut_off_anywhere_is_refused(path):
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    quarters = [len(whole) * part // 4 for part in (1, 2, 3)]
    for length in (0, 1, 7, 8, 9, 100, header - 1, header, header + 1, *quarters, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_file_with_more_at_its_end_is_refused(path):
    path.write_bytes(path.read_bytes() + b"more")
    refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"Once upon a time there was a text file.\n" * 50,
        b"\x00" * 1000,
        b"\xff" * 1000,
        b"\x80\x04\x95" * 100,  # a pickle's beginning
        b"PK\x03\x04" * 100,  # a zip's, as torch.save makes
        bytes(range(256)) * 10,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**30) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 60) + b"{" * 60,
        struct.pack("<Q", 100_000) + b'{"a":' * 20_000,
    ],
)
def test_files_of_other_kinds_are_refused(tmp_path, content):
    path = tmp_path / "m"
    path.write_bytes(content)
    refused(path)


def test_a_file_of_another_program_is_refused_with_who_reads_it(tmp_path):
    path = tmp_path / "amp.NAM"
    path.write_text('{"architecture": "LSTM"}')
    refused(path, "got another kind of file, or an incomplete one; crnn.interop reads files of other programs")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "m"
    save_file({"weight": np.ones((2, 2), np.float32)}, path)
    refused(path, "expected a safetensors file written by crnn: got one of another program")
    save_file({"weight": np.ones((2, 2), np.float32)}, path, {"format": "pt"})
    refused(path, "of another program; crnn.interop.torch.load_file")


def test_a_checkpoint_is_read_as_its_best_model(tmp_path):
    path, model = tmp_path / "m", language_model()
    ids = np.arange(100) % 12
    crnn.fit(model, ids, valid=ids[::-1][:50], epochs=4, checkpoint=path, optimizer=crnn.optim.SGD(2.0))
    loaded = crnn.load(path)
    assert loaded.vocab == model.vocab
    assert_same_bits(loaded.flat_params, model.flat_params)


def set_config(**values):
    return lambda tensors, header: header["config"].update(values)


def set_tokens(tokens):
    return lambda tensors, header: header["vocab"].update(tokens=tokens)


def set_tensor(name, make):
    def change(tensors, header):
        tensors[name] = make(tensors[name])

    return change


def poke(value):
    def make(tensor):
        tensor[-1] = value
        return tensor

    return make


HOSTILE = {
    "header is no JSON": "{",
    "header is a list": "[]",
    "header is a number": "3",
    "header is deep": '{"format":1,"kind":' + "[" * 100_000,
    "header has a number too long": '{"format":' + "9" * 5000 + "}",
    "format is newer": lambda tensors, header: header.update(format=2),
    "format is missing": lambda tensors, header: header.pop("format"),
    "format is text": lambda tensors, header: header.update(format="1"),
    "kind is missing": lambda tensors, header: header.pop("kind"),
    "kind is a list": lambda tensors, header: header.update(kind=["LanguageModel"]),
    "config is missing": lambda tensors, header: header.pop("config"),
    "config is a list": lambda tensors, header: header.update(config=[1]),
    "config lacks a key": lambda tensors, header: header["config"].pop("hidden_size"),
    "config has a key too many": set_config(seed=1),
    "cell is unknown": set_config(cell="lstm2"),
    "cell is a number": set_config(cell=3),
    "cell is a list": set_config(cell=["tanh"]),
    "hidden_size is a text": set_config(hidden_size="7"),
    "hidden_size is a float": set_config(hidden_size=7.0),
    "hidden_size is true": set_config(hidden_size=True),
    "hidden_size is 0": set_config(hidden_size=0),
    "hidden_size is negative": set_config(hidden_size=-7),
    "hidden_size is null": set_config(hidden_size=None),
    "hidden_size is wrong": set_config(hidden_size=8),
    "hidden_size is absurd": set_config(hidden_size=10**6),
    "hidden_size is more absurd": set_config(hidden_size=10**30),
    "num_layers is wrong": set_config(num_layers=3),
    "num_layers is too small": set_config(num_layers=1),
    "num_layers is absurd": set_config(num_layers=10**9),
    "embedding_size is wrong": set_config(embedding_size=5),
    "embedding_size is 0": set_config(embedding_size=0),
    "embedding_size is absurd": set_config(embedding_size=10**12),
    "dtype is unknown": set_config(dtype="float16"),
    "dtype is another": set_config(dtype="float64"),
    "dtype is null": set_config(dtype=None),
    "recurrent_init is unknown": set_config(recurrent_init="import os"),
    "input_init is unknown": set_config(input_init="1e999*glorot"),
    "vocab is missing": lambda tensors, header: header.pop("vocab"),
    "vocab is a text": lambda tensors, header: header.update(vocab="abc"),
    "unit is unknown": lambda tensors, header: header["vocab"].update(unit="letter"),
    "unit is a list": lambda tensors, header: header["vocab"].update(unit=["char"]),
    "unit is another": lambda tensors, header: header["vocab"].update(unit="byte"),
    "tokens are a text": set_tokens("helo, nwrd!\n"),
    "tokens are numbers": set_tokens(list(range(12))),
    "tokens are lists": set_tokens([["a"]] * 12),
    "tokens are none": set_tokens([]),
    "tokens are long": set_tokens(["ab", *"cdefghijklm"]),
    "tokens repeat": set_tokens(list("aabcdefghijk")),
    "tokens are too few": set_tokens(list("abc")),
    "tokens are too many": set_tokens(list("abcdefghijklmnopq")),
    "a tensor is missing": lambda tensors, header: tensors.pop("layer1.W_hh"),
    "a tensor is extra": lambda tensors, header: tensors.update(extra=np.ones(3, np.float32)),
    "a tensor has another name": lambda tensors, header: tensors.update({"layer0.w_hh": tensors.pop("layer0.W_hh")}),
    "a tensor is transposed": set_tensor("W_hy", lambda tensor: np.ascontiguousarray(tensor.T)),
    "a tensor is flat": set_tensor("layer0.W_hh", np.ravel),
    "a tensor is larger": set_tensor("b_y", lambda tensor: np.append(tensor, tensor[0])),
    "a tensor is empty": set_tensor("b_y", lambda tensor: tensor[:0]),
    "a tensor is double": set_tensor("layer1.b_h", lambda tensor: tensor.astype(np.float64)),
    "a tensor is half": set_tensor("layer1.b_h", lambda tensor: tensor.astype(np.float16)),
    "a tensor is integer": set_tensor("layer1.b_h", lambda tensor: tensor.astype(np.int32)),
    "a weight is NaN": set_tensor("layer1.W_hh", poke(np.nan)),
    "a weight is infinite": set_tensor("b_y", poke(-np.inf)),
}


@pytest.mark.parametrize("damage", HOSTILE)
def test_a_file_that_contradicts_itself_is_refused(path, damage):
    edit(path, HOSTILE[damage])
    refused(path)


def rewrite_entry(path, **values):
    """Change what the safetensors header itself says of W_hy."""
    edit(path, lambda tensors, header: None)  # without its digest
    whole = path.read_bytes()
    header = outer_header(whole)
    header["W_hy"].update(values)
    path.write_bytes(with_outer_header(whole, header))


@pytest.mark.parametrize(
    "values",
    [
        {"dtype": "BF16", "shape": [7, 24]},
        {"dtype": "F8_E4M3", "shape": [7, 48]},
        {"dtype": "U32"},
        {"dtype": "F99"},
        {"shape": [2**62, 4]},
        {"shape": [-7, -12]},
        {"shape": [84]},
        {"data_offsets": [4, 340]},
        {"data_offsets": [2**60, 2**60 + 336]},
        {"data_offsets": [336, 0]},
    ],
    ids=repr,
)
def test_a_tensor_entry_that_lies_is_refused(path, values):
    rewrite_entry(path, **values)
    refused(path)


@pytest.mark.parametrize("digest", [True, False])
def test_a_flipped_bit_is_refused_or_without_a_digest_may_change_a_weight(path, digest):
    rng = np.random.default_rng(4)
    if not digest:
        edit(path, lambda tensors, header: None)
    whole, model = path.read_bytes(), crnn.load(path)
    header = 8 + int.from_bytes(whole[:8], "little")
    changed = 0
    for place in [*rng.integers(header, size=300).tolist(), *rng.integers(header, len(whole), size=30).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(ModelFileError):
            changed += crnn.load(path).flat_params.tobytes() != model.flat_params.tobytes()
    assert changed == 0 if digest else 0 < changed < 300


def test_a_file_that_is_cut_short_while_it_is_read_does_no_harm(path):
    """As when another program copies a new model over it: loads are whole or refused."""
    whole, done, seen = path.read_bytes(), threading.Event(), set()

    def rewrite():
        while not done.is_set():
            path.write_bytes(whole)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(500):
            with contextlib.suppress(ModelFileError):
                seen.add(crnn.load(path).flat_params.tobytes())
    finally:
        done.set()
        writer.join()
    path.write_bytes(whole)
    assert seen <= {crnn.load(path).flat_params.tobytes()}


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no devices to read from")
def test_a_file_without_an_end_is_refused():
    refused("/dev/zero")


def test_a_missing_file_and_a_folder_are_the_usual_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        crnn.load(tmp_path / "nowhere")
    with pytest.raises(OSError, match=tmp_path.name):  # a PermissionError on Windows
        crnn.load(tmp_path)


@pytest.mark.parametrize("bad", [None, 3.5, b"\x00", "a\0b"])
def test_a_path_that_is_none_is_an_error(bad):
    with pytest.raises((TypeError, ValueError, OSError)):
        crnn.load(bad)


# ---- writing fails ---------------------------------------------------------------------------------------------


def old_and_new(tmp_path):
    path = tmp_path / "m"
    language_model().save(path)
    return path, path.read_bytes(), language_model(H=64)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_the_old_file_survives_a_failure_and_no_other_file_is_left(tmp_path, monkeypatch, step):
    path, old, model = old_and_new(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left on device"):
        model.save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["m"]


FULL_DISK = """
import resource, sys, crnn
path = sys.argv[1]
model = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=128)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    model.save(path)
except OSError as error:
    print("OSError")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes to stand in for a full disk")
def test_the_old_file_survives_a_disk_that_fills_up_while_writing(tmp_path):
    path, old, _ = old_and_new(tmp_path)
    result = run_python(FULL_DISK, path)
    assert result.stdout == "OSError\n", result.stderr
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["m"]


KILLED = """
import os, signal, sys, crnn
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=128).save(sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_the_old_file_survives_a_kill_just_before_the_new_one_gets_its_name(tmp_path):
    path, old, _ = old_and_new(tmp_path)
    assert run_python(KILLED, path).returncode == -9
    assert path.read_bytes() == old
    assert crnn.load(path).net.hidden_size == 7


READ_ONLY = """
import os, sys, crnn
model = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=8)
model.save(sys.argv[1])  # imports what it needs
if os.getuid() == 0:
    os.setuid(65534)
try:
    model.save(sys.argv[2])
except PermissionError as error:
    print("PermissionError", sys.argv[2] in str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such permission there")
def test_a_read_only_folder_is_an_os_error_that_names_the_file(tmp_path):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users altogether
        path = Path(folder) / "m"
        language_model().save(path)
        old = path.read_bytes()
        os.chmod(folder, 0o555)
        try:
            result = run_python(READ_ONLY, tmp_path / "other", path)
        finally:
            os.chmod(folder, 0o755)
        assert result.stdout == "PermissionError True\n", result.stderr
        assert path.read_bytes() == old
        assert os.listdir(folder) == ["m"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a folder that exists, got .*nowhere"):
        language_model().save(tmp_path / "nowhere" / "m")
