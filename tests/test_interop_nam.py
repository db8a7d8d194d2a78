# SPDX-License-Identifier: MIT
"""Audio models: files of NAM, GuitarML and AIDA-X, against their equations, and against NAM itself where it is."""

import json
import re

import numpy as np
import pytest
from audio_tools import nam_program, run
from model_tools import stir

import crnn
from crnn import ModelFileError
from crnn.interop import aidax, guitarml, nam, rtneural
from crnn.interop.audio import AudioModel

H, T = 4, 50


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def regressor(cell="lstm", D=1, P=1, **options):
    model = crnn.SequenceRegressor(D, P, H, cell=cell, **{"pooling": None, "scale": False} | options)
    stir(model.flat_params)
    return model


def lstm_step(x, h, c, W_ih, W_hh, b):
    """One step by PyTorch's equations: rows i, f, g, o."""
    i, f, g, o = np.split(W_ih @ x + W_hh @ h + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


# ---- NAM -------------------------------------------------------------------------------------------------------------


def nam_equations(content, x):
    """Outputs (T,) of a .nam file by the order of weights that NAM documents, in float64."""
    numbers, config = iter(content["weights"]), content["config"]
    H, layers = config["hidden_size"], []
    take = lambda *shape: np.array([next(numbers) for _ in range(int(np.prod(shape)))]).reshape(shape)  # noqa: E731
    for layer in range(config["num_layers"]):
        D = H if layer else config["input_size"]
        matrix = take(4 * H, D + H)
        layers.append([matrix[:, :D], matrix[:, D:], take(4 * H), take(H), take(H)])
    head, bias = take(H), take(1)
    assert next(numbers, None) is None
    outputs = []
    for sample in x:
        signal = np.array([sample])
        for layer in layers:
            layer[3:] = lstm_step(signal, *layer[3:], *layer[:3])
            signal = layer[3]
        outputs.append(head @ signal + bias[0])
    return np.array(outputs)


@pytest.mark.parametrize("L", [1, 2])
@pytest.mark.parametrize("stateful", [False, True])
def test_a_nam_file_means_what_nam_documents_and_comes_back(tmp_path, rng, L, stateful):
    model = regressor(num_layers=L, trainable_initial_state=stateful)
    nam.save(model, tmp_path / "m.nam", sample_rate=44100, metadata={"name": "loud", "gear_type": "amp"})
    content = json.loads((tmp_path / "m.nam").read_text())
    assert (content["version"], content["architecture"]) == ("0.5.4", "LSTM")
    again = nam.load(tmp_path / "m.nam")
    assert (again.sample_rate, again.skip, again.metadata) == (44100.0, 0, {"name": "loud", "gear_type": "amp"})
    assert again.model.to_bytes() == model.to_bytes()
    x = rng.normal(size=T)
    expected = nam_equations(content, x)
    assert np.abs(again.process(x) - expected).max() < 2e-6 * np.abs(expected).max()
    nam.save(again, tmp_path / "n.nam")
    assert (tmp_path / "n.nam").read_bytes() == (tmp_path / "m.nam").read_bytes()


def test_a_state_of_zeros_is_no_parameter(tmp_path):
    model = regressor(trainable_initial_state=True)
    for name in ("layer0.h0", "layer0.c0"):
        model.params[name][...] = 0
    nam.save(model, tmp_path / "m")
    again = nam.load(tmp_path / "m").model
    assert not again.net.trainable_initial_state
    assert again.predict([np.ones(3)])[0].tobytes() == model.predict([np.ones(3)])[0].tobytes()


def test_a_float64_model_comes_back_from_a_nam_file(tmp_path):
    model = regressor(dtype="float64")
    nam.save(model, tmp_path / "m")
    assert nam.load(tmp_path / "m", dtype="float64").model.to_bytes() == model.to_bytes()
    assert nam.load(tmp_path / "m").model.dtype == "float32"


def test_the_scaling_is_multiplied_into_a_nam_file(tmp_path, rng):
    model = crnn.SequenceRegressor(1, 1, H, cell="lstm", pooling=None)
    X = [rng.normal(2, 5, size=(T, 1)) for _ in range(4)]
    model.fit(X, [3 * x - 7 for x in X], epochs=1, valid=None)
    nam.save(model, tmp_path / "m", sample_rate=48000)
    assert np.abs(nam.load(tmp_path / "m").process(X[0]) - model.predict([X[0]])[0][:, 0]).max() < 1e-4


NOT_IN_NAM = {
    "cell: expected one of lstm, which nam has, got 'gru'": lambda: regressor("gru"),
    "bidirectional: expected False, which NAM can express, got True": lambda: regressor(bidirectional=True),
    "input_size: expected 1, which NAM can express, got 2": lambda: regressor(D=2),
    "output_size: expected 1, which NAM can express, got 3": lambda: regressor(P=3),
    "hidden_size: expected one size for all layers, got [3, 4]": lambda: crnn.SequenceRegressor(
        1, 1, [3, 4], cell="lstm", pooling=None
    ),
    "skip: expected 0, which NAM can express, got 1": lambda: AudioModel(regressor(), skip=1),
    "model: expected pooling=None, one output for each sample, and no quantiles": lambda: regressor(pooling="last"),
    "model: expected pooling=None, one output for each sample": lambda: regressor(loss="quantile"),
    "metadata": lambda: AudioModel(regressor(), metadata={"loudness": float("nan")}),
}


@pytest.mark.parametrize("message", NOT_IN_NAM)
def test_what_nam_cannot_express_is_refused_by_name(tmp_path, message):
    (tmp_path / "m").write_text("old")
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        nam.save(NOT_IN_NAM[message](), tmp_path / "m")
    assert (tmp_path / "m").read_text() == "old"


NAM_DAMAGE = {
    "WaveNet": (lambda c: c.update(architecture="WaveNet"), "architecture: expected LSTM, which crnn has, got 'Wave"),
    "no architecture": (lambda c: c.pop("architecture"), "architecture: expected a text, found none"),
    "a weight too few": (lambda c: c["weights"].pop(), "weights: expected a list of 109, got 108 entries"),
    "no weights": (lambda c: c.update(weights=None), "weights: expected a list, got None"),
    "a list in the weights": (lambda c: c["weights"].__setitem__(0, []), "weights: expected numbers, got []"),
    "NaN": (lambda c: c["weights"].__setitem__(7, np.nan), "weights: expected finite values, got NaN or infinity"),
    "another size": (lambda c: c["config"].update(hidden_size=10**9), "weights: expected a list of"),
    "very many layers": (lambda c: c["config"].update(num_layers=10**15), "weights: expected a list of"),
    "no layers": (lambda c: c["config"].update(num_layers=0), "num_layers: expected an integer of at least 1, got 0"),
    "half a unit": (lambda c: c["config"].update(hidden_size=4.5), "hidden_size: expected an integer, got 4.5"),
    "more options": (lambda c: c["config"].update(proj_size=2), "config: expected hidden_size, input_size, num_layers"),
    "a rate of 0": (lambda c: c.update(sample_rate=0), "sample_rate: expected a number above 0, or None, got 0"),
    "metadata that are none": (lambda c: c.update(metadata=3), "metadata: expected an object, got 3"),
}


@pytest.mark.parametrize("case", NAM_DAMAGE)
def test_a_file_that_is_no_such_nam_model_is_refused_by_name(tmp_path, case):
    change, message = NAM_DAMAGE[case]
    nam.save(regressor(), tmp_path / "m")
    content = json.loads((tmp_path / "m").read_text())
    change(content)
    (tmp_path / "m").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=re.escape(message)) as caught:
        nam.load(tmp_path / "m")
    assert str(caught.value).startswith(f"{tmp_path / 'm'}: ")
    assert len(str(caught.value)) < 500


