# SPDX-License-Identifier: MIT
"""What people pass as options: names, NumPy's numbers, classes of rules; each works or gets a message that names it."""

import copy
import pickle
import warnings
from decimal import Decimal
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
    expected = trained(schedule=factory(), valid=(X, Y))
    for given in (name, name.upper(), factory):
        assert (trained(schedule=given, valid=(X, Y)) == expected).all()


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
        ({"carry": True}, ValueError, r"carry: expected 0, a multiple of bptt=64, or None, got True"),
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


@pytest.mark.interop
def test_a_zero_dimensional_tensor_is_a_number():
    torch = pytest.importorskip("torch")
    assert checks.check_size("n", torch.tensor(3)) == 3
    assert checks.check_number("lr", torch.tensor(0.5), 0.0) == 0.5
    assert checks.check_flag("scale", torch.tensor(True)) is True


# ---- sequences and targets -----------------------------------------------------------------------------------------


LABELS = ["b", "a"] * 4


def fitted(given_x, given_y, **options):
    model = crnn.SequenceClassifier(2, hidden_size=4, seed=0, **({"classes": ["a", "b"]} | options))
    model.fit(given_x, given_y, epochs=2)
    return model.flat_params.copy()


def of_objects(arrays):
    """An array (N,) of arrays."""
    out = np.empty(len(arrays), object)
    out[:] = arrays
    return out


SEQUENCES = {
    "tuple": tuple,
    "array": np.stack,
    "float32 in Fortran's order": lambda X: np.asfortranarray(np.stack(X)),
    "nested lists": lambda X: np.stack(X).tolist(),
    "list of lists": lambda X: [x.tolist() for x in X],
    "generator": lambda X: (x for x in X),
    "map": lambda X: map(np.array, X),
    "array of arrays": of_objects,
    "arrays of row arrays": lambda X: [of_objects(list(x)) for x in X],
    "values of a dict": lambda X: dict(enumerate(X)).values(),
    "memoryviews": lambda X: [memoryview(x) for x in X],
    "views": lambda X: [np.repeat(x, 2, axis=0)[::2] for x in X],
}


@pytest.mark.parametrize("form", SEQUENCES)
def test_sequences_of_any_form_are_taken(form):
    assert (fitted(SEQUENCES[form](X), LABELS) == fitted(X, LABELS)).all()
    model = crnn.SequenceClassifier(2, 2, hidden_size=4, seed=0)
    assert (model.predict(SEQUENCES[form](X)) == model.predict(X)).all()


@pytest.mark.parametrize("form", [tuple, np.array, iter, lambda y: np.array(y, object), lambda y: (each for each in y)])
def test_labels_of_any_form_are_taken(form):
    assert (fitted(X, form(LABELS)) == fitted(X, LABELS)).all()


@pytest.mark.parametrize("form", [tuple, np.array, iter, lambda c: np.array(c, object)])
def test_classes_of_any_form_are_taken(form):
    assert (fitted(X, LABELS, classes=form(["a", "b"])) == fitted(X, LABELS)).all()
    with pytest.raises(TypeError, match="classes: expected a list of names, got dict; pass its values"):
        fitted(X, LABELS, classes=dict.fromkeys(["a", "b"]))


@pytest.mark.parametrize(
    ("given_x", "error", "message"),
    [
        ({"a": X[0]}, TypeError, r"X: expected a list of arrays.* got dict; pass its values, as list\(d.values\(\)\)"),
        ({1, 2}, TypeError, "X: expected a list of arrays.* got set, which has no order"),
        (3.0, TypeError, "X: expected a list of arrays.* got float"),
        (np.array(3.0), TypeError, "X: expected a list of arrays.* got a single float64"),
        ([X[0], np.ones((0, 2))], ValueError, r"X\[1\]: expected .* at least one step, got none: shape \(0, 2\)"),
        (np.ones((3, 0, 2)), ValueError, r"X\[0\]: expected .* at least one step, got none"),
        ([X[0], []], ValueError, r"X\[1\]: expected .* at least one step, got none"),
        ([X[0], 3.0], ValueError, r"X\[1\]: expected numbers of shape \(T, 2\), got float64 of shape \(\)"),
        (iter([]), ValueError, "X: expected at least one sequence, got none"),
    ],
)
def test_what_cannot_be_sequences_is_named(given_x, error, message):
    model = crnn.SequenceClassifier(2, 2, hidden_size=4, seed=0)
    for use in (model.predict, lambda given: model.fit(given, [0, 1])):
        if not hasattr(given_x, "__next__"):
            with pytest.raises(error, match=message):
                use(given_x)


