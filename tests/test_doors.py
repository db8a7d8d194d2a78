# SPDX-License-Identifier: MIT
"""What people pass as options: names, NumPy's numbers, classes of rules; each works or gets a message that names it."""

from fractions import Fraction

import numpy as np
import pytest

import crnn
from crnn import checks, optim
from crnn.models.files import from_bytes

RNG = np.random.default_rng(0)
X = [RNG.normal(size=(6, 2)) for _ in range(8)]
Y = [0, 1] * 4


def classifier(**options):
    return crnn.SequenceClassifier(2, 2, hidden_size=4, seed=0, **options)


def trained(**options):
    """The weights after two epochs with these options."""
    model = classifier()
    model.fit(X, Y, epochs=2, batch_size=4, **options)
    return model.flat_params.copy()


@pytest.mark.parametrize("name", optim.RULES)
def test_an_optimizer_is_named_or_a_class_or_an_object(name):
    rule = optim.RULES[name]
    expected = trained(optimizer=rule())
    for given in (name, name.upper(), rule):
        assert (trained(optimizer=given) == expected).all()


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_a_schedule_is_named_or_a_factory_or_a_function(name):
    factory = optim.SCHEDULES[name]
    expected = trained(schedule=factory())
    for given in (name, factory):
        assert (trained(schedule=given) == expected).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adm"}, ValueError, "optimizer: expected an optimizer such as .*'sgd', .*'adam'.* got 'adm'"),
        ({"optimizer": 1e-3}, TypeError, "optimizer: expected an optimizer such as .* got float"),
        ({"optimizer": dict}, TypeError, "optimizer: expected .* got type"),
        ({"schedule": "cos"}, ValueError, "schedule: expected a schedule such as .*'cosine'.* got 'cos'"),
        ({"schedule": 0.1}, TypeError, "schedule: expected a schedule such as .* got float"),
        ({"schedule": lambda k, n: "high"}, ValueError, "schedule: expected a finite number, got 'high'"),
        ({"schedule": lambda k, n: np.nan}, ValueError, "schedule: expected a finite number, got nan"),
        ({"threads": 2.0}, ValueError, r"threads: expected an integer .* got 2\.0"),
        ({"threads": np.array([2])}, ValueError, r"threads: expected an integer .* got array\(\[2\]\)"),
        ({"clip_norm": True}, ValueError, "clip_norm: expected a number above 0, or None, got True"),
        ({"carry": True}, ValueError, r"carry: expected a multiple of bptt=64, 0 or None, got True"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_before_anything_changes(options, error, message):
    model = classifier()
    before = model.flat_params.copy()
    with pytest.raises(error, match=message):
        model.fit(X, Y, epochs=1, **options)
    assert (model.flat_params == before).all()


INTEGERS = [int, np.int8, np.int64, np.uint16, np.array]
REALS = [float, np.float32, np.float16, np.longdouble, np.array, Fraction]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_every_library_are_integers(kind):
    model = crnn.SequenceClassifier(kind(2), kind(2), hidden_size=kind(4), num_layers=kind(1), seed=kind(0))
    model.fit(X, Y, epochs=kind(2), batch_size=kind(4), threads=kind(2), max_updates=kind(3))
    plain = classifier()
    plain.fit(X, Y, epochs=2, batch_size=4, max_updates=3)
    assert (model.flat_params == plain.flat_params).all()
    assert (model.predict(X, batch_size=kind(3), threads=kind(2)) == plain.predict(X)).all()
    assert (from_bytes(model.to_bytes()).flat_params == model.flat_params).all()


@pytest.mark.parametrize("kind", REALS)
def test_real_numbers_of_every_library_are_real_numbers(kind):
    half = kind(0.5)
    rules = [optim.Adam(lr=half, beta1=half, eps=half, weight_decay=half), optim.SGD(half, half), optim.Adagrad(half)]
    assert all(type(value) in (float, bool) for rule in rules for value in rule.settings().values())
    for schedule in (optim.linear(half), optim.cosine(half), optim.exponential(half)):
        assert type(schedule(1, 2)) is float
    model = classifier(dropout=half, recurrent_dropout=half, label_smoothing=half, forget_bias=half)
    model.fit(X, Y, epochs=1, clip_norm=half, clip_value=half, valid=kind(0.25))
    from_bytes(model.to_bytes())
    regressor = crnn.SequenceRegressor(2, hidden_size=4, loss="huber", delta=half, quantiles=[half])
    from_bytes(regressor.to_bytes())


@pytest.mark.parametrize("kind", [bool, np.bool_, np.array])
def test_true_and_false_of_every_library(kind):
    model = crnn.SequenceClassifier(2, 2, hidden_size=4, bidirectional=kind(True), scale=kind(False))
    assert model.scale is False
    from_bytes(model.to_bytes())
    assert optim.SGD(0.1, 0.5, nesterov=kind(True)).nesterov is True


@pytest.mark.parametrize(
    "check", [checks.check_size, checks.check_seed, checks.check_number, checks.check_finite, checks.check_limit]
)
@pytest.mark.parametrize(
    "value", ["1", b"1", 1j, [1], np.array([1]), np.array("1"), np.ma.masked, np.datetime64(1, "s"), True, np.True_]
)
def test_what_is_no_number_is_no_number_to_any_check(check, value):
    arguments = (0.0,) if check is checks.check_number else ()
    with pytest.raises((TypeError, ValueError), match=r"^a_name: expected "):
        check("a_name", value, *arguments)


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(ValueError, match=r"^lr: expected a number"):
        optim.Adam(lr=10**400)


def test_an_integer_whose_class_lies_becomes_a_plain_one():
    class Liar(int):
        def __lt__(self, other):
            return False

        def __int__(self):
            return 5

    with pytest.raises(ValueError, match="threads: expected an integer of at least 1"):
        checks.check_threads(Liar(-3))
    assert type(checks.check_threads(Liar(3))) is int
    assert checks.check_threads(Liar(3)) == 3


def test_a_zero_dimensional_tensor_is_a_number():
    torch = pytest.importorskip("torch")
    assert checks.check_size("n", torch.tensor(3)) == 3
    assert checks.check_number("lr", torch.tensor(0.5), 0.0) == 0.5
    assert checks.check_flag("scale", torch.tensor(True)) is True
