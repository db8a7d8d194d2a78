# SPDX-License-Identifier: MIT
"""The format itself: digest, finite numbers everywhere, options that older files lack, headers made to harm."""

import hashlib
import inspect
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from file_tools import edit, outer_header, take_apart, with_outer_header
from kernel_tools import assert_same_bits
from model_tools import language_model, network, run_python

import crnn
from crnn import ModelFileError
from crnn.interop import torch as interop
from crnn.io import json_header, model_file, safetensors
from crnn.models.files import from_bytes, to_bytes

pytestmark = pytest.mark.thread_unsafe  # files at the same path, damaged and read again

MODELS = {
    "network": lambda: network(cell="gru"),
    "language model": lambda: language_model("a text\n"),
    "classifier": lambda: crnn.SequenceClassifier(3, classes=["a", "b"], hidden_size=5, cell="lstm", seed=4),
    "tagger": lambda: crnn.SequenceTagger(3, 2, hidden_size=5, multilabel=True, seed=4),
    "regressor": lambda: crnn.SequenceRegressor(3, 2, hidden_size=5, loss="quantile", quantiles=[0.5], seed=4),
    "translator": lambda: crnn.SequenceToSequence(3, 4, hidden_size=5, seed=4),
}
kinds = pytest.mark.parametrize("kind", MODELS)


# ---- the digest ------------------------------------------------------------------------------------------------------


@kinds
def test_the_digest_is_the_one_that_the_documentation_describes(tmp_path, kind):
    model = MODELS[kind]()
    model.save(tmp_path / "m")
    header = json.loads(outer_header((tmp_path / "m").read_bytes())["__metadata__"]["crnn"])
    sha256 = header.pop("sha256")
    total = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    tensors, _ = take_apart(tmp_path / "m")
    for name in sorted(tensors):
        dtype, shape = tensors[name].dtype, list(tensors[name].shape)
        total.update(json.dumps([name, dtype.name, shape], separators=(",", ":")).encode())
        total.update(tensors[name].astype(dtype.newbyteorder("<")).tobytes())
    assert sha256 == total.hexdigest()


@kinds
def test_any_byte_of_a_tensor_is_covered(kind):
    model = MODELS[kind]()
    content = to_bytes(model)
    begin = 8 + int.from_bytes(content[:8], "little")
    for place in range(begin, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises(ModelFileError, match="content: expected tensors and header with the digest"):
            from_bytes(damaged)


@pytest.mark.parametrize(("old", "new"), [('"dropout\\": 0.0', '"dropout\\": 0.5'), ("a text", "a next")])
def test_the_header_is_covered(old, new):
    content = to_bytes(crnn.LanguageModel(crnn.Vocab.from_text("a text", "word"), hidden_size=3))
    old, new = (text.replace("a text", "text").replace("a next", "next").encode() for text in (old, new))
    assert content.count(old) == 1
    with pytest.raises(ModelFileError, match="digest"):
        from_bytes(content.replace(old, new))


@kinds
def test_a_file_without_a_digest_is_loaded(tmp_path, kind):
    """As files of older versions."""
    model = MODELS[kind]()
    model.save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: None)
    assert_same_bits(crnn.load(tmp_path / "m").flat_params, model.flat_params)


def test_tensors_in_another_order_have_the_same_digest(tmp_path):
    model = language_model()
    tensors, header = model.contents()
    again = from_bytes(model_file.to_bytes(dict(reversed(tensors.items())), dict(reversed(header.items()))))
    assert_same_bits(again.flat_params, model.flat_params)
    assert model_file.digest(tensors, header) == model_file.digest(
        {name: tensors[name].astype(tensors[name].dtype.newbyteorder(">")) for name in sorted(tensors)}, header
    )