@pytest.mark.interop
def test_pandas_columns_and_frames():
    pd = pytest.importorskip("pandas")
    frames = [pd.DataFrame(x, columns=["u", "v"]) for x in X]
    expected = fitted(X, LABELS)
    assert (fitted(frames, pd.Series(LABELS)) == expected).all()
    assert (fitted(pd.Series(X), pd.Index(LABELS)) == expected).all()
    assert (fitted(X, pd.Categorical(LABELS), classes=pd.Index(["a", "b"])) == expected).all()
    assert (fitted(X, pd.Series(LABELS, dtype="category"), classes=pd.Series(["a", "b"])) == expected).all()
    assert crnn.RNN(2, pd.Series([3, 4])).hidden_size == [3, 4]
    assert crnn.SequenceRegressor(2, loss="quantile", quantiles=pd.Series([0.1, 0.5])).quantiles == [0.1, 0.5]
    numbers = pd.Series([0, 1, pd.NA, 1, 0, 1, 0, 1], dtype="Int64")
    assert (fitted(X, numbers, classes=None, num_classes=2)
            == fitted(X, [0, 1, -1, 1, 0, 1, 0, 1], classes=None, num_classes=2)).all()  # fmt: skip
    mixed = [f.assign(u=np.round(f.u).astype(int), v=f.v.astype("Float64")) for f in frames]
    plain = [np.column_stack([np.round(x[:, 0]), x[:, 1]]) for x in X]
    assert (fitted(mixed, LABELS) == fitted(plain, LABELS)).all()
    for column, text in [
        (["a"] * 6, "numbers, got str 'a'"),
        (pd.date_range("2026", periods=6), "numbers, got dates or times"),
        (pd.array([1.5, None, 1, 1, 1, 1], dtype="Float64"), "finite numbers, got nan at"),
    ]:
        bad = [*frames[:7], frames[7].assign(v=column)]
        with pytest.raises((TypeError, ValueError), match=rf"X\[7\](\['v'\])?: expected {text}"):
            fitted(bad, LABELS)
    with pytest.raises(TypeError, match=r"X: .*GroupBy; pass its groups' columns, as \[group"):
        fitted(frames[0].groupby("u"), LABELS)
    regressor = crnn.SequenceRegressor(2, 2, hidden_size=4, seed=0)
    regressor.fit(X, pd.DataFrame({"a": pd.array([1.5, None] * 4, dtype="Float64"), "b": range(8)}), epochs=1)
    other = crnn.SequenceRegressor(2, 2, hidden_size=4, seed=0)
    other.fit(X, np.column_stack([[1.5, np.nan] * 4, range(8)]), epochs=1)
    assert (regressor.flat_params == other.flat_params).all()


