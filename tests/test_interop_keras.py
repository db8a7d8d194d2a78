# SPDX-License-Identifier: MIT
"""Keras's files: what crnn writes and reads again, what arrays alone say, masks, and what is refused. Needs h5py."""

import io
import json
import sys
import zipfile

import numpy as np
import pytest

import crnn
from crnn.interop import keras as interop
from crnn.interop.keras import writing
from crnn.interop.parts import KINDS, ONLY_TRAINING

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.interop

VOCAB = crnn.Vocab.from_text("abcd")
CELLS = ("tanh", "relu", "lstm", "gru", "original_gru")


def filled(model, seed=0):
    """The model with random weights, biases too, and with scalings that have all digits."""
    rng = np.random.default_rng(seed)
    model.flat_params[...] = rng.normal(size=model.flat_params.size) / 2
    if getattr(model, "tie_weights", False) is False and model.config().get("embedding_size") is None:
        for scaling in getattr(model, "scalings", {}).values():
            scaling.mean, scaling.std = rng.normal(size=scaling.mean.shape), rng.random(scaling.mean.shape) + 0.3
    return model


def models():
    for cell in CELLS:
        yield f"RNN of {cell}", filled(crnn.RNN(3, [4, 5], cell=cell))
        yield f"bidirectional RNN of {cell}", filled(crnn.RNN(3, 4, 2, cell=cell, bidirectional=True))
    for pooling in ("last", "mean", "max"):
        named = {"classes": ["a", "b", "c"], "pooling": pooling, "bidirectional": True}
        yield f"classifier {pooling}", filled(crnn.SequenceClassifier(3, None, 4, 2, **named))
    flat = crnn.SequenceClassifier(3, 2, 4, pooling="flatten", steps=6, label_smoothing=0.1)
    yield "classifier flatten", filled(flat)
    yield "multilabel tagger", filled(crnn.SequenceTagger(5, 3, 4, cell="lstm", embedding_size=2, multilabel=True))
    thresholds = {"multilabel": True, "thresholds": [0.3, 0.7]}
    yield "thresholds", filled(crnn.SequenceClassifier(3, 2, 4, **thresholds))
    yield "float64", filled(crnn.SequenceTagger(3, 2, 4, cell="lstm", dtype="float64", class_weight=[1.0, 2.0]))
    yield "regressor of steps", filled(crnn.SequenceRegressor(3, 2, 4, pooling=None, loss="huber", delta=2.0))
    yield "quantiles", filled(crnn.SequenceRegressor(3, 2, 4, loss="quantile", quantiles=[0.2, 0.8]))
    yield "dropout", filled(crnn.SequenceRegressor(3, 1, 4, 2, dropout=0.25, recurrent_dropout=0.5, pooling=None))
    yield "variational", filled(crnn.SequenceClassifier(3, 2, 4, 3, dropout=0.25, variational_dropout=True))
    yield "language model", filled(crnn.LanguageModel(VOCAB, "gru", 4, 2, embedding_size=3))
    yield "text classifier", filled(crnn.SequenceClassifier(None, 2, 4, vocab=VOCAB, embedding_size=3))
    yield "text tagger", filled(crnn.SequenceTagger(None, 4, 4, vocab=VOCAB, embedding_size=3))
    yield "tied", filled(crnn.LanguageModel(VOCAB, "lstm", 4, tie_weights=True, dropout=0.5))


MODELS = dict(models())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_saved_for_keras_and_loaded_is_the_same_file(tmp_path, name):
    model = MODELS[name]
    interop.save(model, tmp_path / "m.keras")
    assert interop.load(tmp_path / "m.keras").to_bytes() == model.to_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_weights_alone_give_the_model_that_the_arguments_say(tmp_path, name):
    model = MODELS[name]
    interop.save(model, tmp_path / "m.weights.h5")
    config = model.config()
    cell = config["cell"] if config["cell"] in ("relu", "original_gru") else None
    named = {each: config[each] for each in ("classes", "multilabel", "loss", "quantiles", "tie_weights")
             if each in config}
    if getattr(model, "vocab", None) is not None:
        named["vocab"] = VOCAB
    again = interop.load(
        tmp_path / "m.weights.h5", kind=type(model).__name__, cell=cell, pooling=config.get("pooling"), **named
    )
    assert again.flat_params.tobytes() == model.flat_params.tobytes()
    assert list(again.params) == list(model.params)
    for each, scaling in getattr(model, "scalings", {}).items():
        assert again.scalings[each].mean.tobytes() == scaling.mean.tobytes()
        assert again.scalings[each].std.tobytes() == scaling.std.tobytes()
    for option in ("cell", "bidirectional", "pooling", "multilabel", "output_size"):
        assert again.config().get(option) == config.get(option)


