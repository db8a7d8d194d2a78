# SPDX-License-Identifier: MIT
"""Bad arguments of the task models: the message names the argument, what was expected and what came."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from task_tools import LENGTHS, D, H, V, classifier, everything, labels, reals, regressor, tagger, values

import crnn

rng = np.random.default_rng(5)
X, N = reals(rng), len(LENGTHS)
Y, STEPS = labels(rng), labels(rng, LENGTHS)
CLASSIFIER, TAGGER, YES_NO = classifier(), tagger(), classifier(multilabel=True)
REGRESSOR, FORECASTER = regressor(), regressor(D, pooling=None)
NAMED = crnn.SequenceClassifier(D, classes=["a", "b"], hidden_size=H)
MODELS = (CLASSIFIER, TAGGER, YES_NO, REGRESSOR, FORECASTER, NAMED)
P2 = values(rng, [(2,)] * N)


def fit(X=X, y=Y, **options):
    return CLASSIFIER.fit(X, y, **options).log


DATA = {
    # ---- X
    "X none": (lambda: fit(None), TypeError, "X: expected a list of arrays, or an array .* got NoneType"),
    "X text": (lambda: fit("abc"), TypeError, "X: expected .* got str"),
    "X nothing": (lambda: fit([]), ValueError, "X: expected at least one sequence, got none"),
    "X of one axis": (lambda: fit(np.ones(7)), ValueError, r"X: expected shape \(N, T, 3\), or ids .* got \(7,\)"),
    "X of four axes": (lambda: fit(np.ones((7, 2, 3, 1))), ValueError, r"X: expected .* got \(7, 2, 3, 1\)"),
    "X ragged": (lambda: fit([[[1, 2, 3], [1]]]), ValueError, r"X\[0\]: expected numbers in an array, got \[\[1, 2"),
    "X of another D": (lambda: fit([np.ones((2, 4))] * N), ValueError, r"X\[0\]: expected .*\(T, 3\), got .*\(2, 4\)"),
    "X one empty": (lambda: fit([*X[1:], np.ones((0, 3))]), ValueError, r"X\[6\]: expected .* got .*\(0, 3\)"),
    "X of words": (lambda: fit([["a", "b", "c"]] * N), TypeError, r"X\[0\]: expected numbers, got <U1"),
    "X complex": (lambda: fit([x * 1j for x in X]), ValueError, r"X\[0\]: expected numbers, got complex128"),
    "X NaN": (lambda: fit([*X[1:], X[0] * np.nan]), ValueError, r"X\[6\]: expected finite numbers"),
    "X infinite": (lambda: fit([*X[1:], X[0] / 0.0]), ValueError, r"X\[6\]: expected finite numbers"),
    "X huge": (lambda: fit([x * 1e200 for x in X]), ValueError, "X: expected numbers whose variance"),
    "X both kinds": (lambda: fit([*X[1:], [0, 1, 2]]), ValueError, "X: expected either numbers or ids, got both"),
    "X id too large": (lambda: fit([[0, 3]] * N), ValueError, r"X\[0\]: expected ids from 0 to 2, got 0 to 3"),
    "X id negative": (lambda: fit([[0, 1], [-1]]), ValueError, r"X\[1\]: expected ids from 0 to 2, got -1 to -1"),
    "X id uint64": (lambda: fit([np.array([2**63], np.uint64)]), ValueError, r"X\[0\]: expected ids from 0 to 2"),
    "X no ids": (lambda: fit([np.zeros(0, int)]), ValueError, r"X\[0\]: expected .* at least one step, got none"),
    # ---- y
    "y none": (lambda: fit(y=None), ValueError, "y: expected targets; .* the target y is None"),
    "y a number": (lambda: fit(y=3), TypeError, "y: expected a list or an array of targets, got int"),
    "y a generator": (lambda: fit(y=iter(Y[1:])), ValueError, "y: expected one entry for each of 7 sequences, got 6"),
    "y a dict": (lambda: fit(y={}), TypeError, "y: expected .* got dict"),
    "y a set": (lambda: fit(y=set(range(N))), TypeError, "y: expected .* got set"),
    "y a text": (lambda: NAMED.fit(X, "abababa"), TypeError, "y: expected .* got str"),
    "y of a table's sequences": (
        lambda: crnn.SequenceClassifier().fit(np.ones((12, 4)), ["a", "b"]),
        ValueError,
        "y: expected one entry for each of 12 sequences of 4 steps, got 2; if its rows are steps, X is a list of ",
    ),
    "y too short": (lambda: fit(y=Y[1:]), ValueError, "y: expected one entry for each of 7 sequences, got 6"),
    "y real": (lambda: fit(y=Y + 0.5), ValueError, r"y\[0\]: expected class numbers from 0 to 3 .* got float64"),
    "y true": (lambda: fit(y=Y > 0), ValueError, r"y: expected labels of num_classes=4 classes, got \[F"),
    "y too large": (
        lambda: fit(y=[*Y[1:], 4]), ValueError, r"y\[6\]: expected class numbers from 0 to 3 .* got 4 to 4",
    ),
    "y negative": (lambda: fit(y=[*Y[1:], -2]), ValueError, r"y\[6\]: expected class numbers .* got -2 to -2"),
    "y names": (lambda: fit(y=["a"] * N), ValueError, "y: expected labels of at least two classes, got only one class"),
    "y a row each": (lambda: fit(y=np.stack([Y, Y], axis=1)), ValueError, r"y\[0\]: expected one label, .* \(2,\)"),
    "y all unknown": (lambda: fit(y=[-1] * N), ValueError, "y: expected at least one target, got only unknown ones"),
    "y no such name": (
        lambda: NAMED.fit(X, ["a"] * 6 + ["c"]), ValueError, r"y\[6\]: expected one of \['a', 'b'\], got",
    ),
    "y number for a name": (lambda: NAMED.fit(X, [0] * N), ValueError, r"y\[0\]: expected one of .* got 0"),
    "y names missing": (lambda: NAMED.fit(X, [None] * N), ValueError, "y: expected at least one target, got only unk"),
    "tags ragged": (
        lambda: TAGGER.fit(X, [[[0], [1, 2]], *STEPS[1:]]), ValueError, r"y\[0\]: expected numbers in an arr",
    ),
    "tags too few": (
        lambda: TAGGER.fit(X, [*STEPS[:6], [1]]), ValueError, r"y\[6\]: expected shape \(5,\), got \(1,\)",
    ),
    "tags one each": (lambda: TAGGER.fit(X, Y), ValueError, r"y\[0\]: expected shape \(4,\), got \(\)"),
    "answers too few": (lambda: YES_NO.fit(X, [[0, 1]] * N), ValueError, r"y\[0\]: expected shape \(4,\), got \(2,\)"),
    "answers of words": (lambda: YES_NO.fit(X, [["1"] * V] * N), TypeError, r"y\[0\]: expected numbers, got <U1"),
    "answers above 1": (
        lambda: YES_NO.fit(X, [[0, 1, 0, 1]] * 6 + [[np.nan, 1.5, 0, 0]]), ValueError,
        r"y\[6\]: expected numbers from 0 to 1, or NaN for none, got \[",
    ),
    "answers infinite": (lambda: YES_NO.fit(X, [[0, 1, 0, np.inf]] * N), ValueError, r"y\[0\]: expected .* 0 to 1"),
    "answers unknown": (lambda: YES_NO.fit(X, [[np.nan] * V] * N), ValueError, "y: expected at least one target"),
    "values of words": (
        lambda: REGRESSOR.fit(X, ["a"] * N), TypeError, r"y\[0\]: expected numbers, got <U1",
    ),
    "values too few": (lambda: REGRESSOR.fit(X, Y * 1.0), ValueError, r"y\[0\]: expected shape \(2,\), got \(\)"),
    "values infinite": (
        lambda: REGRESSOR.fit(X, [[1, -np.inf]] * N), ValueError, r"y\[0\]: expected finite numbers, or NaN",
    ),
    "values unknown": (lambda: REGRESSOR.fit(X, [[np.nan] * 2] * N), ValueError, "y: expected at least one target"),
    "values huge": (
        lambda: REGRESSOR.fit(X, [[1, 2e200 * i] for i in range(N)]), ValueError, "y: expected numbers whose variance",
    ),
    "nothing to forecast": (
        lambda: REGRESSOR.fit(X, None), ValueError, "y: expected targets; .* only a model of real inputs",
    ),
    "series of one step": (
        lambda: FORECASTER.fit([np.ones((1, 3))], None), ValueError, "y: expected at least one target",
    ),
    # ---- valid
    "valid true": (lambda: fit(valid=True), ValueError, "valid: expected a share between 0 and 1, or .* got True"),
    "valid 1": (lambda: fit(valid=1.0), ValueError, r"valid: expected a share between 0 and 1, .* got 1\.0"),
    "valid too small": (lambda: fit(valid=0.01), ValueError, r"valid: expected a share of 7 sequences .* got 0\.01"),
    "valid all but none": (lambda: fit(valid=0.99), ValueError, r"valid: expected a share of 7 sequences .* got 0\.99"),
    "valid X alone": (
        lambda: fit(valid=X), ValueError, r"valid: expected a share of X, or \(X, y\), or .* got 7 items",
    ),
    "valid X bad": (lambda: fit(valid=([], Y)), ValueError, r"valid\[0\]: expected at least one sequence"),
    "valid y short": (lambda: fit(valid=(X, Y[1:])), ValueError, r"valid\[1\]: expected one entry for each of 7"),
    "valid y bad": (lambda: fit(valid=(X, Y * 9)), ValueError, r"valid\[1\]\[\d\]: expected class numbers"),
    "valid y unknown": (lambda: fit(valid=(X, [-1] * N)), ValueError, "valid: expected at least one target"),
    "valid value bad": (
        lambda: REGRESSOR.fit(X, P2, valid=(X, [0] * N)), ValueError, r"valid\[1\]\[0\]: expected shape",
    ),
    "valid not to forecast": (
        lambda: REGRESSOR.fit(X, P2, valid=(X, None)), ValueError, r"valid\[1\]: expected targets",
    ),
    # ---- using
    "predict none": (lambda: CLASSIFIER.predict(None), TypeError, "X: expected"),
    "predict NaN": (lambda: CLASSIFIER.predict([X[0] * np.nan]), ValueError, r"X\[0\]: expected finite numbers"),
    "predict in batches of 0": (
        lambda: CLASSIFIER.predict(X, batch_size=0), ValueError, "batch_size: expected .* got 0",
    ),
    "predict on 0 threads": (lambda: CLASSIFIER.predict_proba(X, threads=0), ValueError, "threads: expected .* got 0"),
    "evaluate without y": (lambda: CLASSIFIER.evaluate(X), ValueError, "y: expected targets; .* y is None"),
    "evaluate the unknown": (lambda: CLASSIFIER.evaluate(X, [-1] * N), ValueError, "y: expected at least one target"),
    "evaluate in batches of 0": (lambda: CLASSIFIER.evaluate(X, Y, batch_size=0), ValueError, "batch_size: expected"),
    "forecast 0": (lambda: FORECASTER.forecast(X, 0), ValueError, "n: expected an integer of at least 1, got 0"),
    "forecast of none": (lambda: FORECASTER.forecast(None, 1), TypeError, "series: expected .* got NoneType"),
    "forecast of ids": (lambda: FORECASTER.forecast([[0, 1]], 1), ValueError, "series: expected numbers, got ids"),
    "forecast of another D": (lambda: FORECASTER.forecast(np.ones((9, 4)), 1), ValueError, r"series: .*N, T, 3"),
    "forecast of other values": (
        lambda: REGRESSOR.forecast(X, 1), ValueError, "forecast: expected .* 2 outputs and 3 in",
    ),
    "forecast both ways": (
        lambda: regressor(D, bidirectional=True).forecast(X, 1), ValueError, "forecast: .* bidirectional=True",
    ),
    "forecast from a mean": (
        lambda: regressor(D, pooling="mean").forecast(X, 1), ValueError, "forecast: .* got 'mean'",
    ),
    "astype": (lambda: CLASSIFIER.astype("float16"), ValueError, "dtype: expected .* got 'float16'"),
    "crnn.fit": (lambda: crnn.fit(CLASSIFIER, X), TypeError, "data: expected the model's own data, got list"),
    "crnn.fit's valid": (
        lambda: crnn.fit(CLASSIFIER, CLASSIFIER.data(X, Y), valid=(X, Y)), TypeError, "valid: expected the model's own",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("case", DATA)
def test_bad_data_is_named_and_changes_nothing(case):
    call, error, message = DATA[case]
    before = [everything(model) for model in MODELS]
    with pytest.raises(error, match=message):
        call()
    for model, kept in zip(MODELS, before, strict=True):
        assert_same_bits(everything(model), kept)


def test_a_batch_without_a_known_class_is_no_fault(rng):
    """It adds nothing to the log, and an epoch that ends after it is an epoch."""
    model, unknown = classifier(), Y.copy()
    unknown[:-1] = -1
    log = model.fit(X, unknown, epochs=3, batch_size=2, log_every=1).log
    assert sum(log.column("tokens")) == 3
    assert log.column("tokens", "epoch") == [1, 1, 1]
    log = model.fit(X, unknown, epochs=1, batch_size=1, max_updates=1).log
    assert log.epochs == 1


def test_integers_are_numbers_where_ids_would_say_nothing():
    counts = np.arange(12)
    model = crnn.SequenceRegressor(1, hidden_size=5, pooling=None)
    model.fit([counts, counts[3:]], None, epochs=1)
    assert_same_bits(model.forecast(counts, 2), model.forecast(counts[:, None] * 1.0, 2))
    ids = crnn.SequenceClassifier(1, 2, 5, embedding_size=3)
    assert ids.predict_proba([[0, 0], [0]]).shape == (2, 2)