@pytest.mark.interop
def test_nam_itself_computes_the_same_for_a_thousand_samples(tmp_path, rng):
    program, x = nam_program(tmp_path), rng.normal(size=1000).astype("f4")
    for options in ({}, {"num_layers": 2, "trainable_initial_state": True}):
        model = regressor(**options)
        nam.save(model, tmp_path / "m.nam", sample_rate=1024)
        silence = np.zeros(512)  # half a second, in blocks of 512, on which NAM lets a model settle
        expected = nam.load(tmp_path / "m.nam").process(np.concatenate([silence, x]))[512:]
        got = run(program, tmp_path / "m.nam", x[:, None])[:, 0]
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


# ---- GuitarML --------------------------------------------------------------------------------------------------------

GATES = {"lstm": 4, "gru": 3, "tanh": 1}
cells = pytest.mark.parametrize("cell", GATES)


def guitarml_equations(content, x):
    """Outputs (T, P) of a GuitarML file by PyTorch's equations, in float64."""
    data, tensors = content["model_data"], {name: np.array(v) for name, v in content["state_dict"].items()}
    H, L = data["hidden_size"], data["num_layers"]
    states = [[np.zeros(H), np.zeros(H)] for _ in range(L)]
    outputs = []
    for sample in x:
        signal = sample
        for layer, state in enumerate(states):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            W_ih, W_hh, b_ih, b_hh = (tensors[f"rec.{name}_l{layer}"] for name in names)
            h, c = state
            if data["unit_type"] == "LSTM":
                h, c = lstm_step(signal, h, c, W_ih, W_hh, b_ih + b_hh)
            elif data["unit_type"] == "GRU":
                (r, z, n), (hr, hz, hn) = np.split(W_ih @ signal + b_ih, 3), np.split(W_hh @ h + b_hh, 3)
                z = sigmoid(z + hz)
                h = (1 - z) * np.tanh(n + sigmoid(r + hr) * hn) + z * h
            else:
                h = np.tanh(W_ih @ signal + b_ih + W_hh @ h + b_hh)
            state[:] = h, c
            signal = h
        values = tensors["lin.weight"] @ signal + tensors.get("lin.bias", 0)
        outputs.append(values + (sample[: data["skip"]] if data["skip"] else 0))
    return np.array(outputs)