def test_every_option_of_a_model_is_decided(monkeypatch, tmp_path):
    options = {name for kind in KINDS.values() for name in kind.config_types}
    refused = {"precision", "adaptive_softmax", "dense_layers"}  # by `parts_of`
    assert options - refused <= writing.EXPRESSED | ONLY_TRAINING
    assert not writing.EXPRESSED & ONLY_TRAINING
    monkeypatch.setattr(writing, "ONLY_TRAINING", ONLY_TRAINING - {"dropout"})
    with pytest.raises(ValueError, match=r"^dropout: expected a model without this option, which Keras lacks"):
        interop.save(MODELS["tied"], tmp_path / "m.keras")


def test_the_same_model_is_always_the_same_file(tmp_path):
    for name in ("1.keras", "2.keras"):
        interop.save(MODELS["quantiles"], tmp_path / name)
    assert (tmp_path / "1.keras").read_bytes() == (tmp_path / "2.keras").read_bytes()


def test_an_old_file_stays_when_a_model_cannot_be_written(tmp_path):
    path = tmp_path / "m.keras"
    interop.save(MODELS["tied"], path)
    before = path.read_bytes()
    broken = crnn.RNN(2, 3)
    broken.params["layer0.b_h"][1] = np.inf
    with pytest.raises(ValueError, match=r"^layer0.b_h: expected finite"):
        interop.save(broken, path)
    assert path.read_bytes() == before


REFUSED = {
    "cell": (crnn.RNN(2, 3, cell="min_gru"), r"^cell: expected .*'lstm'.* which Keras can express, got 'min_gru'"),
    "trainable_initial_state": (
        crnn.RNN(2, 3, trainable_initial_state=True),
        r"^trainable_initial_state: expected False, which Keras can express, got True",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_keras_cannot_express_is_refused_by_name(tmp_path, name):
    model, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        interop.save(model, tmp_path / "m.keras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mean", "std", "dtype", "message"),
    [
        (101325.0, 0.01, "float32", r"^scaling.x: expected means of at most 1000 standard deviations.*astype"),
        (0.0, 1e-8, "float64", r"^scaling.x: expected standard deviations above 1e-07"),
        (0.0, 1e20, "float32", r"^scaling.x: expected standard deviations .* numbers below 1e\+18"),
    ],
)
def test_a_scaling_that_keras_would_round_away_is_refused(tmp_path, mean, std, dtype, message):
    model = crnn.SequenceClassifier(2, 2, 3, dtype=dtype)
    model.scalings["x"].mean[1], model.scalings["x"].std[1] = mean, std
    with pytest.raises(ValueError, match=message):
        interop.save(model, tmp_path / "m.keras")


def test_a_scaling_of_targets_that_float32_would_round_away_is_refused(tmp_path):
    model = crnn.SequenceRegressor(2, 1, 3)
    model.scalings["y"].mean[0], model.scalings["y"].std[0] = 101325.0, 0.01
    with pytest.raises(ValueError, match=r"^scaling.y: expected means of at most 1000 standard deviations"):
        interop.save(model, tmp_path / "m.keras")
    interop.save(model.astype("float64"), tmp_path / "m.keras")
    assert interop.load(tmp_path / "m.keras").scalings["y"].mean.tolist() == [101325.0]


def test_other_names_and_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^path: expected a name that ends in .keras or .weights.h5, got .*m.h5'"):
        interop.save(MODELS["tied"], tmp_path / "m.h5")
    with pytest.raises(TypeError, match=r"^model: expected one of RNN, .*, got dict"):
        interop.save({}, tmp_path / "m.keras")
    with pytest.raises(FileNotFoundError):
        interop.load(tmp_path / "none.keras")


@pytest.mark.thread_unsafe
def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    interop.save(MODELS["tied"], tmp_path / "m.keras")
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "keras", None)
    for call in (
        lambda: interop.load(tmp_path / "m.keras"),
        lambda: interop.save(MODELS["tied"], tmp_path / "n.keras"),
    ):
        with pytest.raises(ImportError, match=r"pip install 'crnn\[keras\]'"):
            call()
    with pytest.raises(ImportError, match=r"to_model needs Keras 3"):
        interop.to_model(MODELS["tied"])
    assert [each.name for each in tmp_path.iterdir()] == ["m.keras"]


