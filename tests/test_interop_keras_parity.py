# SPDX-License-Identifier: MIT
"""Keras agrees: outputs of models in both directions, and of files that either of them wrote."""

import re
from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn.interop import keras as interop

pytest.importorskip("h5py")
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of Keras under NumPy 2

TOLERANCE = 1e-6  # of outputs up to about 1, in float32; measured: 3.1e-7
CELLS = ("tanh", "relu", "lstm", "gru", "original_gru")
PAGE = Path(__file__).parents[1] / "docs" / "keras.md"  # not there when a wheel is tested
VOCAB = crnn.Vocab.from_text("abcde")


def filled(model, seed=0):
    """The crnn model with small random weights, biases too, and scalings."""
    rng = np.random.default_rng(seed)
    model.flat_params[...] = rng.normal(size=model.flat_params.size) / 3
    if model.config().get("embedding_size") is None:
        for scaling in getattr(model, "scalings", {}).values():
            scaling.mean, scaling.std = rng.normal(size=scaling.mean.shape), rng.random(scaling.mean.shape) + 0.3
    return model


def spread(keras_model, seed=0):
    """The Keras model with random weights everywhere, biases too."""
    rng = np.random.default_rng(seed)
    keras_model.set_weights([rng.normal(size=each.shape) / 3 for each in keras_model.get_weights()])
    return keras_model


def outputs_of_keras(model, x):
    return np.asarray(model(x, training=False).detach().cpu())


def outputs_of_crnn(model, x):
    """The outputs as (B, T, V) or (B, V), probabilities of a model of classes."""
    if isinstance(model, crnn.RNN):
        return model(x.swapaxes(0, 1))[0].swapaxes(0, 1)
    if isinstance(model, crnn.LanguageModel):
        logits = model.forward(x.T)[0].swapaxes(0, 1)
        return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return np.asarray(getattr(model, "predict_proba", getattr(model, "predict", None))(x))


def agree(model, keras_model, x, tolerance=TOLERANCE):
    ours, theirs = outputs_of_crnn(model, x), outputs_of_keras(keras_model, x)
    assert ours.shape == theirs.shape
    assert ours.std() > 1e-3
    error = np.abs(ours - theirs).max()
    assert error <= tolerance * max(1, np.abs(theirs).max())
    return error


def numbers(*shape):
    return np.random.default_rng(7).normal(size=shape).astype("f4")


def ids(*shape):
    return np.random.default_rng(7).integers(0, 5, shape)


# ---- Keras to crnn ---------------------------------------------------------------------------------------------------

MAKERS = {
    "tanh": lambda keras, H, **of: keras.layers.SimpleRNN(H, **of),
    "relu": lambda keras, H, **of: keras.layers.SimpleRNN(H, activation="relu", **of),
    "lstm": lambda keras, H, **of: keras.layers.LSTM(H, **of),
    "gru": lambda keras, H, **of: keras.layers.GRU(H, **of),
    "original_gru": lambda keras, H, **of: keras.layers.GRU(H, reset_after=False, **of),
}
HEADS = {
    "classifier": ("last", "softmax", crnn.SequenceClassifier),
    "multilabel": ("mean", "sigmoid", crnn.SequenceClassifier),
    "regressor": ("max", "linear", crnn.SequenceRegressor),
    "tagger": (None, "softmax", crnn.SequenceTagger),
    "regressor of steps": (None, None, crnn.SequenceRegressor),
    "none": (None, "none", crnn.RNN),
}