def test_a_checkpoint_with_a_flipped_bit_is_refused_and_the_model_unchanged(tmp_path):
    path, ids = tmp_path / "c", np.arange(100) % 12
    crnn.fit(language_model(), ids, epochs=1, checkpoint=path)
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for place in range(begin, len(content), 499):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        model = language_model()
        with pytest.raises(ModelFileError, match="digest"):
            crnn.fit(model, ids, epochs=2, checkpoint=path, resume=True)
        assert_same_bits(model.flat_params, language_model().flat_params)


# ---- finite numbers --------------------------------------------------------------------------------------------------


def spoil(model, value):
    """Spoil one parameter; returns its name."""
    name = list(model.params)[1]
    model.params[name].reshape(-1)[-1] = value
    return name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@kinds
def test_weights_that_are_not_finite_are_not_saved_over_a_good_file(tmp_path, kind, value):
    model = MODELS[kind]()
    model.save(tmp_path / "m")
    good = (tmp_path / "m").read_bytes()
    name = spoil(model, value)
    message = f"^{name}: expected finite values, got NaN or infinity$"
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        to_bytes(model)
    with pytest.raises(ValueError, match=message):
        model.astype("float64")
    assert (tmp_path / "m").read_bytes() == good
    assert os.listdir(tmp_path) == ["m"]


def test_statistics_that_are_not_finite_are_not_saved(tmp_path):
    model = crnn.SequenceRegressor(3, 2, hidden_size=5)
    model.scalings["y"].mean[1] = np.inf
    with pytest.raises(ValueError, match=r"^scaling.y.mean: expected finite values"):
        model.save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_values_too_large_for_another_precision_are_refused():
    net = network(dtype="float64")
    net.params["layer0.W_hh"][2, 3] = -1e39
    with pytest.raises(ValueError, match=r"layer0.W_hh: expected finite values"):
        net.astype("float32")
    assert net.astype("float64").params["layer0.W_hh"][2, 3] == -1e39


@pytest.mark.parametrize("function", ["to_state_dict", "save_file"])
def test_weights_that_are_not_finite_are_not_exported(tmp_path, function):
    net = network(cell="lstm")
    interop.save_file(net, tmp_path / "m")
    good = (tmp_path / "m").read_bytes()
    net.params["layer0.b_h"][3] = np.nan
    with pytest.raises(ValueError, match=r"layer0.b_h: expected finite values, got NaN or infinity"):
        interop.to_state_dict(net) if function == "to_state_dict" else interop.save_file(net, tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == good


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_imported(value):
    state = interop.to_state_dict(network(cell="lstm"))
    state["bias_hh_l0"][3] = value
    with pytest.raises(ValueError, match=r"bias_hh_l0: expected finite values, got NaN or infinity"):
        interop.from_state_dict(state)
    state = interop.to_state_dict(network(cell="lstm"))
    state["bias_ih_l0"][3] = state["bias_hh_l0"][3] = 3e38
    with pytest.raises(ValueError, match=r"layer0.b_h: expected finite values, got NaN or infinity"):
        interop.from_state_dict(state)


# ---- options that older files lack -----------------------------------------------------------------------------------


def options():
    """(kind, option) for every option in the configuration of a file of a kind that has its default."""
    for kind, make in MODELS.items():
        model = make()
        signature = inspect.signature(type(model)).parameters
        config = model.contents()[1]["config"]
        yield from ((kind, option) for option, value in config.items() if signature[option].default == value)


@pytest.mark.parametrize(("kind", "option"), list(options()))
def test_a_file_without_an_option_gets_its_default(tmp_path, kind, option):
    model = MODELS[kind]()
    model.save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: header["config"].pop(option))
    loaded = crnn.load(tmp_path / "m")
    assert loaded.config() == model.config()
    assert_same_bits(loaded.flat_params, model.flat_params)


@kinds
def test_an_unknown_option_is_refused(tmp_path, kind):
    MODELS[kind]().save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: header["config"].update(attention=True))
    with pytest.raises(ModelFileError, match="expected a config of"):
        crnn.load(tmp_path / "m")


# ---- headers made to harm --------------------------------------------------------------------------------------------