# ---- configurations that Keras could have written --------------------------------------------------------------------


def archive(path, layers, arrays=None, *, compiled=None, members=(), bfloat16=False, **config):
    """A ``.keras`` archive of (class, configuration) pairs, and arrays by path."""
    entries = [
        {"module": "keras.layers", "class_name": kind, "config": {"name": f"n{i}", **of}, "registered_name": None}
        for i, (kind, of) in enumerate(layers)
    ]
    document = {"class_name": "Sequential", "config": {"name": "s", "layers": entries, **config}}
    if compiled is not None:
        document["compile_config"] = compiled
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("config.json", json.dumps(document))
        zipped.writestr("model.weights.h5", h5(arrays or {}, bfloat16))
        for name, content in members:
            zipped.writestr(name, content)
    return path


def h5(arrays, bfloat16=False):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
            if bfloat16:
                file[name].attrs["dtype"] = "bfloat16"
    return buffer.getvalue()


def lstm(D=3, H=4, name="lstm", rng=None):
    rng = rng or np.random.default_rng(0)
    shapes = (D, 4 * H), (H, 4 * H), (4 * H,)
    return {f"layers/{name}/cell/vars/{i}": rng.normal(size=s).astype("f4") for i, s in enumerate(shapes)}


def dense(K=4, V=2, name="dense"):
    return {f"layers/{name}/vars/0": np.ones((K, V), "f4"), f"layers/{name}/vars/1": np.arange(V, dtype="f4")}