@cells
@pytest.mark.parametrize(("D", "P", "skip"), [(1, 1, 1), (1, 1, 0), (3, 1, 1), (2, 2, 2)])
def test_a_guitarml_file_means_what_pytorch_computes_and_comes_back(tmp_path, rng, cell, D, P, skip):
    audio = AudioModel(regressor(cell, D, P, num_layers=2), skip=skip, metadata={"author": "me"})
    guitarml.save(audio, tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    assert content["model_data"]["skip"] == skip
    again = guitarml.load(tmp_path / "m.json")
    assert (again.skip, again.metadata, again.sample_rate) == (skip, {"author": "me"}, None)
    assert again.model.to_bytes() == audio.model.to_bytes()
    x = rng.normal(size=(T, D))
    expected = guitarml_equations(content, x)
    got = again.process(x)
    assert np.abs(got.reshape(T, P) - expected).max() < 2e-6 * np.abs(expected).max()
    guitarml.save(again, tmp_path / "n.json")
    assert (tmp_path / "n.json").read_bytes() == (tmp_path / "m.json").read_bytes()


def test_a_head_without_a_bias_has_one_of_zero(tmp_path):
    guitarml.save(regressor(), tmp_path / "m", skip=1)
    content = json.loads((tmp_path / "m").read_text())
    content["model_data"]["bias_fl"] = False
    del content["state_dict"]["lin.bias"]
    (tmp_path / "m").write_text(json.dumps(content))
    audio = guitarml.load(tmp_path / "m")
    assert audio.skip == 1
    assert not audio.model.params["b_y"].any()


def test_the_scaling_is_multiplied_into_a_guitarml_file(tmp_path, rng):
    model = crnn.SequenceRegressor(1, 1, H, cell="gru", pooling=None)
    X = [rng.normal(2, 5, size=(T, 1)) for _ in range(4)]
    model.fit(X, [3 * x - 7 for x in X], epochs=1, valid=None)
    guitarml.save(model, tmp_path / "m")
    assert np.abs(guitarml.load(tmp_path / "m").process(X[0]) - model.predict([X[0]])[0][:, 0]).max() < 1e-4


GUITARML_DAMAGE = {
    "GatedConvNet": (lambda d, s: d.update(model="GatedConvNet"), "model: expected SimpleRNN, which crnn has, got"),
    "another unit": (lambda d, s: d.update(unit_type="QRNN"), "unit_type: expected LSTM, GRU, RNN, got 'QRNN'"),
    "a tensor more": (lambda d, s: s.update({"conv.weight": [[1]]}), "state_dict: expected rec.weight_ih_l0 and so on"),
    "a tensor less": (lambda d, s: s.pop("rec.bias_hh_l0"), "rec.bias_hh_l0: expected a list, found none"),
    "a GRU's shapes": (lambda d, s: d.update(unit_type="GRU"), "rec.weight_ih_l0: expected a list of 12, got 16"),
    "very many layers": (lambda d, s: d.update(num_layers=10**12), "num_layers: expected layers that the state_dict"),
    "a skip of five": (lambda d, s: d.update(skip=5), "skip: expected 0, or 1 or 1 of 1 columns, got 5"),
    "NaN": (lambda d, s: s.update({"lin.bias": [np.nan]}), "lin.bias: expected finite values, got NaN or infinity"),
    "biases whose sum is not finite": (
        lambda d, s: s.update({"rec.bias_ih_l0": [3e38] * 16, "rec.bias_hh_l0": [3e38] * 16}),
        "layer0.b_h: expected finite values",
    ),
}


@pytest.mark.parametrize("case", GUITARML_DAMAGE)
def test_a_file_that_is_no_such_guitarml_model_is_refused_by_name(tmp_path, case):
    change, message = GUITARML_DAMAGE[case]
    guitarml.save(regressor(), tmp_path / "m")
    content = json.loads((tmp_path / "m").read_text())
    change(content["model_data"], content["state_dict"])
    (tmp_path / "m").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=re.escape(message)) as caught:
        guitarml.load(tmp_path / "m")
    assert str(caught.value).startswith(f"{tmp_path / 'm'}: ")


