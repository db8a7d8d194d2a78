# SPDX-License-Identifier: MIT
"""Parameters by name, as users set them: what is set is in the flat buffer, in every part of the model, and learns."""

import copy
import pickle

import numpy as np
import pytest

import crnn

MODELS = {
    "network": lambda: crnn.RNN(3, 5, cell="gru", seed=1),
    "classifier": lambda: crnn.SequenceClassifier(3, 2, hidden_size=5, seed=1),
    "tagger": lambda: crnn.SequenceTagger(3, 2, hidden_size=5, seed=1),
    "regressor": lambda: crnn.SequenceRegressor(3, 1, hidden_size=5, seed=1),
    "language model": lambda: crnn.LanguageModel(crnn.Vocab.from_text("abc"), "gru", hidden_size=5, seed=1),
}
NAME = "layer0.W_hh"


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param()


def test_what_is_set_is_in_the_flat_buffer_and_in_all_parts(model):
    wanted = np.random.default_rng(2).normal(size=model.params[NAME].shape)
    model.params[NAME] = wanted.tolist()
    np.testing.assert_array_equal(model.params[NAME], wanted.astype(np.float32))
    assert np.shares_memory(model.params[NAME], model.flat_params)
    np.testing.assert_array_equal(getattr(model, "net", model).params[NAME], model.params[NAME])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).params[NAME], model.params[NAME])


def test_what_is_set_is_what_is_computed_with_and_what_learns():
    model, other = (crnn.SequenceClassifier(3, 2, hidden_size=5, seed=1) for _ in range(2))
    other.flat_params[...] *= 0.5
    x, y = np.random.default_rng(0).normal(size=(8, 6, 3)), np.arange(8) % 2
    model.predict(x)  # weights are packed
    for name, values in other.params.items():
        model.params[name] = values
    np.testing.assert_array_equal(model.predict_proba(x), other.predict_proba(x))
    for each in (model, other):
        crnn.fit(each, each.data(x, y), epochs=2)
    assert model.flat_params.tobytes() == other.flat_params.tobytes()


def test_an_operation_in_place_stays_one(model):
    expected = 2 * model.params[NAME]
    model.params[NAME] *= 2
    model.grads[NAME] += 3
    np.testing.assert_array_equal(model.params[NAME], expected)
    assert (model.grads[NAME] == 3).all()
    assert model.flat_grads.sum() == 3 * model.grads[NAME].size


def test_several_are_set_at_once(model):
    ones = {name: np.ones(values.shape) for name, values in model.params.items()}
    model.params.update(ones)
    assert (model.flat_params == 1).all()
    params = model.params
    params |= {NAME: np.zeros(params[NAME].shape)}
    assert (model.params[NAME] == 0).all()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (0.0, ValueError, r"layer0.W_hh: expected shape \(5, 15\), got \(\)"),
        (np.ones((15, 5)), ValueError, r"layer0.W_hh: expected shape \(5, 15\), got \(15, 5\)"),
        (np.full((5, 15), 1e39), ValueError, r"layer0.W_hh: expected numbers that float32 can hold, got 1e\+39"),
        ("x", TypeError, "layer0.W_hh: expected numbers"),
        (None, ValueError, r"layer0.W_hh: expected shape \(5, 15\), got \(\)"),
    ],
)
def test_wrong_values_are_refused_and_change_nothing(values, error, message):
    model = MODELS["network"]()
    before = model.flat_params.copy()
    with pytest.raises(error, match=message):
        model.params[NAME] = values
    np.testing.assert_array_equal(model.flat_params, before)


def test_names_stay(model):
    names = list(model.params)
    with pytest.raises(KeyError, match=r"layer0.W_hx: there is no parameter of this name; did you mean"):
        model.params["layer0.W_hx"] = model.params[NAME]
    for change in (
        lambda params: params.pop(NAME),
        lambda params: params.popitem(),
        lambda params: params.clear(),
        lambda params: params.setdefault(NAME, 0),
        lambda params: params.__delitem__(NAME),
    ):
        with pytest.raises(TypeError, match="params: expected the names to stay as they are"):
            change(model.params)
    assert list(model.params) == names


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, dict, lambda params: pickle.loads(pickle.dumps(params))])
def test_copies_are_dicts(model, copied):
    found = copied(model.params)
    assert type(found) is dict
    assert list(found) == list(model.params)
    np.testing.assert_array_equal(found[NAME], model.params[NAME])


def test_a_deep_copy_keeps_the_weights_of_its_time(model):
    kept = copy.deepcopy(model.params)
    before = model.params[NAME].copy()
    model.flat_params[...] = 0
    model.params.update(kept)
    np.testing.assert_array_equal(model.params[NAME], before)


def test_weights_in_fewer_bits_are_not_set():
    small = MODELS["network"]().quantize()
    with pytest.raises(ValueError, match="expected a model whose weights can change, got one in int8, int4 or bf16"):
        small.params[NAME] = np.zeros((5, 15))