WHOLE = {**lstm(), **dense()}
LSTM = ("LSTM", {"units": 4})
STEPS = ("LSTM", {"units": 4, "return_sequences": True})
SOFTMAX = ("Dense", {"units": 2, "activation": "softmax"})
LINEAR = ("Dense", {"units": 2})
SIGMOID = ("Dense", {"units": 2, "activation": "sigmoid"})
LOGITS = {"loss": {"class_name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}}


@pytest.mark.parametrize(
    ("layers", "options", "kind", "expected"),
    [
        ([LSTM, SOFTMAX], {}, "SequenceClassifier", {"pooling": "last", "multilabel": False, "num_classes": 2}),
        ([LSTM, SIGMOID], {}, "SequenceClassifier", {"pooling": "last", "multilabel": True}),
        ([LSTM, LINEAR], {}, "SequenceRegressor", {"pooling": "last", "output_size": 2}),
        ([LSTM, LINEAR], {"classes": ("a", "b")}, "SequenceClassifier", {"classes": ["a", "b"]}),
        ([LSTM, LINEAR, ("Softmax", {"axis": -1})], {}, "SequenceClassifier", {"multilabel": False}),
        ([LSTM, LINEAR, ("Activation", {"activation": "sigmoid"})], {}, "SequenceClassifier", {"multilabel": True}),
        ([STEPS, SOFTMAX], {}, "SequenceTagger", {}),
        ([STEPS, LINEAR], {"loss": "mae"}, "SequenceRegressor", {"pooling": None, "loss": "mae"}),
        ([STEPS, ("GlobalMaxPooling1D", {}), SOFTMAX], {}, "SequenceClassifier", {"pooling": "max"}),
        ([STEPS, ("GlobalAveragePooling1D", {}), LINEAR], {}, "SequenceRegressor", {"pooling": "mean"}),
        ([("InputLayer", {"batch_shape": [None, None, 3]}), LSTM, SOFTMAX], {}, "SequenceClassifier", {}),
        ([LSTM, ("Dropout", {"rate": 0.5}), LINEAR], {}, "SequenceRegressor", {"dropout": 0.5}),
        ([STEPS, ("SpatialDropout1D", {"rate": 0.5}), LINEAR], {}, "SequenceRegressor", {"variational_dropout": True}),
        ([("Dropout", {"rate": 0.5}), LSTM, LINEAR], {"dropout": 0.1}, "SequenceRegressor", {"dropout": 0.1}),
        ([("GaussianNoise", {"stddev": 0.5}), LSTM, LINEAR], {"dropout": 0.0}, "SequenceRegressor", {"dropout": 0.0}),
        ([("LSTM", {"recurrent_dropout": 0.3}), LINEAR], {}, "SequenceRegressor", {"recurrent_dropout": 0.3}),
        ([("LSTM", {"stateful": True, "kernel_regularizer": {"class_name": "L2"}}), LINEAR], {}, "SequenceRegressor",
         {}),
    ],
)
def test_head_activation_and_return_sequences_decide_the_kind(tmp_path, layers, options, kind, expected):
    model = interop.load(archive(tmp_path / "m.keras", layers, WHOLE), **options)
    assert type(model).__name__ == kind
    assert {name: model.config()[name] for name in expected} == expected
    assert (model.params["W_hy"] == 1).all()
    assert model.params["b_y"].tolist() == [0, 1]
    assert (model.params["layer0.W_xh"] == WHOLE["layers/lstm/cell/vars/0"]).all()


def test_a_loss_on_logits_makes_a_classifier(tmp_path):
    path = archive(tmp_path / "m.keras", [LSTM, LINEAR], WHOLE, compiled=LOGITS)
    assert isinstance(interop.load(path), crnn.SequenceClassifier)
    with pytest.raises(crnn.ModelFileError, match=r"kind: expected a linear head for a SequenceRegressor"):
        interop.load(path, kind="SequenceRegressor")


def test_the_next_fit_standardises_only_if_the_model_came_with_a_scaling(tmp_path):
    model = interop.load(archive(tmp_path / "m.keras", [LSTM, LINEAR], WHOLE))
    assert model.config()["scale"] is False
    assert interop.load(tmp_path / "m.keras", scale=True).config()["scale"] is True
    x = np.random.default_rng(0).normal(size=(4, 7, 3)) * 100
    before = model.predict(x)
    model.fit(x, np.ones((4, 2)), epochs=1, lr=1e-12, valid=None)
    assert np.abs(model.predict(x) - before).max() < 1e-6
    scaled = [("Normalization", {"mean": [1.0, 2.0, 3.0], "variance": [4.0, 9.0, 1.0]}), LSTM, LINEAR]
    model = interop.load(archive(tmp_path / "m.keras", scaled, WHOLE))
    model.fit(x, np.ones((4, 2)), epochs=1, lr=1e-12, valid=None)
    assert model.scalings["x"].mean.tolist() == [1, 2, 3]


def test_files_of_keras_2_have_other_names_for_the_same(tmp_path):
    shape = {"batch_input_shape": [None, None, 3]}
    layers = [
        {"class_name": "InputLayer", "config": {**shape, "name": "input_1"}, "name": "input_1", "inbound_nodes": []},
        {"class_name": "LSTM", "config": {"name": "lstm_7", "units": 4, "implementation": 2, "time_major": False},
         "name": "lstm_7", "inbound_nodes": [[["input_1", 0, 0, {}]]]},
        {"class_name": "Dense", "config": {"name": "out", "units": 2, "activation": "softmax"}, "name": "out",
         "inbound_nodes": [[["lstm_7", 0, 0, {}]]]},
    ]
    config = {"layers": layers, "input_layers": [["input_1", 0, 0]], "output_layers": [["out", 0, 0]]}
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = np.array([b"input_1", b"lstm_7", b"out"])
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for group, names in (("lstm_7", ("kernel:0", "recurrent_kernel:0", "bias:0")), ("out", ("kernel:0", "bias:0"))):
            root.create_group(group).attrs["weight_names"] = np.array([f"{group}/{name}".encode() for name in names])
            arrays = lstm() if group == "lstm_7" else dense()
            for name, array in zip(names, arrays.values(), strict=True):
                root[f"{group}/{group}/{name}"] = array
        file["optimizer_weights/x"] = np.ones(3)
    model = interop.load(tmp_path / "m.h5")
    assert isinstance(model, crnn.SequenceClassifier)
    assert (model.params["layer0.W_hh"] == lstm()["layers/lstm/cell/vars/1"]).all()
    older = {path.replace("layers/", "_layer_checkpoint_dependencies/"): array for path, array in WHOLE.items()}
    older["metrics/mean/vars/0"] = np.float32(1)
    pairs = [("LSTM", {"units": 4, **shape}), SOFTMAX]
    again = interop.load(archive(tmp_path / "m.keras", pairs, older))
    assert again.to_bytes() == model.to_bytes()


def test_weights_of_keras_2_without_a_configuration_are_in_the_order_of_their_list(tmp_path):
    arrays = {"words": [np.ones((5, 3), "f4")], "zz": list(lstm().values()), "aa": list(lstm(4, 2).values()),
              "mm": list(dense(2).values())}
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in arrays]
        for group, values in arrays.items():
            names = [f"{group}/v{i}:0" for i in range(len(values))]
            file.create_group(group).attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, values, strict=True):
                file[f"{group}/{name}"] = array
    model = interop.load(tmp_path / "w.h5", kind="SequenceClassifier", pooling="last")
    found = {name: model.config()[name] for name in ("cell", "hidden_size", "embedding_size")}
    assert found == {"cell": "lstm", "hidden_size": [4, 2], "embedding_size": 3}
    assert (model.params["layer1.W_xh"] == arrays["aa"][0]).all()