def keras_model_of(keras, cell, layers, bidirectional, head, **options):
    pooling, activation, kind = HEADS[head]
    L = keras.layers
    chain = [L.Input((None, 3))]
    for i in range(layers):
        returns = i < layers - 1 or pooling != "last"
        layer = MAKERS[cell](keras, 4 + i, return_sequences=returns, **options)
        chain.append(L.Bidirectional(layer) if bidirectional else layer)
    if pooling in ("mean", "max"):
        chain.append({"mean": L.GlobalAveragePooling1D, "max": L.GlobalMaxPooling1D}[pooling]())
    if activation == "none":
        pass
    elif head == "regressor of steps":
        chain.append(L.TimeDistributed(L.Dense(2)))
    else:
        chain.append(L.Dense(3, activation=activation))
    return spread(keras.Sequential(chain)), kind


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "two ways"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_keras_model_in_memory_and_its_file_become_a_model_that_agrees(
    keras, tmp_path, cell, layers, bidirectional, head
):
    keras_model, kind = keras_model_of(keras, cell, layers, bidirectional, head)
    model = interop.from_model(keras_model)
    assert type(model) is kind
    assert model.config()["cell"] == cell
    assert agree(model, keras_model, numbers(2, 6, 3)) < TOLERANCE
    keras_model.save(tmp_path / "m.keras")
    assert interop.load(tmp_path / "m.keras").to_bytes() == model.to_bytes()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_format_of_a_file_gives_the_same_model(keras, tmp_path, cell):
    keras_model, _ = keras_model_of(keras, cell, 2, True, "classifier")
    expected = interop.from_model(keras_model)
    keras_model.save(tmp_path / "m.h5")
    assert interop.load(tmp_path / "m.h5").to_bytes() == expected.to_bytes()
    keras_model.save_weights(tmp_path / "m.weights.h5")
    stated = cell if cell in ("relu", "original_gru") else None
    of_weights = interop.load(tmp_path / "m.weights.h5", kind="SequenceClassifier", pooling="last", cell=stated)
    assert of_weights.to_bytes() == expected.to_bytes()


@pytest.mark.parametrize("cell", CELLS)
def test_layers_without_biases_agree(keras, cell):
    keras_model, _ = keras_model_of(keras, cell, 2, True, "none", use_bias=False)
    model = interop.from_model(keras_model)
    assert agree(model, keras_model, numbers(2, 6, 3)) < TOLERANCE
    assert not model.params["layer0.b_h"].any()


