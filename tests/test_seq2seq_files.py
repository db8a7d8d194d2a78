# SPDX-License-Identifier: MIT
"""SequenceToSequence in files: what comes back, training that continues after a break, and what hostile files get."""

import json

import numpy as np
import pytest
from file_tools import edit, load_file
from kernel_tools import assert_same_bits
from model_tools import stir

import crnn
from crnn import ModelFileError

pytestmark = pytest.mark.thread_unsafe  # files at the same path, damaged and read again

LETTERS = crnn.Vocab.from_text("abcde")
WORDS = crnn.Vocab.from_text("one two three", unit="word")


def make(dtype="float32", **options):
    sizes = {} if {"source_vocab", "target_vocab"} <= set(options) else {"input_size": 5, "output_size": 6}
    model = crnn.SequenceToSequence(**sizes, **({"hidden_size": 7, "num_layers": 2} | options), dtype=dtype, seed=3)
    stir(model.flat_params)
    return model


def of_texts(**options):
    return make(source_vocab=LETTERS, target_vocab=WORDS, **options)


SOURCES = [[1, 2], [0, 4, 3, 3], [2]]
NUMBERS = [[[0.5, 1, -2, 0, 3]], [[1, 2, 3, 4, 5], [0, 0, 0, 0, 1.5]], [[0.1, 0.2, 0.3, 0.4, 0.5]] * 4]


# ---- round trip ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "original_gru", "hidden_size": [7, 4], "bidirectional": True},
        {"cell": "tanh", "embedding_size": 3, "reverse_source": True, "longest_target": 4},
        {"cell": "gru", "dropout": 0.2, "variational_dropout": True, "recurrent_dropout": 0.1, "label_smoothing": 0.1},
        {"real_source": True, "embedding_size": 2, "forget_bias": 0.5},
        {"real_source": True, "scale": False},
        {"recurrent_init": "0.5*identity", "input_init": "uniform"},
    ],
)
def test_a_model_comes_back_whole(tmp_path, dtype, options):
    model = make(dtype.name, **options)
    X = NUMBERS if model.real_source else SOURCES
    if model.real_source:
        model._learn_scaling([np.array(x) for x in X], [np.zeros(4)])
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    assert type(loaded) is crnn.SequenceToSequence
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert loaded.config() == model.config()
    assert loaded.encoder.config() == model.encoder.config()
    assert loaded.decoder.config() == model.decoder.config()
    assert repr(loaded) == repr(model)
    y = [[1], [2, 3], []]
    assert loaded.evaluate(X, y) == model.evaluate(X, y)
    for answers in zip(*(each.predict(X, max_length=5, beam=2) for each in (model, loaded)), strict=True):
        np.testing.assert_array_equal(*answers)
    assert set(load_file(tmp_path / "m")) == {*model.params} | (
        {"scaling.x.mean", "scaling.x.std"} if model.real_source else set()
    )