def test_a_vocabulary_makes_a_language_model(tmp_path):
    arrays = {"layers/embedding/vars/0": np.ones((4, 3), "f4"), **lstm(), **dense(V=4)}
    layers = [("Embedding", {"input_dim": 4, "output_dim": 3}), STEPS, ("Dense", {"activation": "softmax"})]
    model = interop.load(archive(tmp_path / "m.keras", layers, arrays), vocab=VOCAB)
    assert isinstance(model, crnn.LanguageModel)
    assert len(model.generate("a", length=5, seed=0)) == 5
    named = interop.load(tmp_path / "m.keras", vocab=VOCAB, classes=list("wxyz"))
    assert isinstance(named, crnn.SequenceTagger)
    assert len(named.predict(["abca"])[0]) == 4
    with pytest.raises(crnn.ModelFileError, match=r"m.keras: .*(shape|vocab)"):
        interop.load(tmp_path / "m.keras", vocab=crnn.Vocab.from_text("abc"))


def test_one_sigmoid_output_with_two_names_is_a_classifier_of_two(tmp_path):
    path = archive(tmp_path / "m.keras", [LSTM, ("Dense", {"activation": "sigmoid"})], {**lstm(), **dense(V=1)})
    x = np.random.default_rng(0).normal(size=(5, 7, 3))
    one, two = interop.load(path), interop.load(path, classes=["no", "yes"])
    assert one.config()["multilabel"]
    assert np.abs(two.predict_proba(x)[:, 1] - one.predict_proba(x)[:, 0]).max() < 1e-6
    assert two.predict(x).tolist() == ["yes" if p > 0.5 else "no" for p in one.predict_proba(x)[:, 0]]


@pytest.mark.parametrize(
    ("layer", "arrays"),
    [
        (("Normalization", {"axis": [-1]}), {"vars/0": [1.0, 2.0, 3.0], "vars/1": [4.0, 9.0, 0.0], "vars/2": 5}),
        (("Normalization", {"axis": -1, "mean": [1.0, 2.0, 3.0], "variance": [4.0, 9.0, 0.0]}), {}),
    ],
)
def test_a_normalization_becomes_the_scaling_with_keras_s_least_deviation(tmp_path, layer, arrays):
    stored = {f"layers/normalization/{name}": np.array(v, "f4") for name, v in arrays.items()} | WHOLE
    model = interop.load(archive(tmp_path / "m.keras", [layer, LSTM, SOFTMAX], stored))
    assert model.scalings["x"].mean.tolist() == [1, 2, 3]
    assert model.scalings["x"].std.tolist() == [2, 3, 1e-7]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_other_precisions_are_exact(tmp_path, dtype):
    arrays, bits = lstm(), {}
    for path, array in arrays.items():
        arrays[path] = (array.view(np.uint32) & 0xFFFF0000).view("f4") if dtype == "bfloat16" else array.astype(dtype)
        bits[path] = (array.view(np.uint32) >> 16).astype(np.uint16).view("V2") if dtype == "bfloat16" else arrays[path]
    path = archive(tmp_path / "m.keras", [LSTM], bits, bfloat16=dtype == "bfloat16")
    model = interop.load(path)
    assert model.dtype == ("float64" if dtype == "float64" else "float32")
    assert (model.params["layer0.W_hh"] == arrays["layers/lstm/cell/vars/1"]).all()


