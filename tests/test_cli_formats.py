# SPDX-License-Identifier: MIT
"""crnn export and crnn import: a file of every format, and back; what is refused leaves no file."""

import json
import os
import sys

import numpy as np
import pytest
from kernel_tools import assert_same_bits

import crnn
from crnn.cli.formats import FORMATS

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

LIBRARIES = {"onnx": "onnx", "keras": "h5py"}  # that formats need
FILES = [(each, f"other{suffix}") for each in FORMATS for suffix in each.suffixes]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(run, *arguments):
    out, err = run(*arguments, status=1)
    assert out == ""
    (line,) = err.splitlines()
    return line


def needs(name):
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])


def audio_model():
    """A regressor of one sample after the other, which every format can express."""
    return crnn.SequenceRegressor(1, 1, hidden_size=4, cell="lstm", pooling=None, scale=False, seed=3)


@pytest.mark.interop
@pytest.mark.parametrize(("format", "name"), FILES, ids=[f"{each.name}-{name}" for each, name in FILES])
def test_a_model_is_the_same_after_export_and_import(here, run, format, name):
    needs(format.name)
    audio_model().save("m")
    given = ["--format", format.name] if format.name in ("rtneural", "guitarml") else []
    out, err = run("export", "m", "-o", name, *given, "--json")
    size = os.path.getsize(name)
    assert json.loads(out) == {"output": name, "format": format.name, "bytes": size}
    assert f"wrote {name}, {format.name}, {size:,} bytes" in err
    kind = ["--kind", "SequenceRegressor"] if name.endswith((".weights.h5", ".pt.safetensors")) else []
    kind += ["-O", "pooling=null"] if format.name == "torch" else []
    out, _ = run("import", name, "-o", "n", *given, *kind, "--json")
    assert json.loads(out)["kind"] == "SequenceRegressor"
    x = np.random.default_rng(0).normal(size=(2, 7, 1))
    np.testing.assert_allclose(crnn.load("n").predict(x), crnn.load("m").predict(x), atol=1e-6)


def test_the_list_names_formats_and_functions_that_exist():
    assert len({each.name for each in FORMATS}) == len(FORMATS)
    for each in FORMATS:
        assert callable(each.function("save"))
        assert callable(each.function("load"))


def test_a_network_goes_to_pytorchs_names_and_back_bit_for_bit(here, run):
    net = crnn.RNN(3, 5, cell="gru", seed=2)
    net.save("m")
    run("export", "m", "-o", "m.pt.safetensors")
    run("import", "m.pt.safetensors", "-o", "n")
    assert_same_bits(crnn.load("n").flat_params, net.flat_params)


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_language_model_gets_a_vocabulary(here, run, suffix):
    model = crnn.LanguageModel(crnn.Vocab.from_text("héllo"), hidden_size=4, cell="gru", embedding_size=3, seed=2)
    model.save("m")
    if suffix:
        (here / "m.json").write_text(json.dumps(model.vocab.tokens), encoding="utf-8")
    run("export", "m", "-o", "m.pt.safetensors")
    run("import", "m.pt.safetensors", "-o", "n", "--kind", "LanguageModel", "--vocab", f"m{suffix}")
    loaded = crnn.load("n")
    assert loaded.vocab == model.vocab
    assert_same_bits(loaded.flat_params, model.flat_params)


def test_options_of_a_format_are_passed_on_as_json_or_text(here, run):
    clf = crnn.SequenceClassifier(3, classes=["up", "down"], hidden_size=4, seed=2)
    clf.save("m")
    run("export", "m", "-o", "m.pt.safetensors")
    options = ["-O", 'classes=["up", "down"]', "-O", "pooling=max", "--kind", "SequenceClassifier"]
    run("import", "m.pt.safetensors", "-o", "n", *options)
    assert crnn.load("n").classes == ["up", "down"]
    assert crnn.load("n").pooling == "max"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "m", "-o", "m.xyz"], "--output: expected a name that ends in one of .onnx, .keras, "),
        (["export", "m", "-o", "m.safetensors"], "--output: expected a name that ends in one of"),
        (["export", "m", "-o", "m.json"], "--format: expected one of rtneural, guitarml for m.json, got none"),
        (["export", "none", "-o", "m.pt.safetensors"], "none: No such file"),
        (["export", "there", "-o", "m.pt.safetensors"], "there"),
        (["export", "m", "-o", "m", "--format", "torch"], "--output: expected different files, got m for both"),
        (["export", "m", "-o", "there", "--format", "torch"], "there, which exists; --overwrite replaces it"),
        (["export", "m", "-o", "no/m.pt.safetensors"], "--output: expected a folder that exists, got no"),
        (["export", "m", "-o", "a.pt.safetensors", "-O", "size=3"], "unexpected keyword argument 'size'"),
        (["export", "m", "-o", "a.pt.safetensors", "-O", "a=1", "-O", "a=2"], "expected each name once, got a twice"),
        (["import", "there", "-o", "n"], "expected a name that ends in one of"),
        (["import", "there", "-o", "n", "--format", "torch"], "there: "),
        (["import", "none.nam", "-o", "n"], "none.nam: No such file"),
        (["import", "m", "-o", "there", "--format", "torch"], "there, which exists; --overwrite replaces it"),
        (["import", "m", "-o", "n", "--format", "torch", "--vocab", "list.json"], "expected a JSON list of strings"),
        (["import", "m", "-o", "n", "--format", "torch", "--vocab", "there"], "there: "),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_and_writes_nothing(here, run, arguments, message):
    crnn.RNN(3, 5, seed=2).save("m")
    (here / "there").write_text("something")
    (here / "list.json").write_text("[1, 2]")
    before = sorted(os.listdir(here))
    assert message in fails(run, *arguments)
    assert sorted(os.listdir(here)) == before
    assert (here / "there").read_text() == "something"


def test_overwriting_has_to_be_asked_for(here, run):
    crnn.RNN(3, 5, seed=2).save("m")
    (here / "a.pt.safetensors").write_text("something")
    run("export", "m", "-o", "a.pt.safetensors", "--overwrite")
    run("import", "a.pt.safetensors", "-o", "m", "--overwrite")


def test_an_option_without_a_value_is_refused(here, run, capsys):
    for wrong in ("opset", "=3", "a b=3"):
        with pytest.raises(SystemExit):
            run("export", "m", "-o", "m.onnx", "-O", wrong)
        assert f"expected NAME=VALUE, got '{wrong}'" in capsys.readouterr().err


def test_a_library_that_is_missing_is_named_with_how_to_install_it(here, run, monkeypatch):
    crnn.RNN(3, 5, seed=2).save("m")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'crnn[onnx]'" in fails(run, "export", "m", "-o", "m.onnx")


def test_a_file_that_says_more_than_a_model_is_refused_or_told(here, run):
    from crnn.interop import guitarml, nam

    guitarml.save(audio_model(), "skip.json", skip=1)
    assert "whose input is added to its output" in fails(run, "import", "skip.json", "-o", "n", "--format", "guitarml")
    assert not os.path.exists("n")
    nam.save(audio_model(), "rate.nam", sample_rate=48000)
    assert "48000 samples per second" in run("import", "rate.nam", "-o", "n")[1]
