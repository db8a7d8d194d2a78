# SPDX-License-Identifier: MIT
"""Files of every kind of model: what comes back, and what a hostile one gets. See test_serialize for files as such."""

import json
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
from file_tools import edit, save_file, take_apart
from hypothesis import HealthCheck, given, settings
from kernel_tools import assert_same_bits
from model_tools import network, stir
from task_tools import CELLS, LENGTHS, D, V, answers, classifier, labels, reals, regressor, tagger, values
from test_serialize import poke, refused, set_config, set_tensor

import crnn
from crnn import ModelFileError

pytestmark = pytest.mark.thread_unsafe  # files at the same path, damaged and read again

NAMES = ["up", "down", "level", "\u2028\U0001f600"]


def named(**options):
    return crnn.SequenceClassifier(D, classes=NAMES, hidden_size=5, **options)


KINDS = {
    "classifier": lambda **o: classifier(class_weight=[1, 2, 0.5, 3], label_smoothing=0.1, **o),
    "names": lambda **o: named(pooling="mean", **o),
    "numbers": lambda **o: crnn.SequenceTagger(D, classes=[-3, 5, 0, 2**70], hidden_size=[4, 5], **o),
    "mixed": lambda **o: crnn.SequenceTagger(D, classes=["1", 1, "", 0], hidden_size=5, **o),
    "questions": lambda **o: tagger(multilabel=True, class_weight=[1, 2, 3, 4], **o),
    "flatten": lambda **o: classifier(pooling="flatten", steps=4, bidirectional=True, **o),
    "embedding": lambda **o: classifier(embedding_size=4, **o),
    "regressor": lambda **o: regressor(loss="huber", delta=0.3, pooling="max", **o),
    "quantiles": lambda **o: regressor(loss="quantile", quantiles=[0.3, 0.7], pooling=None, **o),
    "dense": lambda **o: crnn.SequenceTagger(D, V, hidden_size=[4, 5, 3], dense_layers=True, **o),
    "unscaled": lambda **o: regressor(
        scale=False, trainable_initial_state=True, dropout=0.2, variational_dropout=True, **o
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def data_for(model, rng):
    lengths = [4] * 7 if model.steps else LENGTHS
    X = [rng.integers(D, size=n) for n in lengths] if model.net.embedding_size else reals(rng, lengths)
    single = model.pooling is not None
    if isinstance(model, crnn.SequenceRegressor):
        return X, values(rng, [(2,) if single else (n, 2) for n in lengths])
    if model.multilabel:
        return X, answers(rng, [(V,) if single else (n, V) for n in lengths])
    y = labels(rng, None if single else lengths)
    if model.classes is not None:
        name = lambda n: model.classes[n] if n >= 0 else -1  # noqa: E731
        y = [name(n) for n in y] if single else [[name(n) for n in row] for row in y]
    return X, y


@kinds
@pytest.mark.parametrize("cell", CELLS[2:])
def test_a_model_comes_back_whole(rng, tmp_path, dtype, kind, cell):
    model = KINDS[kind](dtype=dtype.name, cell=cell)
    X, y = data_for(model, rng)
    model.fit(X, y, epochs=1)
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    assert type(loaded) is type(model)
    assert loaded.config() == model.config()
    assert repr(loaded) == repr(model)
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert loaded.scalings.keys() == model.scalings.keys()
    for name, scaling in model.scalings.items():
        assert_same_bits(loaded.scalings[name].mean, scaling.mean)
        assert_same_bits(loaded.scalings[name].std, scaling.std)
        assert (scaling.std != 1).any() == (kind not in ("unscaled", "embedding"))
    for one, other in zip(loaded.predict(X), model.predict(X), strict=True):
        assert np.array_equal(one, other)
        assert type(one) is type(other)
    assert loaded.evaluate(X, y) == model.evaluate(X, y)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    loaded.fit(X, y, epochs=1)
    assert np.isfinite(loaded.astype("float64").flat_params).all()


@pytest.mark.parametrize("cell", CELLS)
def test_a_network_comes_back_whole(tmp_path, dtype, cell):
    options = {
        "bidirectional": True,
        "trainable_initial_state": True,
        "recurrent_init": "0.5*identity",
        "input_init": "uniform",
    }
    net = network(D, [5, 7], None, dtype=dtype.name, forget_bias=2, dropout=0.25, cell=cell, **options)
    net.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    assert loaded.config() == net.config()
    assert_same_bits(loaded.flat_params, net.flat_params)


def forecaster(**options):
    model = crnn.Forecaster(2, window=4, hidden_size=2, epochs=1, **options)
    return model.fit(np.sin(np.arange(40.0)))


@pytest.mark.parametrize("dense_layers", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda **o: crnn.RNN(2, 3, 2, **o),
        lambda **o: crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=3, **o),
        lambda **o: crnn.SequenceClassifier(2, 2, hidden_size=3, **o),
        lambda **o: crnn.SequenceToSequence(3, 4, hidden_size=3, **o),
        forecaster,
    ],
    ids=["network", "language model", "classifier", "translator", "forecaster"],
)
def test_dense_layers_are_in_a_file_only_if_there_are_some(make, dense_layers):
    """Other files have not changed since there was this option, so that earlier versions read them."""
    model = make(dense_layers=dense_layers)
    assert (b"dense_layers" in model.to_bytes()) == dense_layers
    again = pickle.loads(pickle.dumps(model))
    assert again.config()["dense_layers"] is model.config()["dense_layers"] is dense_layers
    assert again.to_bytes() == model.to_bytes()


