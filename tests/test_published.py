# SPDX-License-Identifier: MIT
"""What benchmarks.published learns from: the made data has the shapes and targets that its tasks say."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks" / "published").is_dir():
    pytest.skip("benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))
pytest.importorskip("benchmarks.published")

from benchmarks.published import __main__ as command  # noqa: E402
from benchmarks.published import adding, addition, airline, copying, data, series  # noqa: E402

TS = """# a comment: with a colon
@problemName Tiny
@classLabel true a b
@data
1,2.5,-3:a

4,5,6e-1:b
"""


def test_the_target_of_adding_is_the_sum_of_a_flagged_number_in_each_half():
    X, y = adding.sequences(np.random.default_rng(0), 50, steps=21)
    assert X.shape == (50, 21, 2)
    assert y.shape == (50,)
    assert 0 <= X[:, :, 0].min() < X[:, :, 0].max() < 1
    for x, target in zip(X, y, strict=True):
        first, second = np.flatnonzero(x[:, 1])
        assert first < 10 <= second
        assert target == pytest.approx(x[first, 0] + x[second, 0])


def test_copy_asks_for_the_symbols_only_after_the_marker():
    X, y = copying.sequences(np.random.default_rng(0), 30, delay=7)
    assert X.shape == y.shape == (30, 27)
    assert X[:, :10].max() < copying.ALPHABET
    assert (np.argwhere(X == copying.MARKER)[:, 1] == 16).all()
    assert (np.delete(X, 16, axis=1)[:, 10:] == copying.BLANK).all()
    assert (y[:, :17] == copying.BLANK).all()
    np.testing.assert_array_equal(y[:, 17:], X[:, :10])


def test_the_baseline_of_copy_is_the_loss_of_one_who_knows_only_where_blanks_are():
    _, y = copying.sequences(np.random.default_rng(0), 1)
    losses = np.where(y == copying.BLANK, 0.0, np.log(copying.ALPHABET))
    assert losses.mean() == pytest.approx(copying.BASELINE)


def test_sums_are_right_and_no_pair_comes_twice():
    X, y = addition.sums(np.random.default_rng(0), 300, digits=2)
    assert {len(x) for x in X} == {5}
    pairs = [tuple(sorted(int(part) for part in x.split("+"))) for x in X]
    assert len(set(pairs)) == len(X) == 300
    assert [sum(pair) for pair in pairs] == [int(answer) for answer in y]


def test_a_series_goes_on_from_its_own_yearly_changes():
    values = np.random.default_rng(0).uniform(100, 600, 50)
    changes = airline.yearly_changes(values)
    assert changes.shape == (38,)
    np.testing.assert_allclose(airline.go_on(values[:20], changes[8:]), values[20:])


def test_naive_forecasts_repeat_the_last_month_and_the_last_year():
    values = np.arange(30.0)
    forecasts = airline.naive(values, 15)
    np.testing.assert_array_equal(forecasts["persistence"], np.full(15, 29))
    np.testing.assert_array_equal(forecasts["seasonal naive"], [*range(18, 30), 18, 19, 20])


def test_ts_files_give_series_and_labels(tmp_path):
    path = tmp_path / "Tiny_TRAIN.ts"
    path.write_text(TS, encoding="utf-8")
    X, y = data.read_ts(path)
    np.testing.assert_array_equal(X, [[[1], [2.5], [-3]], [[4], [5], [0.6]]])
    assert y.tolist() == ["a", "b"]


@pytest.mark.parametrize("line", ["1,2,3", "1:2:a", "1,2:a"])
def test_ts_files_that_are_not_univariate_and_even_are_refused(tmp_path, line):
    path = tmp_path / "Tiny_TRAIN.ts"
    path.write_text(TS + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected"):
        data.read_ts(path)


def test_folds_hold_every_series_once_and_classes_evenly():
    y = np.array(["a"] * 15 + ["b"] * 10)
    fold_of = series.stratified(y, np.random.default_rng(0))
    for fold in range(series.FOLDS):
        assert np.count_nonzero(y[fold_of == fold] == "a") == 3
        assert np.count_nonzero(y[fold_of == fold] == "b") == 2


def test_frames_hold_neighbouring_steps_and_their_changes():
    X = np.arange(12.0).reshape(1, 12, 1) ** 2
    x = series.Setting("last", 6, True).inputs(X)
    assert x.shape == (1, 2, 12)
    np.testing.assert_array_equal(x[0, 1, ::2], X[0, 6:, 0])
    np.testing.assert_array_equal(x[0, 1, 1::2], np.diff(X[0, 5:, 0]))


def test_the_nearest_series_gives_its_label():
    X = np.array([0.0, 10.0])[:, None, None] * np.ones((2, 3, 1))
    assert series.nearest(X, np.array(["low", "high"]), np.array([[[4.0], [4.9], [5.5]]])).tolist() == ["low"]


@pytest.mark.parametrize("folder", [None, "empty"])
def test_a_task_without_its_data_says_what_to_set(tmp_path, monkeypatch, capsys, folder):
    if folder is None:
        monkeypatch.delenv("CRNN_DATA", raising=False)
    else:
        monkeypatch.setenv("CRNN_DATA", str(tmp_path))
    assert command.main(["airline"]) == 1
    assert "set CRNN_DATA to a folder with airline.csv" in capsys.readouterr().err