def test_a_rescaling_becomes_the_scaling(tmp_path):
    after = ("Rescaling", {"scale": 4.0, "offset": [1.0, 2.0]})
    layers = [("Rescaling", {"scale": 0.25, "offset": -1.0}), LSTM, LINEAR, after]
    model = interop.load(archive(tmp_path / "m.keras", layers, WHOLE))
    assert (model.scalings["x"].mean.tolist(), model.scalings["x"].std.tolist()) == ([4] * 3, [4] * 3)
    assert (model.scalings["y"].mean.tolist(), model.scalings["y"].std.tolist()) == ([1, 2], [4, 4])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([("Conv1D", {}), LSTM], r"layer 'n0' \(Conv1D\): expected one of Keras's layers"),
        ([("BatchNormalization", {}), LSTM], r"BatchNormalization"),
        ([LSTM, ("Dense", {"activation": "relu"})], r"layer 'n1' \(Dense\): expected activation .*no hidden"),
        ([LSTM, LINEAR, LINEAR], r"layer 'n2' \(Dense\): expected one Dense layer, the head"),
        ([("LSTM", {"go_backwards": True})], r"layer 'n0' \(LSTM\): expected go_backwards=False, got True"),
        ([("LSTM", {"return_state": True})], r"return_state=False"),
        ([("LSTM", {"time_major": True})], r"time_major=False"),
        ([("LSTM", {"activation": "relu"})], r"expected activation='tanh', got 'relu'"),
        ([("LSTM", {"activation": {"class_name": "function", "config": "mine"}})], r"activation: the name of one"),
        ([("LSTM", {"activation": {"class_name": "function", "config": "tanh"}})], r"activation: the name of one"),
        ([("LSTM", {"recurrent_activation": "hard_sigmoid"})], r"recurrent_activation=sigmoid, got 'hard_sigmoid'"),
        ([("SimpleRNN", {"activation": "gelu"})], r"expected activation='tanh' or 'relu', got 'gelu'"),
        ([("LSTM", {"peephole": True})], r"peephole=nothing that crnn does not know, got True"),
        ([("LSTM", {"units": 5})], r"layer 'n0' \(LSTM\): expected arrays of units=5, got \(4, 16\)"),
        ([("LSTM", {"use_bias": False})], r"expected 2 arrays"),
        ([LSTM, STEPS], r"layer 'n1' \(LSTM\): expected a recurrent layer before it that returns sequences"),
        ([("CuDNNLSTM", {})], r"CuDNNLSTM"),
        ([("ConvLSTM1D", {})], r"ConvLSTM1D"),
        ([("RNN", {"cell": {"class_name": "StackedRNNCells", "config": {}}})], r"got 'StackedRNNCells'"),
        ([("Bidirectional", {"merge_mode": "sum", "layer": {}})], r"merge_mode=concat, got 'sum'"),
        ([STEPS, ("GlobalMaxPooling1D", {"keepdims": True}), LINEAR], r"keepdims=False"),
        ([STEPS, ("GlobalMaxPooling1D", {"data_format": "channels_first"}), LINEAR], r"data_format=channels_last"),
        ([LSTM, LINEAR, ("Softmax", {"axis": 0})], r"expected axis="),
        ([LSTM, ("Dense", {"units": 3})], r"layer 'n1' \(Dense\): expected an array .*\(4, 3\), got 'float32 \(4, 2\)"),
        ([LSTM, ("Dense", {"activation": "elu"})], r"expected activation 'linear', 'softmax', 'sigmoid'"),
        ([("Dropout", {"rate": 0.5}), LSTM, LINEAR], r"dropout: expected one rate .*pass dropout="),
        ([("LSTM", {"dropout": 0.5}), LINEAR], r"dropout: expected one rate"),
        ([("GaussianNoise", {"stddev": 2}), LSTM, LINEAR], r"dropout: expected one rate .*got \['2'\] in other places"),
        ([LINEAR], r"expected a recurrent layer before it, got 'Dense'"),
        ([], r"expected a recurrent layer, one of SimpleRNN, LSTM, GRU, found none"),
    ],
)
def test_a_layer_that_crnn_does_not_have_is_refused_by_name(tmp_path, layers, message):
    path = tmp_path / "m.keras"
    groups = tuple(f"layers/{kind.lower()}/" for kind, _ in layers)
    archive(path, layers, {place: array for place, array in WHOLE.items() if place.startswith(groups)})
    with pytest.raises(crnn.ModelFileError, match=message) as error:
        interop.load(path)
    assert str(error.value).startswith(str(path))