def test_what_guitarml_cannot_express_is_refused_by_name(tmp_path):
    for model, message in (
        (regressor("relu"), "cell: expected 'lstm' or 'gru' or 'tanh', which GuitarML can express, got 'relu'"),
        (regressor(trainable_initial_state=True), "trainable_initial_state: expected False, which GuitarML"),
        (AudioModel(regressor(), metadata={"skip": 1}), "metadata: expected no key that the file needs, got 'skip'"),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            guitarml.save(model, tmp_path / "m")
    with pytest.raises(TypeError, match=r"^model: expected a SequenceRegressor, got SequenceTagger"):
        guitarml.save(crnn.SequenceTagger(1, 2, H), tmp_path / "m")
    assert not (tmp_path / "m").exists()


# ---- AudioModel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("D", "P", "skip"), [(1, 1, 0), (1, 1, 1), (3, 1, 1), (2, 2, 2), (1, 3, 1)])
def test_a_stream_gives_the_bits_of_the_whole_signal(rng, D, P, skip, scaled):
    model = regressor(D=D, P=P, scale=scaled)
    if scaled:
        X = [rng.normal(1, 2, size=(T, D)) for _ in range(3)]
        model.fit(X, [x[:, :1] * np.ones(P) for x in X], epochs=1, valid=None)
    audio = AudioModel(model, skip=skip)
    x = rng.normal(size=(T, D))
    expected = audio.process(x)
    assert expected.shape == ((T,) if P == 1 else (T, P))
    assert np.array_equal(expected.reshape(T, P), model.predict([x])[0] + (x[:, :skip] if skip else 0))
    stream = audio.stream()
    for _ in range(2):
        got = np.array([stream.step(float(row[0]) if D == 1 else row) for row in x])
        assert got.tobytes() == expected.tobytes()
        stream.reset()
        blocks = [stream.run(x[:7]), stream.run(x[7:8]), stream.run(x[8:, 0] if D == 1 else x[8:])]
        assert np.concatenate(blocks).tobytes() == expected.tobytes()
        stream.reset()


def test_wrong_signals_and_models_are_refused():
    audio, knobs = AudioModel(regressor()), AudioModel(regressor(D=2))
    for x in (np.zeros((0,)), np.zeros((3, 2)), 0.5):
        with pytest.raises(ValueError, match=r"^x: expected shape \(T, 1\) or \(T,\), got"):
            audio.process(x)
        with pytest.raises(ValueError, match=r"^x: expected shape \(T, 1\) or \(T,\), got"):
            audio.stream().run(x)
    with pytest.raises((TypeError, ValueError), match=r"^x"):
        audio.process(["a"])
    for x in ([1.0, 2.0], [[1.0]]):
        with pytest.raises(ValueError, match=r"^x: expected shape \(1,\), got"):
            audio.stream().step(x)
    with pytest.raises(ValueError, match=r"^x: expected shape \(2,\), got a number"):
        knobs.stream().step(0.5)
    with pytest.raises((TypeError, ValueError), match=r"^x"):
        audio.stream().step("0.5")
    assert audio.stream().step(1) == audio.stream().step(np.float32(1)) == audio.stream().step([1.0])
    for wrong in ({"skip": 2}, {"skip": True}, {"skip": -1}, {"sample_rate": 0}, {"sample_rate": "fast"}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected"):
            AudioModel(regressor(), **wrong)
    with pytest.raises(ValueError, match="one that waits for fit"):
        AudioModel(crnn.SequenceRegressor(pooling=None))


# ---- AIDA-X ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [0, 1])
def test_an_aidax_file_comes_back_and_its_gain_is_that_of_the_layers(tmp_path, rng, skip):
    audio = AudioModel(regressor("gru"), 48000, skip, {"author": "me"})
    aidax.save(audio, tmp_path / "m.aidax")
    again = aidax.load(tmp_path / "m.aidax")
    assert (again.sample_rate, again.skip, again.metadata) == (48000.0, skip, {"author": "me"})
    assert again.model.to_bytes() == audio.model.to_bytes()
    content = json.loads((tmp_path / "m.aidax").read_text())
    (tmp_path / "loud").write_text(json.dumps(content | {"out_gain": 6.0, "samplerate": "44100"}))
    x = rng.normal(size=T)
    loud = aidax.load(tmp_path / "loud")
    assert loud.sample_rate == 44100
    expected = skip * x + 10 ** (6 / 20) * audio.model.predict([x])[0][:, 0]
    assert np.abs(loud.process(x) - expected).max() < 1e-6
    if skip:
        with pytest.raises(ModelFileError, match=r"in_skip: expected 0, .*; crnn\.interop\.aidax reads such files"):
            rtneural.load(tmp_path / "m.aidax")


def test_what_aidax_is_not_is_refused_by_name(tmp_path):
    aidax.save(regressor(), tmp_path / "m")
    content = json.loads((tmp_path / "m").read_text())
    for change, message in (
        ({"in_skip": 2}, "in_skip: expected 0 or 1, got 2"),
        ({"in_gain": 3}, "in_gain: expected 0, or none, got 3"),
        ({"out_gain": 1e9}, "out_gain: expected at most 200 dB, got 1000000000.0"),
        ({"out_gain": "loud"}, "out_gain: expected at most 200 dB, got 'loud'"),
        ({"samplerate": "fast"}, "sample_rate: expected a number above 0, or None, got 'fast'"),
        ({"layers": content["layers"][:1]}, "layers: expected a dense layer without activation at the end"),
    ):
        (tmp_path / "n").write_text(json.dumps(content | change))
        with pytest.raises(ModelFileError, match=re.escape(f"{tmp_path / 'n'}: {message}")):
            aidax.load(tmp_path / "n")
    with pytest.raises(ValueError, match=r"^input_size: expected 1, which AIDA-X can express, got 2"):
        aidax.save(regressor(D=2), tmp_path / "o")
    with pytest.raises(ValueError, match=r"^metadata: expected no key that the file needs, got 'layers'"):
        aidax.save(regressor(), tmp_path / "o", metadata={"layers": 3})