def test_vocabularies_come_back_each_by_itself(tmp_path):
    source, target = {"source_vocab": LETTERS}, {"target_vocab": WORDS}
    for vocabs in (source, target, source | target):
        sizes = {
            name: size
            for name, size, vocab in (("input_size", 5, "source_vocab"), ("output_size", 6, "target_vocab"))
            if vocab not in vocabs
        }
        model = crnn.SequenceToSequence(**sizes, **vocabs, hidden_size=3)
        model.save(tmp_path / "m")
        loaded = crnn.load(tmp_path / "m")
        assert (loaded.source_vocab, loaded.target_vocab) == (model.source_vocab, model.target_vocab)
        X = ["ab", "c"] if "source_vocab" in vocabs else [[0, 1], [2]]
        answers = model.predict(X, max_length=4)
        assert all(isinstance(answer, str) == ("target_vocab" in vocabs) for answer in answers)
        for one, other in zip(loaded.predict(X, max_length=4), answers, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_copy_in_another_precision_answers_alike():
    model = of_texts(longest_target=3)
    copy = model.astype("float64")
    assert copy.flat_params.dtype == np.float64
    assert copy.config() == model.config() | {"dtype": "float64"}
    X, y = ["abc", "d"], ["one two", "three"]
    assert copy.evaluate(X, y).nats == pytest.approx(model.evaluate(X, y).nats, rel=1e-5)
    assert copy.predict(X) == model.predict(X)
    real = make(real_source=True)
    real._learn_scaling([np.array(x) for x in NUMBERS], [np.zeros(4)])
    assert real.astype("float64").evaluate(NUMBERS, [[1], [], [2]]).nats == pytest.approx(
        real.evaluate(NUMBERS, [[1], [], [2]]).nats, rel=1e-5
    )


def test_the_configuration_makes_a_model_of_the_same_shape():
    model = make(bidirectional=True, embedding_size=3, hidden_size=[4, 6])
    again = crnn.SequenceToSequence(**json.loads(json.dumps(model.config())))
    assert {name: value.shape for name, value in again.params.items()} == {
        name: value.shape for name, value in model.params.items()
    }
    assert crnn.SequenceToSequence.shapes_of(model.config()) == {n: v.shape for n, v in model.params.items()}
    assert next(iter(model.params)) == "encoder.embedding"
    assert model.params["decoder.layer1.W_hh"].shape == (12, 48)


# ---- training that continues -------------------------------------------------------------------------------------


def corpus():
    rng = np.random.default_rng(8)
    X = ["".join(rng.choice(list("abcde"), rng.integers(1, 6))) for _ in range(60)]
    return X, [" ".join(["one", "two", "three"][i] for i in rng.integers(3, size=len(x))) for x in X]


def test_a_break_changes_no_bit(tmp_path):
    X, y = corpus()
    options = {"valid": 0.2, "batch_size": 8, "schedule": None}
    whole, broken = of_texts(dropout=0.1), of_texts(dropout=0.1)
    log = whole.fit(X, y, epochs=4, **options).log
    checkpoint = tmp_path / "c"
    broken.fit(X, y, epochs=4, max_updates=9, checkpoint=checkpoint, **options)  # within the second epoch
    fresh = of_texts(dropout=0.1)
    again = fresh.fit(X, y, epochs=4, checkpoint=checkpoint, resume=True, **options).log
    assert_same_bits(fresh.flat_params, whole.flat_params)
    assert again.column("valid_loss") == log.column("valid_loss")
    assert fresh.longest_target == whole.longest_target == 5
    assert_same_bits(crnn.load(checkpoint).flat_params, whole.flat_params)


def test_a_loaded_model_can_go_on_training(tmp_path):
    X, y = corpus()
    model = crnn.SequenceToSequence(hidden_size=7, source_vocab=LETTERS, target_vocab=WORDS)  # seed 0, as loaded ones
    model.fit(X, y, epochs=1)
    model.save(tmp_path / "m")
    twin = crnn.load(tmp_path / "m")
    for each in (model, twin):
        each.fit(X, y, epochs=2, warm_start=True)
    assert_same_bits(twin.flat_params, model.flat_params)


# ---- hostile files ---------------------------------------------------------------------------------------------


def set_config(**values):
    return lambda tensors, header: header["config"].update(values)


def set_header(**values):
    return lambda tensors, header: header.update(values)


def without(place, name):
    def change(tensors, header):
        del {"tensors": tensors, "header": header, "config": header["config"]}[place][name]

    return change


def poke(name, value):
    def change(tensors, header):
        tensors[name].reshape(-1)[-1] = value

    return change


HOSTILE = {
    "another kind": (set_header(kind="SequenceTagger"), "expected a config of"),
    "no config": (set_header(config=None), "expected a config of"),
    "one argument less": (without("config", "hidden_size"), "expected float32 of shape"),
    "one argument more": (set_config(trainable_initial_state=False), "expected a config of"),
    "a flag that is none": (set_config(real_source=1), "expected a config of"),
    "a size that is a truth value": (set_config(output_size=True), "expected a config of"),
    "a size below 1": (set_config(output_size=0), "expected a sensible config"),
    "a size that is huge": (set_config(output_size=2**40), "expected a sensible config"),
    "sizes that are huge together": (set_config(hidden_size=2**20), "expected at most 2147483648 parameters"),
    "no length": (set_config(longest_target=0), "expected a sensible config"),
    "a length that is huge": (set_config(longest_target=10**18), "expected a sensible config"),
    "a length that is a number": (set_config(longest_target=1.5), "expected a config of"),
    "smoothing of 1": (set_config(label_smoothing=1), "label_smoothing: expected a number"),
    "smoothing that is no number": (set_config(label_smoothing=float("nan")), "label_smoothing: expected a number"),
    "another cell": (set_config(cell="gru"), "expected float32 of shape"),
    "an unknown cell": (set_config(cell="elman"), "cell: expected one of"),
    "two directions": (set_config(bidirectional=True), "expected a tensor 'encoder.layer0.reverse.W_xh', found none"),
    "an embedding": (set_config(embedding_size=3), "expected a tensor 'encoder.embedding', found none"),
    "a real source": (set_config(real_source=True), "expected a tensor 'scaling.x.mean', found none"),
    "another layer": (set_config(num_layers=3), "expected a tensor 'encoder.layer2.W_xh', found none"),
    "one layer less": (set_config(num_layers=1), "expected no tensor 'decoder.layer1.W_hh'"),
    "layers without end": (set_config(num_layers=10**9), "expected a sensible config"),
    "sizes of no layer": (set_config(hidden_size=[]), "hidden_size: expected a size"),
    "a size of no layer": (set_config(hidden_size=[7, None]), "expected"),
    "another rule": (set_config(input_init="ones"), "input_init: expected one of"),
    "a source vocabulary too large": (
        set_header(source_vocab={"unit": "char", "tokens": list("abcdef")}),
        "input_size: expected 6, as many as source_vocab has, got 5",
    ),
    "a target vocabulary too small": (
        set_header(target_vocab={"unit": "word", "tokens": ["one"]}),
        "output_size: expected 1, as many as target_vocab has, got 4",
    ),
    "a vocabulary that is none": (set_header(target_vocab=["one"]), "vocabulary: expected a dict, got list"),
    "a vocabulary of another unit": (
        set_header(target_vocab={"unit": "line", "tokens": ["one"]}),
        "unit: expected",
    ),
    "a token twice": (set_header(source_vocab={"unit": "char", "tokens": list("aabcd")}), "tokens: expected all diff"),
    "no weight": (without("tensors", "decoder.layer1.W_hh"), "expected a tensor 'decoder.layer1.W_hh', found none"),
    "a weight that is NaN": (poke("encoder.layer0.W_hh", np.nan), "encoder.layer0.W_hh: expected finite values"),
    "a weight that is infinite": (poke("b_y", np.inf), "b_y: expected finite values"),
    "a tensor more": (lambda tensors, header: tensors.update(layer0=np.ones(2)), "expected no tensor 'layer0'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    damage, message = HOSTILE[name]
    path = tmp_path / "m.safetensors"
    of_texts().save(path)
    edit(path, damage)
    with pytest.raises(ModelFileError) as caught:
        crnn.load(path)
    assert str(caught.value).startswith(str(path)), "the message names no file"
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_file_with_a_scale_of_zero_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    make(real_source=True).save(path)
    edit(path, poke("scaling.x.std", 0))
    with pytest.raises(ModelFileError, match=r"scaling\.x\.std: expected numbers above 0"):
        crnn.load(path)


def test_an_unharmed_file_survives_the_editing_of_these_tests(tmp_path):
    path = tmp_path / "m.safetensors"
    of_texts().save(path)
    edit(path, lambda tensors, header: None)
    assert crnn.load(path).target_vocab == WORDS
    edit(path, without("header", "source_vocab"))  # then its ids are numbers: no vocabulary has to be there
    assert crnn.load(path).predict([[0, 4]], max_length=2)