def test_an_array_of_no_layer_is_refused_by_its_path(tmp_path):
    path = archive(tmp_path / "m.keras", [LSTM], WHOLE)
    with pytest.raises(crnn.ModelFileError, match=r"'layers/dense/vars/0': expected arrays of the model's layers only"):
        interop.load(path)
    for odd, message in (
        ("layers/lstm/cell/vars/3", r"layer 'n0' \(LSTM\): expected 3 arrays"),
        ("layers/lstm/cell/lora/0", r"'layers/lstm/cell/lora/0': expected arrays of a Sequential"),
        ("other/0", r"'other/0': expected arrays of a Sequential"),
    ):
        archive(path, [LSTM], {**lstm(), odd: np.ones(2, "f4")})
        with pytest.raises(crnn.ModelFileError, match=message):
            interop.load(path)


def test_states_of_optimizers_and_random_numbers_are_not_converted(tmp_path):
    arrays = {**lstm(), "optimizer/vars/0": np.int64(3), "layers/dropout/seed_generator/vars/0": np.uint32([1, 2])}
    dropout = [LSTM, ("Dropout", {"rate": 0.0})]
    assert isinstance(interop.load(archive(tmp_path / "m.keras", dropout, arrays)), crnn.RNN)


def functional(nodes, outputs):
    """The configuration of a functional model of layers with the names of the layers that each reads."""
    layers = [
        {"class_name": kind, "config": {"name": name, **of}, "name": name,
         "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else []}
        for name, kind, of, sources in nodes
    ]
    return {"class_name": "Functional", "config": {"layers": layers, "output_layers": [[n, 0, 0] for n in outputs]}}


START = ("i", "InputLayer", {}, [])


@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ([START, ("a", "LSTM", {}, ["i"]), ("b", "LSTM", {}, ["i"])], ["b"], r"'b': expected a chain of layers"),
        ([START, ("a", "LSTM", {}, ["i", "a"])], ["a"], r"'a': expected it to be used once, with one input"),
        ([START, ("a", "LSTM", {}, ["none"])], ["a"], r"'a': expected a chain of layers, got a model that branches"),
        ([START, ("j", "InputLayer", {}, [])], ["j"], r"expected a model with one input, got \['i', 'j'\]"),
        ([START, ("a", "LSTM", {}, ["b"]), ("b", "LSTM", {}, ["a"])], ["a"], r"got a model that branches"),
        ([START, ("a", "LSTM", {}, ["i"]), ("b", "Dense", {}, ["a"])], ["a"], r"expected the last layer .b. as the"),
        ([START, ("a", "LSTM", {}, ["i"])], ["a", "a"], r"expected the last layer 'a' as the one output"),
        ([START, ("m", "NotEqual", {}, ["i"]), ("a", "LSTM", {}, ["i"])], ["a"], r"'m': expected the mask of an Emb"),
        ([], [], r"expected a model with one input, got \[\]"),
    ],
)
def test_a_graph_that_is_no_chain_is_refused(tmp_path, nodes, outputs, message):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("config.json", json.dumps(functional(nodes, outputs)))
        zipped.writestr("model.weights.h5", h5({}))
    with pytest.raises(crnn.ModelFileError, match=message):
        interop.load(path)