@pytest.mark.interop
def test_tensors_with_and_without_gradients():
    torch = pytest.importorskip("torch")
    expected = fitted(X, LABELS)
    stacked = torch.from_numpy(np.stack(X))
    with_gradients = stacked.clone().requires_grad_()
    for given in (stacked, with_gradients, list(stacked), list(with_gradients)):
        assert (fitted(given, LABELS) == expected).all()
    tags = torch.tensor([0, 1] * 4)
    assert (fitted(X, tags, classes=None, num_classes=2) == fitted(X, tags.numpy(), classes=None, num_classes=2)).all()
    net = crnn.RNN(2, 3, seed=0)
    x = np.ones((4, 1, 2), np.float32)
    assert (net(torch.from_numpy(x))[0] == net(x)[0]).all()
    assert (net.stream().step(torch.ones(2)) == net(x)[0][0, 0]).all()
    assert (net(torch.ones(4, 1, 2, dtype=torch.bfloat16))[0] == net(x)[0]).all()
    with pytest.raises(ValueError, match=r"^X: expected numbers in an array, got tensor\(.*meta"):
        fitted(stacked.to("meta"), LABELS)
    packed = torch.nn.utils.rnn.pack_sequence(list(stacked))
    with pytest.raises(TypeError, match=r"X: .* got PackedSequence; write torch.nn.utils.rnn.unpack_sequence"):
        fitted(packed, LABELS)
    with warnings.catch_warnings(action="error"):
        assert (net(x, lengths=torch.tensor([3]))[0] == net(x, lengths=[3])[0]).all()


@pytest.mark.interop
def test_predictions_for_every_step_are_an_array_if_the_sequences_are_like_one():
    torch = pytest.importorskip("torch")
    tagger = crnn.SequenceTagger(2, 2, hidden_size=4, seed=0)
    assert tagger.predict(torch.from_numpy(np.stack(X))).shape == (8, 6)
    ragged = of_objects([*X[:7], X[7][:3]])
    found = tagger.predict(ragged)
    assert [len(tags) for tags in found] == [6] * 7 + [3]
    assert all((tags == tagger.predict([x])[0]).all() for tags, x in zip(found, ragged, strict=True))


@pytest.mark.interop
def test_numbers_that_other_libraries_add_are_numbers():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    rounded = [x.astype(bfloat16) for x in X]
    expected = fitted([x.astype(np.float32) for x in rounded], LABELS)
    assert (fitted(rounded, LABELS) == expected).all()
    decimals = [[[Decimal(float(number)) for number in step] for step in x] for x in rounded]
    assert (fitted(decimals, LABELS) == fitted([x.astype(float) for x in rounded], LABELS)).all()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("kind", [crnn.SequenceClassifier, crnn.SequenceTagger, crnn.SequenceRegressor])
def test_a_model_that_waits_for_data_can_be_copied(kind, duplicate):
    model = kind(hidden_size=4, cell="lstm", seed=3)
    other = duplicate(model)
    assert repr(other) == repr(model)
    y = [[0, 1] * 3] * 8 if kind is crnn.SequenceTagger else [0, 1] * 4
    for each in (model, other):
        each.fit(X, y, epochs=1)
    assert (other.flat_params == model.flat_params).all()


