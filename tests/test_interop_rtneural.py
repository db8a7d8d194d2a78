# SPDX-License-Identifier: MIT
"""RTNeural's JSON files: against its documented equations in float64, and against RTNeural itself where it is."""

import json
import os
import re

import numpy as np
import pytest
from audio_tools import rtneural_program, run
from model_tools import stir

import crnn
from crnn import ModelFileError
from crnn.interop.rtneural import load, save

D, H, T = 2, 5, 40


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(a):
    e = np.exp(a - a.max())
    return e / e.sum()


HEADS = {"": lambda a: a, "softmax": softmax, "sigmoid": sigmoid}


def equations(content, x):
    """Outputs (T, V) of the layers in a file, one sample at a time, by the equations of Keras's layers."""
    states = [[np.zeros(layer["shape"][-1]) for _ in "hc"] for layer in content["layers"]]
    outputs = []
    for sample in np.asarray(x, np.float64):
        for layer, state in zip(content["layers"], states, strict=True):
            kernel, *rest = (np.array(each, np.float64) for each in layer["weights"])
            if layer["type"] == "dense":
                sample = HEADS[layer["activation"]](sample @ kernel + rest[0])
                continue
            recurrent, bias = rest
            h, c = state
            if layer["type"] == "lstm":
                i, f, g, o = np.split(sample @ kernel + h @ recurrent + bias, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (z, r, n), (hz, hr, hn) = np.split(sample @ kernel + bias[0], 3), np.split(h @ recurrent + bias[1], 3)
                z = sigmoid(z + hz)
                h = z * h + (1 - z) * np.tanh(n + sigmoid(r + hr) * hn)
            state[:] = h, c
            sample = h
        outputs.append(sample)
    return np.array(outputs)


MODELS = {
    "regressor": lambda cell: crnn.SequenceRegressor(D, 1, H, cell=cell, pooling=None, scale=False),
    "deep": lambda cell: crnn.SequenceRegressor(D, 3, [4, 6], cell=cell, pooling=None, scale=False, dtype="float64"),
    "tagger": lambda cell: crnn.SequenceTagger(D, 3, H, cell=cell, scale=False),
    "labels": lambda cell: crnn.SequenceTagger(D, 3, H, cell=cell, multilabel=True, scale=False),
    "network": lambda cell: crnn.RNN(D, H, 2, cell=cell),
}
cells = pytest.mark.parametrize("cell", ["lstm", "gru"])
models = pytest.mark.parametrize("kind", MODELS)


def model_of(kind, cell):
    model = MODELS[kind](cell)
    stir(model.flat_params)
    return model


def outputs_of(model, x):
    """What RTNeural computes: (T, V)."""
    if isinstance(model, crnn.RNN):
        return model(x[:, None].astype(model.dtype))[0][:, 0]
    return (model.predict_proba if isinstance(model, crnn.SequenceTagger) else model.predict)([x])[0]


@models
@cells
def test_a_file_means_what_rtneurals_equations_say(tmp_path, rng, kind, cell):
    model = model_of(kind, cell)
    save(model, tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    x = rng.normal(size=(T, D))
    expected = equations(content, x)
    assert np.abs(expected).max() > 0.01
    assert np.abs(outputs_of(model, x) - expected).max() < (1e-12 if model.dtype == "float64" else 2e-6)


@models
@cells
def test_a_model_comes_back_from_its_file_bit_for_bit(tmp_path, kind, cell):
    model = model_of(kind, cell)
    save(model, tmp_path / "m.json")
    again = load(tmp_path / "m.json", dtype=model.dtype)
    assert again.to_bytes() == model.to_bytes()
    save(again, tmp_path / "n.json")
    assert (tmp_path / "n.json").read_bytes() == (tmp_path / "m.json").read_bytes()


@cells
def test_scaling_is_multiplied_into_the_weights(tmp_path, rng, cell):
    model = crnn.SequenceRegressor(D, 3, H, cell=cell, pooling=None, seed=1)
    X = [rng.normal([3, -200], [0.5, 9], size=(T, D)) for _ in range(4)]
    model.fit(X, [x @ rng.normal(size=(D, 3)) + 40 for x in X], epochs=1, valid=None)
    assert model.is_scaled
    save(model, tmp_path / "m.json")
    again = load(tmp_path / "m.json", dtype="float64")
    assert not again.is_scaled
    assert np.abs(again.predict(X[0][None]) - model.predict(X[0][None])).max() < 1e-5 * 40


def test_a_scaling_that_float32_could_not_subtract_is_refused(tmp_path, rng):
    model = crnn.SequenceRegressor(1, 1, H, cell="gru", pooling=None)
    X = [rng.normal(101325, 0.01, size=(T, 1)) for _ in range(3)]
    model.fit(X, [x - 101325 for x in X], epochs=1, valid=None)
    with pytest.raises(ValueError, match=r"^scaling: expected means of x of at most 1000 standard"):
        save(model, tmp_path / "m.json")
    assert os.listdir(tmp_path) == []


NOT_IN_RTNEURAL = {
    "cell: expected one of lstm, gru, which rtneural has, got 'tanh'": {"cell": "tanh"},
    "cell: expected one of lstm, gru, which rtneural has, got 'original_gru'": {"cell": "original_gru"},
    "bidirectional: expected False, which RTNeural can express, got True": {"bidirectional": True},
    "embedding_size: expected None, which RTNeural can express, got 3": {"embedding_size": 3},
    "trainable_initial_state: expected False, which RTNeural": {"trainable_initial_state": True},
    "pooling: expected None or 'last', which RTNeural can express, got 'max'": {"pooling": "max"},
    "loss: expected 'mse' or 'mae' or 'huber', which RTNeural can express, got 'quantile'": {"loss": "quantile"},
}


@pytest.mark.parametrize("message", NOT_IN_RTNEURAL)
def test_what_rtneural_cannot_express_is_refused_by_name(tmp_path, message):
    model = crnn.SequenceRegressor(D, 1, H, **{"cell": "lstm", "pooling": None} | NOT_IN_RTNEURAL[message])
    (tmp_path / "m.json").write_text("old")
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        save(model, tmp_path / "m.json")
    assert (tmp_path / "m.json").read_text() == "old"


def test_other_kinds_of_models_and_weights_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(TypeError, match="one of SequenceRegressor, SequenceTagger, RNN, got SequenceClassifier"):
        save(crnn.SequenceClassifier(D, 2, H), tmp_path / "m")
    model = model_of("regressor", "lstm")
    model.params["b_y"][0] = np.inf
    with pytest.raises(ValueError, match="b_y: expected finite values, got NaN or infinity"):
        save(model, tmp_path / "m")
    with pytest.raises(ValueError, match="dtype"):
        load(tmp_path / "m", dtype="float16")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "m")


def test_a_regressor_with_pooling_last_has_an_output_at_every_step(tmp_path, rng):
    model = crnn.SequenceRegressor(D, 1, H, cell="gru", pooling="last", scale=False)
    save(model, tmp_path / "m")
    x = rng.normal(size=(T, D))
    assert np.array_equal(load(tmp_path / "m").predict([x])[0][-1], model.predict([x])[0])


def layer(content, i):
    return content["layers"][i]


def put_bias(value):
    """Replace the bias of the head."""
    return lambda content: layer(content, 2)["weights"].__setitem__(1, [value])


DAMAGE = {
    "no layers": (lambda c: c.pop("layers"), "layers: expected a list, found none"),
    "layers that are none": (lambda c: c.update(layers=[]), "layers: expected a list of objects, got []"),
    "no object": (lambda c: c["layers"].append(None), "layers: expected a list of objects, got [{"),
    "a layer that is a number": (lambda c: c.update(layers=[3]), "layers: expected a list of objects, got [3]"),
    "no shape of the input": (lambda c: c.update(in_shape=[]), "in_shape: expected an integer, got None"),
    "an input size of 0": (lambda c: c.update(in_shape=[0]), "in_shape: expected an integer of at least 1, got 0"),
    "true as a size": (lambda c: c.update(in_shape=[True]), "in_shape: expected an integer, got True"),
    "a convolution": (lambda c: layer(c, 0).update(type="conv1d"), "layers[0]: expected gru or lstm, got 'conv1d'"),
    "a dense layer first": (lambda c: c["layers"].insert(0, layer(c, 2)), "layers[0]: expected gru or lstm, got 'den"),
    "two dense layers": (
        lambda c: c["layers"].append(layer(c, 2)),
        "layers[3]: expected one dense layer and no other after it, got 'dense'",
    ),
    "batch normalisation": (
        lambda c: layer(c, 2).update(type="batchnorm"),
        "layers[2]: expected dense after the recurrent layers, got 'batchnorm'",
    ),
    "two kinds": (lambda c: layer(c, 1).update(type="gru"), "layers: expected recurrent layers of one type"),
    "a head with tanh": (
        lambda c: layer(c, 2).update(activation="tanh"),
        "layers[2].activation: expected none, softmax or sigmoid, got 'tanh'",
    ),
    "a head with a list": (lambda c: layer(c, 2).update(activation=[]), "layers[2].activation: expected none, softmax"),
    "a recurrent relu": (lambda c: layer(c, 0).update(activation="relu"), "layers[0].activation: expected tanh, got"),
    "a skip connection": (lambda c: c.update(in_skip=1), "in_skip: expected 0, or none, got 1; crnn.interop"),
    "a gain": (lambda c: c.update(out_gain=3.0), "out_gain: expected 0, or none, got 3.0"),
    "too few arrays": (lambda c: layer(c, 0)["weights"].pop(), "layers[0]: expected 3 arrays of weights, got 2"),
    "a row too few": (lambda c: layer(c, 0)["weights"][1].pop(), "[0].weights[1]: expected a list of 5, got 4 ent"),
    "a number too many": (
        lambda c: layer(c, 0)["weights"][0][1].append(0.5),
        "layers[0].weights[0]: expected a list of 20, got 21 entries",
    ),
    "two rows of biases": (
        lambda c: layer(c, 0)["weights"].append([layer(c, 0)["weights"].pop()] * 2),
        "layers[0].weights[2]: expected a list of 20, got 2 entries",
    ),
    "a text for a number": (put_bias("1"), "layers[2].weights[1]: expected numbers, got '1'"),
    "true for a number": (put_bias(True), "layers[2].weights[1]: expected numbers, got True"),
    "NaN": (put_bias(np.nan), "layers[2].weights[1]: expected finite values, got NaN or infinity"),
    "too large": (put_bias(1e39), "layers[2].weights[1]: expected finite values, got NaN or infinity"),
    "far too large": (put_bias(10**400), "layers[2].weights[1]: expected numbers that float32 can hold"),
    "a layer as large as memory": (
        lambda c: layer(c, 0).update(shape=[None, 10**12]),
        "layers[0].weights[0]: expected a list of 4000000000000, got 20",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_file_that_is_no_such_model_is_refused_by_name(tmp_path, case):
    change, message = DAMAGE[case]
    model = crnn.SequenceRegressor(D, 1, H, 2, cell="lstm", pooling=None, scale=False)
    save(model, tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    change(content)
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=re.escape(message)) as caught:
        load(tmp_path / "m.json")
    assert str(caught.value).startswith(f"{tmp_path / 'm.json'}: ")
    assert len(str(caught.value)) < 600


NO_OBJECTS = [b"", b"[]", b"{", b"\xff", b"[" * 10_000, b'{"a": 1, "a": 2}', b'{"a":' + b"9" * 5000]


@pytest.mark.parametrize("content", NO_OBJECTS)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ModelFileError, match=re.escape(str(tmp_path / "m"))) as caught:
        load(tmp_path / "m")
    assert len(str(caught.value)) < 700


def test_lists_made_to_take_memory_are_refused_before_they_do(tmp_path):
    (tmp_path / "m").write_bytes(b'{"a": [' + b"[]," * (4 << 20) + b"0]}")
    with pytest.raises(ModelFileError, match=r"a text that takes \d+ MB in memory, more than"):
        load(tmp_path / "m")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelFileError, match="expected a file of at most"):
        load(tmp_path / "sparse")


@pytest.mark.interop
def test_rtneural_itself_computes_the_same_for_a_thousand_samples(tmp_path, rng):
    program = rtneural_program(tmp_path)
    x = rng.normal(size=(1000, D)).astype("f4")
    for kind in MODELS:
        for cell in ("lstm", "gru"):
            model = model_of(kind, cell)
            save(model, tmp_path / "m.json")
            got, expected = run(program, tmp_path / "m.json", x), outputs_of(model, x)
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() < 2e-5 * np.abs(expected).max()