@pytest.mark.parametrize("module", ["my.layers", "kerasy"])
def test_a_class_of_somebody_else_with_a_known_name_is_refused(tmp_path, module):
    path = archive(tmp_path / "m.keras", [LSTM], lstm())
    with zipfile.ZipFile(path) as zipped:
        document, weights = json.loads(zipped.read("config.json")), zipped.read("model.weights.h5")
    document["config"]["layers"][0] |= {"module": module, "registered_name": "Mine>LSTM"}
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("config.json", json.dumps(document))
        zipped.writestr("model.weights.h5", weights)
    with pytest.raises(crnn.ModelFileError, match=r"got 'Mine>LSTM'"):
        interop.load(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "Tree"}, ValueError, r"^kind: expected one of RNN"),
        ({"vocab": "abc"}, TypeError, r"^vocab: expected a Vocab, got str"),
        ({"hidden": 3}, TypeError, r"^unexpected argument 'hidden'"),
        ({"hidden_size": 3}, TypeError, r"^unexpected argument 'hidden_size', which the layers determine"),
        ({"pooling": "mean"}, TypeError, r"^pooling: expected none for a file with a configuration"),
        ({"pooling": "median"}, ValueError, r"^pooling: expected one of last, mean, max, flatten"),
        ({"cell": "gru"}, TypeError, r"^cell: expected none for a file with a configuration"),
        ({"cell": "elman"}, ValueError, r"^cell: expected one of"),
        ({"classes": ["a"]}, ValueError, r"classes: expected 2, as many as the head has outputs, got 1"),
        ({"multilabel": True}, ValueError, r"multilabel: expected False, as the activation 'softmax' says"),
        ({"kind": "SequenceTagger"}, ValueError, r"kind: expected 'SequenceClassifier' for layers that return one"),
        ({"kind": "SequenceRegressor"}, ValueError, r"kind: expected a linear head"),
        ({"kind": "RNN"}, ValueError, r"kind: expected a model with a head"),
        ({"kind": "LanguageModel"}, ValueError, r"vocab: expected the vocabulary of a language model, got none"),
        ({"tie_weights": True}, ValueError, r"SequenceClassifier: unexpected argument 'tie_weights'"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        interop.load(archive(tmp_path / "m.keras", [LSTM, SOFTMAX], WHOLE), **options)


def test_weights_with_a_head_need_the_kind(tmp_path):
    (tmp_path / "m.weights.h5").write_bytes(h5(WHOLE))
    with pytest.raises(crnn.ModelFileError, match=r"kind: expected it for weights with a head and no configuration"):
        interop.load(tmp_path / "m.weights.h5")


# ---- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooling", "bidirectional", "refused"),
    [("GlobalMaxPooling1D", False, True), ("GlobalMaxPooling1D", True, True), ("GlobalAveragePooling1D", True, False)],
)
def test_pooling_that_includes_masked_steps_is_refused_unless_masks_are_ignored(
    tmp_path, pooling, bidirectional, refused
):
    layer, arrays = STEPS, {**lstm(), **dense()}
    if bidirectional:
        layer = ("Bidirectional", {"layer": {"class_name": "LSTM", "config": {"units": 4, "return_sequences": True}}})
        one = lstm()
        arrays = {p.replace("lstm/", f"bidirectional/{way}_layer/"): a for way in ("forward", "backward")
                  for p, a in one.items()} | dense(K=8)
    path = archive(tmp_path / "m.keras", [("Masking", {"mask_value": 0.0}), layer, (pooling, {}), SOFTMAX], arrays)
    if refused:
        with pytest.raises(crnn.ModelFileError, match=r"GlobalMaxPooling1D.*ignore_mask=True"):
            interop.load(path)
    model = interop.load(path, ignore_mask=refused)
    assert isinstance(model, crnn.SequenceClassifier)


def test_masked_steps_are_left_out_wherever_they_are():
    ids = np.array([[0, 0, 3, 1], [2, 0, 3, 0], [1, 2, 3, 4]])
    assert [each.tolist() for each in interop.without_padding(ids)] == [[3, 1], [2, 3], [1, 2, 3, 4]]
    x = np.ones((2, 3, 2))
    x[0, 1:], x[1, 2, 0] = -1, -1  # a step is masked if all its numbers are
    assert [each.shape for each in interop.without_padding(x, -1)] == [(1, 2), (3, 2)]


def test_a_sequence_of_padding_alone_is_refused_by_number():
    with pytest.raises(ValueError, match=r"^x\[1\]: expected at least one step that is not masked"):
        interop.without_padding([[1, 2], [0, 0]])
    with pytest.raises(ValueError, match=r"^x: expected an array \(N, T, D\), or ids \(N, T\), got shape \(3,\)"):
        interop.without_padding([1, 2, 3])