def test_a_trained_model_with_an_optimizer_and_metrics_is_loaded(keras, tmp_path):
    L = keras.layers
    keras_model = keras.Sequential([L.Input((None, 3)), L.LSTM(4, dropout=0.0), L.Dropout(0.25), L.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras_model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    keras_model.fit(numbers(8, 5, 3), np.arange(8) % 2, epochs=1, verbose=0)
    keras_model.save(tmp_path / "m.keras")
    model = interop.load(tmp_path / "m.keras")
    assert type(model) is crnn.SequenceClassifier
    assert model.to_bytes() == interop.from_model(keras_model).to_bytes()
    assert model.config()["dropout"] == 0.25
    logits = outputs_of_keras(keras_model, numbers(2, 6, 3))
    wanted = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert np.abs(model.predict_proba(numbers(2, 6, 3)) - wanted).max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_weights_of_other_precisions_are_exact(keras, tmp_path, dtype):
    layer = keras.layers.GRU(4, return_sequences=True, dtype=dtype)
    keras_model = spread(keras.Sequential([keras.layers.Input((None, 3)), layer]))
    keras_model.save(tmp_path / "m.keras")
    model = interop.load(tmp_path / "m.keras")
    assert model.dtype == ("float64" if dtype == "float64" else "float32")
    kernel = np.asarray(layer.get_weights()[0], model.dtype).reshape(3, 3, 4)[:, [1, 0, 2]].reshape(3, 12)
    assert (model.params["layer0.W_xh"] == kernel).all()


def test_functional_models_and_cells_in_an_rnn_layer_agree(keras, tmp_path):
    L = keras.layers
    x = L.Input((None, 3))
    y = L.RNN(L.GRUCell(4), return_sequences=True)(L.Masking(-1.0)(x))
    y = L.GlobalAveragePooling1D()(L.RNN(L.GRUCell(5), return_sequences=True)(y))
    keras_model = spread(keras.Model(x, L.Dense(2)(y)))
    keras_model.save(tmp_path / "m.keras")
    model = interop.load(tmp_path / "m.keras")
    assert agree(model, keras_model, numbers(2, 6, 3)) < TOLERANCE
    assert interop.from_model(keras_model).to_bytes() == model.to_bytes()


def branching(keras):
    L = keras.layers
    x = L.Input((None, 3))
    y = L.LSTM(4)(x)
    yield "branches", keras.Model(x, L.Dense(2)(L.Concatenate()([y, L.GRU(4)(x)])))
    yield "one output", keras.Model(x, [y, L.Dense(2)(y)])
    yield "branches|one input", keras.Model([x, z := L.Input((4,))], L.LSTM(4)(x, initial_state=[z, z]))
    yield "as the one output", keras.Model(x, L.LSTM(4, return_state=True)(x))
    yield "Sequential", keras.Sequential([L.Input((None, 3)), keras.Sequential([L.LSTM(4)])])
    yield "Bidirectional in all", keras.Sequential(
        [L.Input((None, 3)), L.Bidirectional(L.LSTM(4, return_sequences=True)), L.LSTM(3)]
    )
    yield "cell of all", keras.Sequential([L.Input((None, 3)), L.GRU(4, return_sequences=True), L.LSTM(3)])
    yield "one of SimpleRNN", keras.Sequential([L.Input((None, 3)), L.Bidirectional(L.LSTM(2), merge_mode="sum")])


def test_models_that_are_no_chain_of_crnn_s_layers_are_refused(keras, tmp_path):
    messages = []
    for message, keras_model in branching(keras):
        with pytest.raises(ValueError, match=message if "one of" not in message else "merge_mode=concat"):
            interop.from_model(keras_model)
        keras_model.save(tmp_path / "m.keras")
        with pytest.raises(crnn.ModelFileError, match=r"m\.keras: "):
            interop.load(tmp_path / "m.keras")
        messages.append(message)
    assert len(messages) == 8


def test_something_else_is_refused():
    with pytest.raises(TypeError, match=r"^keras_model: expected a Keras model, got list"):
        interop.from_model([])


# ---- masks -----------------------------------------------------------------------------------------------------------


def masked_model(keras, cell, bidirectional, head):
    L = keras.layers
    plain, _ = keras_model_of(keras, cell, 2, bidirectional, head)
    return spread(keras.Sequential([L.Input((None,)), L.Embedding(5, 3, mask_zero=True), *plain.layers]))


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "two ways"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("head", ["classifier", "multilabel", "tagger"])
def test_sequences_without_padding_give_what_keras_computes_with_its_masks(keras, cell, bidirectional, head):
    keras_model = masked_model(keras, cell, bidirectional, head)
    padded = np.array([[1, 2, 3, 0, 0], [4, 4, 1, 2, 3], [0, 0, 2, 3, 1], [1, 0, 2, 0, 4]])
    expected = outputs_of_keras(keras_model, padded)
    found = interop.from_model(keras_model).predict_proba(interop.without_padding(padded))
    for ours, theirs, steps in zip(found, expected, padded > 0, strict=True):
        assert np.abs(ours - (theirs[steps] if head == "tagger" else theirs)).max() < TOLERANCE


@pytest.mark.parametrize("functional", [False, True], ids=["sequential", "functional"])
def test_masked_steps_of_numbers_are_left_out_too(keras, tmp_path, functional):
    L = keras.layers
    plain, _ = keras_model_of(keras, "gru", 2, True, "multilabel")
    keras_model = spread(keras.Sequential([L.Input((None, 3)), L.Masking(-1.0), *plain.layers]))
    if functional:
        x = y = L.Input((None, 3))
        for layer in keras_model.layers:
            y = layer(y)
        keras_model = keras.Model(x, y)
    x = numbers(2, 6, 3)
    x[0, 4:], x[1, [0, 2]] = -1, -1
    keras_model.save(tmp_path / "m.keras")
    found = interop.load(tmp_path / "m.keras").predict_proba(interop.without_padding(x, -1))
    assert np.abs(found - outputs_of_keras(keras_model, x)).max() < TOLERANCE


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Keras, that its maximum ignores masks
def test_the_maximum_of_keras_includes_masked_steps_so_it_is_refused_with_a_mask(keras):
    keras_model = masked_model(keras, "lstm", False, "regressor")
    with pytest.raises(ValueError, match=r"GlobalMaxPooling1D.*ignore_mask=True"):
        interop.from_model(keras_model)
    model = interop.from_model(keras_model, ignore_mask=True)
    padded, whole = np.array([[0, 0, 2, 3, 1]]), np.array([[4, 4, 1, 2, 3]])
    assert np.abs(model.predict(whole) - outputs_of_keras(keras_model, whole)).max() < TOLERANCE
    assert np.abs(model.predict([padded[0, 2:]]) - outputs_of_keras(keras_model, padded)).max() > 1e-3  # Keras's zeros


# ---- crnn to Keras ---------------------------------------------------------------------------------------------------


def models():
    for cell in CELLS:
        yield f"RNN of {cell}", crnn.RNN(3, [4, 5], cell=cell, bidirectional=True), numbers(2, 6, 3)
    for pooling in ("last", "mean", "max", "flatten"):
        steps = 6 if pooling == "flatten" else None
        made = crnn.SequenceClassifier(3, 2, 4, 2, pooling=pooling, steps=steps, dropout=0.5, variational_dropout=True)
        yield f"classifier {pooling}", made, numbers(2, 6, 3)
    yield "multilabel tagger", crnn.SequenceTagger(5, 3, 4, embedding_size=2, multilabel=True), ids(2, 6)
    yield "regressor", crnn.SequenceRegressor(3, 2, 4, 2, cell="lstm", recurrent_dropout=0.5), numbers(2, 6, 3)
    yield "regressor of steps", crnn.SequenceRegressor(3, 2, 4, pooling=None, bidirectional=True), numbers(2, 6, 3)
    yield "language model", crnn.LanguageModel(VOCAB, "lstm", 4, tie_weights=True, dropout=0.5), ids(2, 6)


MODELS = {name: (filled(model), x) for name, model, x in models()}


@pytest.mark.parametrize("name", MODELS)
def test_keras_opens_what_crnn_writes_and_agrees(keras, tmp_path, name):
    model, x = MODELS[name]
    interop.save(model, tmp_path / "m.keras")
    keras_model = keras.saving.load_model(tmp_path / "m.keras")
    assert agree(model, keras_model, x) < TOLERANCE
    made = interop.to_model(model)
    weights = [each.tobytes() for each in keras_model.get_weights()]
    assert [each.tobytes() for each in made.get_weights()] == weights
    interop.save(model, tmp_path / "m.weights.h5")
    made.set_weights([each * 0 for each in made.get_weights()])
    made.load_weights(tmp_path / "m.weights.h5")
    assert [each.tobytes() for each in made.get_weights()] == weights
    vocab = {"vocab": VOCAB} if isinstance(model, crnn.LanguageModel) else {}
    again = interop.from_model(keras_model, **vocab)
    assert type(again) is type(model)
    if not model.config().get("tie_weights"):
        assert again.flat_params.tobytes() == model.flat_params.tobytes()
    for option in ("dropout", "recurrent_dropout", "pooling", "multilabel", "bidirectional"):
        assert again.config().get(option) == model.config().get(option)
    same_scalings(again, model)


def same_scalings(model, expected):
    """The scalings are the same but for Keras's float32."""
    for name, scaling in getattr(expected, "scalings", {}).items():
        for found, wanted in ((model.scalings[name].mean, scaling.mean), (model.scalings[name].std, scaling.std)):
            assert np.abs(found / wanted - 1).max() < 1e-6 if wanted.all() else (found == wanted).all()


def test_keras_saves_what_it_has_opened_and_crnn_loads_that(keras, tmp_path):
    model, _ = MODELS["classifier mean"]
    interop.save(model, tmp_path / "m.keras")
    keras.saving.load_model(tmp_path / "m.keras").save(tmp_path / "again.keras")
    again = interop.load(tmp_path / "again.keras")
    assert again.flat_params.tobytes() == model.flat_params.tobytes()
    assert again.config() == model.config()
    same_scalings(again, model)


def test_a_model_of_ids_without_an_embedding_takes_one_hot_vectors_in_keras(keras, tmp_path):
    model = filled(crnn.LanguageModel(VOCAB, "gru", 4))
    interop.save(model, tmp_path / "m.keras")
    keras_model = keras.saving.load_model(tmp_path / "m.keras")
    expected = outputs_of_keras(keras_model, np.eye(len(VOCAB), dtype="f4")[ids(2, 6)])
    assert np.abs(outputs_of_crnn(model, ids(2, 6)) - expected).max() < TOLERANCE
    assert interop.from_model(keras_model, vocab=VOCAB).flat_params.tobytes() == model.flat_params.tobytes()


def test_a_keras_model_that_predicts_after_the_last_step_is_a_language_model(keras):
    L = keras.layers
    plain = [L.Input((None,)), L.Embedding(5, 3), L.LSTM(4), L.Dense(5, activation="softmax")]
    keras_model = spread(keras.Sequential(plain))
    model = interop.from_model(keras_model, vocab=VOCAB)
    assert type(model) is crnn.LanguageModel
    last = outputs_of_crnn(model, ids(2, 6))[:, -1]
    assert np.abs(last - outputs_of_keras(keras_model, ids(2, 6))).max() < TOLERANCE


def test_quantiles_of_keras_are_those_of_the_first_level_and_then_of_the_next(keras):
    model = filled(crnn.SequenceRegressor(3, 2, 4, loss="quantile", quantiles=[0.1, 0.5, 0.9]))
    x = numbers(2, 6, 3)
    found = outputs_of_keras(interop.to_model(model), x)
    assert found.shape == (2, 6)
    assert np.abs(found.reshape(2, 3, 2).swapaxes(1, 2) - model.predict(x)).max() < TOLERANCE * 3
    again = interop.from_model(interop.to_model(model), loss="quantile")
    assert again.flat_params.tobytes() == model.flat_params.tobytes()
    same_scalings(again, model)


def test_a_float64_model_keeps_the_digits_of_a_sensor_in_keras(keras):
    model = filled(crnn.SequenceRegressor(3, 2, 4, dtype="float64"))
    for scaling in model.scalings.values():
        scaling.mean[0], scaling.std[0] = 101325.123, 0.01  # which float32 rounds by 0.007
    x = np.random.default_rng(7).normal(size=(2, 6, 3)) * model.scalings["x"].std + model.scalings["x"].mean
    keras_model = interop.to_model(model)
    assert np.abs(outputs_of_keras(keras_model, x) - model.predict(x)).max() < 1e-6
    assert interop.from_model(keras_model).to_bytes() == model.to_bytes()


def test_keras_s_normalization_that_has_learnt_from_data_becomes_the_scaling(keras, tmp_path):
    L = keras.layers
    normalization = L.Normalization()
    x = numbers(4, 6, 3) * [1, 10, 100] + [0, 5, 1000]
    normalization.adapt(x)
    keras_model = keras.Sequential([L.Input((None, 3)), normalization, L.LSTM(4), L.Dense(2, activation="softmax")])
    keras_model.save(tmp_path / "m.keras")
    model = interop.load(tmp_path / "m.keras")
    assert np.abs(model.scalings["x"].std / x.std(axis=(0, 1)) - 1).max() < 1e-5
    assert agree(model, keras_model, x.astype("f4"), 1e-4) < 1e-4


@pytest.mark.thread_unsafe
@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of this tree")
def test_the_code_of_the_page_runs(keras, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python keras\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert len(blocks) > 3