@pytest.mark.parametrize("input_init", [None, "uniform"])
def test_a_loaded_models_network_is_described_as_before(tmp_path, input_init):
    of_text = crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=5, input_init=input_init)
    for model in (of_text, classifier(input_init=input_init or "unit_variance"), regressor(recurrent_init="glorot")):
        model.save(tmp_path / "m")
        loaded = crnn.load(tmp_path / "m")
        assert loaded.net.config() == model.net.config()
        assert loaded.config() == model.config()


def test_a_loaded_model_does_not_depend_on_its_file(rng, tmp_path):
    model = regressor()
    X, y = data_for(model, rng)
    model.fit(X, y, epochs=1)
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    before = loaded.predict(X)
    stir(model.flat_params)
    model.scalings["x"].mean += 1  # nor on the model it was
    model.save(tmp_path / "m")
    assert_same_bits(loaded.predict(X), before)


# ---- hostile files -------------------------------------------------------------------------------------------------


def drop(name):
    return lambda tensors, header: tensors.pop(name)


def add(name, tensor):
    return lambda tensors, header: tensors.update({name: tensor})


def kind_is(name):
    return lambda tensors, header: header.update(kind=name)


ONE = np.ones(1)
EVERY = {
    "kind is unknown": kind_is("SequenceGuesser"),
    "kind is another's": kind_is("RNN"),
    "kind is a language model": kind_is("LanguageModel"),
    "kind is a checkpoint": kind_is("checkpoint"),
    "kind is a class of Python": kind_is("dict"),
    "kind is null": kind_is(None),
    "config is null": lambda tensors, header: header.update(config=None),
    "config has a key too many": set_config(seed=1),
    "config lacks a key": lambda tensors, header: header["config"].pop("input_size"),
    "input_size is wrong": set_config(input_size=4),
    "input_size is absurd": set_config(input_size=10**12),
    "input_size is true": set_config(input_size=True),
    "hidden_size is null": set_config(hidden_size=None),
    "hidden_size is empty": set_config(hidden_size=[]),
    "hidden_size has texts": set_config(hidden_size=["5"]),
    "hidden_size is too long": set_config(hidden_size=[5, 5]),
    "hidden_size is endless": set_config(hidden_size=[1] * 20_000, num_layers=20_000),
    "num_layers is absurd": set_config(num_layers=10**18),
    "num_layers is a float": set_config(num_layers=1.0),
    "bidirectional is 1": set_config(bidirectional=1),
    "bidirectional is other": set_config(bidirectional=True),
    "trainable_initial_state is other": set_config(trainable_initial_state=True),
    "cell is other": set_config(cell="lstm"),
    "forget_bias is a text": set_config(forget_bias="1"),
    "forget_bias is too long": set_config(forget_bias=10**400),
    "forget_bias is NaN": set_config(forget_bias=float("nan")),
    "dropout is 1": set_config(dropout=1.0),
    "dropout is too long": set_config(dropout=10**400),
    "recurrent_dropout is NaN": set_config(recurrent_dropout=float("nan")),
    "variational_dropout is null": set_config(variational_dropout=None),
    "scale is null": set_config(scale=None),
    "dtype is other": set_config(dtype="float64"),
    "recurrent_init is a file": set_config(recurrent_init="/etc/passwd"),
    "scaling's mean is missing": drop("scaling.x.mean"),
    "scaling's deviation is missing": drop("scaling.x.std"),
    "scaling's mean is NaN": set_tensor("scaling.x.mean", poke(np.nan)),
    "scaling's mean is infinite": set_tensor("scaling.x.mean", poke(np.inf)),
    "scaling's deviation is 0": set_tensor("scaling.x.std", poke(0)),
    "scaling's deviation is negative": set_tensor("scaling.x.std", poke(-1)),
    "scaling's deviation is NaN": set_tensor("scaling.x.std", poke(np.nan)),
    "scaling is single": set_tensor("scaling.x.mean", lambda tensor: tensor.astype(np.float32)),
    "scaling is longer": set_tensor("scaling.x.std", lambda tensor: np.append(tensor, 1)),
    "scaling has another shape": set_tensor("scaling.x.mean", lambda tensor: tensor[:, None]),
    "scaling of something else": add("scaling.z.mean", ONE),
    "vocabulary's tensor": add("embedding", np.ones((3, 3), np.float32)),
    "head is missing": drop("W_hy"),
    "head is NaN": set_tensor("W_hy", poke([np.nan])),
    "head is transposed": set_tensor("W_hy", lambda tensor: np.ascontiguousarray(tensor.T)),
}
OF_KIND = {
    "classifier": {
        "num_classes is other": set_config(num_classes=3),
        "num_classes is absurd": set_config(num_classes=10**15),
        "num_classes is null": set_config(num_classes=None),
        "pooling is unknown": set_config(pooling="min"),
        "pooling is null": set_config(pooling=None),
        "pooling is a list": set_config(pooling=["last"]),
        "pooling is flatten": set_config(pooling="flatten"),
        "steps are given": set_config(steps=1),
        "steps are absurd": set_config(pooling="flatten", steps=10**15),
        "steps are 0": set_config(pooling="flatten", steps=0),
        "class_weight is short": set_config(class_weight=[1.0]),
        "class_weight has texts": set_config(class_weight=["a"] * V),
        "class_weight has lists": set_config(class_weight=[[1.0]] * V),
        "class_weight is NaN": set_config(class_weight=[float("nan")] * V),
        "class_weight is too long": set_config(class_weight=[10**400] * V),
        "label_smoothing is 1": set_config(label_smoothing=1.0),
        "label_smoothing is too long": set_config(label_smoothing=10**400),
        "multilabel is smoothed": set_config(multilabel=True),
        "multilabel is 1": set_config(multilabel=1),
        "scaling of y": add("scaling.y.mean", ONE),
    },
    "names": {
        "classes repeat": set_config(classes=["a", "a", "b", "c"]),
        "classes are too few": set_config(classes=["a", "b", "c"]),
        "classes are none": set_config(classes=[]),
        "classes are a text": set_config(classes="abcd"),
        "classes are null": set_config(classes=[None, 1, 2, 3]),
        "classes are real": set_config(classes=[1.5, 2.0, 3.0, 4.0]),
        "classes are true": set_config(classes=[True, False, 2, 3]),
        "classes are lists": set_config(classes=[[1], [2], [3], [4]]),
        "classes are objects": set_config(classes=[{"a": 1}, 2, 3, 4]),
        "classes are very many": set_config(classes=["a"] * 100_000),
    },
    "numbers": {
        "pooling is given": set_config(pooling="last"),
        "classes repeat": set_config(classes=[1, 1, 2, 3]),
    },
    "flatten": {
        "steps are other": set_config(steps=5),
        "steps are null": set_config(steps=None),
        "pooling is other": set_config(pooling="mean"),
    },
    "embedding": {"embedding_size is other": set_config(embedding_size=5), "none": set_config(embedding_size=None)},
    "regressor": {
        "output_size is other": set_config(output_size=1),
        "output_size is absurd": set_config(output_size=10**15),
        "loss is unknown": set_config(loss="l2"),
        "loss is a list": set_config(loss=["mse"]),
        "loss is quantile": set_config(loss="quantile"),
        "delta is 0": set_config(delta=0),
        "delta is NaN": set_config(delta=float("nan")),
        "delta is infinite": set_config(delta=float("inf")),
        "delta is too long": set_config(delta=10**400),
        "delta is true": set_config(delta=True),
        "quantiles are texts": set_config(quantiles=["0.5"]),
        "quantiles are lists": set_config(quantiles=[[0.5]]),
        "quantiles are too long": set_config(quantiles=[10**400]),
        "quantiles are none": set_config(quantiles=[]),
        "y is not scaled": drop("scaling.y.mean"),
        "y's deviation is 0": set_tensor("scaling.y.std", poke(0)),
    },
    "quantiles": {
        "quantiles are too many": set_config(quantiles=[0.1, 0.2, 0.3]),
        "quantiles are none": set_config(quantiles=[]),
        "quantiles are 0": set_config(quantiles=[0.0, 0.5]),
        "quantiles are very many": set_config(quantiles=[0.5] * 100_000),
    },
}
CASES = [(kind, name) for kind in ("classifier", "regressor", "numbers") for name in EVERY]
CASES += [(kind, name) for kind, damages in OF_KIND.items() for name in damages]


@pytest.mark.parametrize(("kind", "damage"), CASES)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, kind, damage):
    path = tmp_path / "m"
    KINDS[kind]().save(path)
    edit(path, OF_KIND.get(kind, {}).get(damage) or EVERY[damage])
    refused(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([10**400, 2**31, -1, 0, "last", "mse", "lstm", "float32"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_a_config_holds_is_refused_or_makes_a_model_that_can_be_saved(tmp_path, kind, data):
    path = tmp_path / "m"
    KINDS[kind]().save(path)
    tensors, header = take_apart(path)
    header["config"][data.draw(st.sampled_from(sorted(header["config"])))] = data.draw(JSON)
    save_file(tensors, path, {"crnn": json.dumps(header)})
    model = message = None
    try:
        model = crnn.load(path)
    except ModelFileError as error:
        message = str(error)
    if model is None:
        assert message.startswith(str(path))
        assert len(message) < 1500
    else:
        model.save(path)
        assert crnn.load(path).config() == model.config()