@pytest.mark.interop
def test_what_another_library_calls_sequences_gets_a_hint():
    pd = pytest.importorskip("pandas")
    sparse = pytest.importorskip("scipy.sparse")
    panel = pd.DataFrame(np.concatenate(X), index=pd.MultiIndex.from_product([range(8), range(6)]))
    for given, message in [
        (panel, r"X: .* got a DataFrame with 2 index levels; write \[group for _, group in x.groupby"),
        (sparse.csr_matrix(X[0]), r"X: .* got csr_matrix, which is sparse; write x.toarray\(\)"),
        ([sparse.csr_matrix(x) for x in X], r"X\[0\]: .* got csr_matrix, which is sparse; write x.toarray"),
        ([{"a": x[:, 0], "b": x[:, 1]} for x in X], r"X\[0\]: .* got dict; write np.column_stack"),
        ([np.zeros(6, [("a", float), ("b", float)])] * 8, r"X\[0\]: .*structured_to_unstructured"),
        (X[0].tolist(), r"X\[0\]: expected numbers of shape \(T, 2\).* \(2,\); for one sequence write \[x\]"),
        (X[0][:, :1], r"X: expected shape \(N, T, 2\), or integer ids \(N, T\), got float64 of shape \(6, 1\)"),
        ([[0.0, 1, 1]] * 8, r"X\[0\]: expected numbers of shape \(T, 2\), or integer ids \(T,\), got float64 of"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            fitted(given, LABELS)
    groups = [group for _, group in panel.groupby(level=0)]
    assert (fitted(groups, LABELS) == fitted(X, LABELS)).all()
    named = [pd.DataFrame(x, columns=["groups", "columns"]) for x in X]  # names of attributes of pandas
    assert (fitted(named, LABELS) == fitted(X, LABELS)).all()
    assert (fitted(X, pd.DataFrame({"groups": LABELS})) == fitted(X, LABELS)).all()


def test_a_series_may_be_lists_of_steps():
    model = crnn.SequenceRegressor(2, 2, hidden_size=4, pooling=None, seed=0)
    expected = model.forecast(X[0], 3)
    assert expected.shape == (3, 2)
    assert (model.forecast(X[0].tolist(), 3) == expected).all()
    assert (model.forecast(list(X[0]), 3) == expected).all()
    one = crnn.SequenceRegressor(1, 1, hidden_size=4, pooling=None, seed=0)
    assert (one.forecast([[1.0], [2.0]], 3) == one.forecast([1.0, 2.0], 3)).all()
    assert one.forecast([[1.0, 2.0], [3.0]], 3).shape == (2, 3, 1)
    with pytest.raises(ValueError, match=r"series: expected shape \(N, T, 2\), .*, got float64 of shape \(6, 1\)"):
        model.forecast(X[0][:, :1], 3)


@pytest.mark.parametrize("name", ["callbacks", "verbose", "validation_split"])
def test_options_of_other_libraries_are_told_their_name_here(name):
    with pytest.raises(TypeError, match=rf"^{name}: expected (on_update|progress|valid)"):
        crnn.SequenceClassifier(hidden_size=4).fit(X, LABELS, **{name: 1})


def test_the_learning_rate_is_given_as_lr_or_in_the_optimizer():
    with pytest.raises(TypeError, match=r"^learning_rate: expected lr, such as lr=1e-3, or optimizer=crnn.optim.Adam"):
        crnn.SequenceClassifier(hidden_size=4).fit(X, LABELS, learning_rate=0.1)
    models = [crnn.SequenceClassifier(hidden_size=4, seed=1) for _ in range(2)]
    models[0].fit(X, LABELS, epochs=2, lr=0.05)
    models[1].fit(X, LABELS, epochs=2, optimizer=crnn.optim.Adam(lr=0.05))
    assert (models[0].flat_params == models[1].flat_params).all()


@pytest.mark.interop
def test_arrays_are_borrowed_where_they_can_be():
    from crnn.array_input import in_precision, real_numbers
    from crnn.models.inputs.data import check_sequences

    torch = pytest.importorskip("torch")
    array = np.ones((4, 3, 2), np.float32)
    for given in (array, torch.from_numpy(array), np.ma.array(array, copy=False)):
        assert np.shares_memory(in_precision("x", real_numbers("x", given), "float32"), array)
    assert all(np.shares_memory(x, array) for x in check_sequences("X", list(array), 2, ids=False))
    assert all(np.shares_memory(x, array) for x in check_sequences("X", torch.from_numpy(array), 2, ids=False))
    large = np.ones((400, 100, 2), np.float32)  # a tape copies a small x, see docs/arrays.md
    assert np.shares_memory(crnn.RNN(2, 3).forward(large)[2].x, large)


def test_float64_arrays_are_taken_by_float32_networks():
    net = crnn.RNN(2, 3, seed=0)
    x = np.random.default_rng(0).normal(size=(5, 2, 2))
    single = x.astype(np.float32)
    y, _, tape = net.forward(x, np.zeros((1, 2, 3)))
    assert (y == net(single)[0]).all()
    dx, _ = net.backward(tape, np.ones(y.shape))
    assert dx.dtype == np.float32
    with pytest.raises(ValueError, match=r"x: expected numbers that float32 can hold, got 1e\+39 at \(0, 0, 0\)"):
        net(np.full((5, 2, 2), 1e39))