def bomb(text: str, data: int = 0) -> bytes:
    """A safetensors file whose crnn header is ``text``, with a tensor of so many bytes."""
    header = {"__metadata__": {"crnn": text}, "t": {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}
    return with_outer_header(bytes(8), header) + bytes(data)


N = 2_000_000
BOMBS = {
    "lists": lambda: bomb("[" + "[]," * N + "1]"),
    "objects": lambda: bomb("[" + "{}," * N + "1]"),
    "keys": lambda: bomb("{" + ",".join(f'"{i:x}":1' for i in range(N)) + "}"),
    "strings": lambda: bomb("[" + '"",' * 10 * N + "1]"),
    "escaped strings": lambda: bomb("[" + r'"\"",' * 5 * N + "1]"),
    "nested lists": lambda: bomb("[" * N + "]" * N),
    "no JSON": lambda: bomb("[" * 30 * N),
    "next to some data": lambda: bomb("[" + "[]," * N + "1]", 4_000_000),
    "an odd quote": lambda: bomb('"' + "[]," * N),
    "backslashes": lambda: bomb('["' + "\\\\" * 5 * N + '",' + "[]," * N + "1]"),
    "a long integer": lambda: bomb('{"format":' + "9" * 1_000_000 + "}"),
    "tensors": lambda: with_outer_header(
        bytes(8), {f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(N // 10)}
    ),
    "lists outside": lambda: with_outer_header(bytes(8), b"[" + b"[]," * N + b"1]"),
    "lists in the metadata": lambda: with_outer_header(bytes(8), b'{"__metadata__":[' + b"[]," * N + b"1]}"),
    "shape": lambda: with_outer_header(
        bytes(8), b'{"t":{"dtype":"F32","data_offsets":[0,0],"shape":[' + b"1," * 10 * N + b"0]}}"
    ),
    "spaces": lambda: with_outer_header(bytes(8), b"{" + b" " * 30 * N + b"}"),
    "UTF-16": lambda: with_outer_header(bytes(8), ("[" + "[]," * N + "1]").encode("utf-16-le")),
    "no length": lambda: (2**64 - 1).to_bytes(8, "little") + bytes(100),
}

LOAD = """
import re, sys, crnn
from crnn.models import files
from crnn.interop.torch import load_file
crnn.load(sys.argv[1])  # imports what it needs
for load in (crnn.load, load_file):
    try:
        load(sys.argv[2])
    except crnn.ModelFileError as error:
        assert sys.argv[2] in str(error) and len(str(error)) < 1000
        print("refused")
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])  # getrusage would count the parent
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux reports it")
@pytest.mark.parametrize("case", BOMBS)
def test_a_header_made_to_take_memory_is_refused_before_it_does(tmp_path, case):
    language_model().save(tmp_path / "m")
    (tmp_path / "bomb").write_bytes(BOMBS[case]())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "m"), str(tmp_path / "bomb")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    *refusals, kilobytes = result.stdout.split()
    assert refusals == ["refused"] * 2, result.stderr
    assert int(kilobytes) < 190_000


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux reports it")
@pytest.mark.parametrize("header", [b"", bytes(10), b"{}", b'{"t":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}'])
def test_a_sparse_file_of_any_size_is_refused_before_its_data_are_read(tmp_path, header):
    crnn.RNN(2, 3).save(tmp_path / "m")
    with open(tmp_path / "sparse", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(4 << 30)
    result = run_python(LOAD, tmp_path / "m", tmp_path / "sparse")
    *refusals, kilobytes = result.stdout.split()
    assert refusals == ["refused"] * 2, result.stderr
    assert int(kilobytes) < 190_000


def test_a_model_that_another_thread_changes_while_it_is_saved_can_be_loaded(tmp_path, monkeypatch):
    """Whatever is written is what was checked and digested."""
    model, digest = crnn.RNN(2, 3), model_file.digest

    def digest_and_change(tensors, header):
        value = digest(tensors, header)
        model.flat_params.fill(np.nan)
        return value

    monkeypatch.setattr(model_file, "digest", digest_and_change)
    model.save(tmp_path / "m")
    monkeypatch.undo()
    assert np.isfinite(crnn.load(tmp_path / "m").flat_params).all()


def test_the_bound_of_memory_counts_what_is_outside_of_strings():
    count = json_header.measure
    for text, containers, values, keys, depth in [
        (b'[{"a":[1,2]}]', 3, 1, 1, 3),
        (b'["[{,:"]', 1, 0, 0, 1),
        (b'["\\"[",[]]', 2, 1, 0, 2),
        (b'["\\\\",[]]', 2, 1, 0, 2),
        (b'["\\\\\\"[",{}],[]', 3, 2, 0, 2),
    ]:
        for before in (0, *(json_header.CHUNK - each for each in (2, 3, 4, 5))):  # also over the end of a chunk
            whole = b" " * before + text
            expected = json_header.PER_CHARACTER * len(whole) + json_header.PER_CONTAINER * containers
            expected += json_header.PER_VALUE * values + json_header.PER_KEY * keys
            assert count(whole) == (expected, depth)


@pytest.mark.parametrize("depth", [99, 150, 500, 990, 5_000, 50_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("key", ["kind", "config", "vocab", "format", "sha256"])
def test_a_header_of_any_depth_is_refused(tmp_path, depth, opening, key):
    """Also where Python can parse it, but neither print, compare nor write it."""
    language_model().save(tmp_path / "m")
    _, header = take_apart(tmp_path / "m")
    header = json.dumps({"sha256": "", **header, key: "HERE"})
    deep = opening * depth + "1" + {"[": "]", '{"a":': "}"}[opening] * depth
    edit(tmp_path / "m", header.replace('"HERE"', deep))
    with pytest.raises(ModelFileError):
        crnn.load(tmp_path / "m")


def test_a_vocabulary_of_400_000_words_is_saved_and_loaded(tmp_path):
    words = [f"слово{number:x}" if number % 3 else f"word-{number:x}" for number in range(400_000)]
    model = crnn.LanguageModel(crnn.Vocab(words, "word"), hidden_size=1)
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    assert loaded.vocab == model.vocab
    assert_same_bits(loaded.flat_params, model.flat_params)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    model = crnn.LanguageModel(crnn.Vocab(["a" * 40_000_000, "b"], "word"), hidden_size=1)
    with pytest.raises(ValueError, match="expected a smaller vocabulary or log, got a header that takes"):
        model.save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    edit_free = tmp_path / "m"
    language_model().save(edit_free)
    edit(edit_free, lambda tensors, header: None)
    content = edit_free.read_bytes()
    text = content[8 : 8 + int.from_bytes(content[:8], "little")].rstrip()
    entry = json.dumps(outer_header(content)["b_y"])
    for twice in (
        text[:-1] + b',"b_y":' + entry.encode() + b"}",
        text.replace(b'"shape":', b'"shape":[1],"shape":', 1),
        text.replace(b'\\"kind\\":', b'\\"kind\\": 3, \\"kind\\":', 1),
    ):
        edit_free.write_bytes(with_outer_header(content, twice))
        with pytest.raises(ModelFileError, match=r"m: expected .*: '(b_y|shape|kind)': expected once"):
            crnn.load(edit_free)


@pytest.mark.parametrize("name", ["", "\0", "b_y\0", "../b_y", "x" * 100_000, "\u202e", "__class__"])
def test_a_tensor_with_an_odd_name_is_refused(tmp_path, name):
    language_model().save(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors, header: tensors.update({name: tensors["b_y"]}))
    with pytest.raises(ModelFileError, match="expected no tensor") as caught:
        crnn.load(tmp_path / "m")
    assert len(str(caught.value)) < 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_a_fifo_is_no_model_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ModelFileError, match="fifo: expected a regular file"):
        crnn.load(tmp_path / "fifo")


def test_other_alphabets_are_not_escaped_in_the_header(tmp_path):
    vocab = crnn.Vocab.from_text("привет мир", "word")
    content = to_bytes(crnn.LanguageModel(vocab, hidden_size=3))
    assert "привет".encode() in content
    assert from_bytes(content).vocab == vocab


def test_borrowed_tensors_are_views_of_the_content_and_others_are_not():
    content = memoryview(bytearray(safetensors.to_bytes({"a": np.arange(6.0), "b": np.zeros(3, "f4")}, {})))
    borrowed, copied = safetensors.parse(content, borrow=True)[0], safetensors.parse(content)[0]
    for entries, shared in ((borrowed, True), (copied, False)):
        arrays = [safetensors.to_array(name, entries[name]) for name in ("a", "b")]
        assert [np.shares_memory(array, np.frombuffer(content, "u1")) for array in arrays] == [shared, shared]
        assert arrays[0].tolist() == list(range(6))


@pytest.mark.parametrize("spaces", range(1, 8))
def test_a_model_file_whose_tensors_are_not_aligned_is_the_same_model(tmp_path, spaces):
    model = crnn.RNN(3, 5, cell="gru", seed=1)
    content = model.to_bytes()
    length = int.from_bytes(content[:8], "little")
    padded = (length + spaces).to_bytes(8, "little") + content[8 : 8 + length] + b" " * spaces + content[8 + length :]
    (tmp_path / "m").write_bytes(padded)
    for other in (crnn.load(tmp_path / "m"), from_bytes(padded), from_bytes(bytearray(padded))):
        np.testing.assert_array_equal(other.flat_params, model.flat_params)
        other.flat_params.fill(1)  # its own memory
    assert (tmp_path / "m").read_bytes() == padded


def test_parameters_and_gradients_of_a_new_network_begin_on_a_cache_line():
    for net in (crnn.RNN(3, 5), crnn.RNN(300, 1000, cell="lstm")):
        assert net.flat_params.ctypes.data % 64 == net.flat_grads.ctypes.data % 64 == 0
        assert not net.flat_grads.any()


# ---- large files, whose digest a second thread computes --------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file of several parts, which counts as large."""
    monkeypatch.setattr(model_file, "LARGE", 0)
    monkeypatch.setattr(model_file, "PART", 1000)
    path = tmp_path / "large.safetensors"
    crnn.RNN(7, 31, cell="lstm", seed=1).save(path)
    return path


def test_a_large_file_is_the_model_that_was_saved(large):
    threads = threading.active_count()
    assert crnn.load(large).to_bytes() == crnn.RNN(7, 31, cell="lstm", seed=1).to_bytes() == large.read_bytes()
    assert threading.active_count() == threads


@pytest.mark.parametrize("damage", [b"\x01\x02\x03\x04", b"\xff\xff\xff\xff"], ids=["other number", "NaN"])
def test_a_damaged_large_file_is_refused_for_its_digest(large, damage):
    large.write_bytes(large.read_bytes()[:-4] + damage)
    threads = threading.active_count()
    with pytest.raises(crnn.ModelFileError, match="digest"):
        crnn.load(large)
    assert threading.active_count() == threads


def test_a_large_file_that_becomes_shorter_while_it_is_read_is_refused(large, monkeypatch):
    crnn.RNN(7, 211, cell="lstm", seed=1).save(large)  # Python 3.14 has up to 128 KB of a file in its buffer
    array = model_file._array

    def shortened(*arguments):
        os.truncate(large, 2000)
        return array(*arguments)

    monkeypatch.setattr(model_file, "_array", shortened)
    threads = threading.active_count()
    with pytest.raises(crnn.ModelFileError, match="shorter while it was read"):
        crnn.load(large)
    assert threading.active_count() == threads


def test_a_large_file_is_read_where_no_thread_can_be_started(large, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert crnn.load(large).to_bytes() == large.read_bytes()
