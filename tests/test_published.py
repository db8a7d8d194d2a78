# SPDX-License-Identifier: MIT
"""The tasks in benchmarks.published: what is asked, and what is right by construction."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

MODULES = ("adding", "addition", "airline", "archive", "copy_memory", "data", "__main__")
adding, addition, airline, archive, copy_memory, data, command = (
    pytest.importorskip(f"benchmarks.published.{name}", reason="benchmarks are in a clone, not in a wheel")
    for name in MODULES
)


def test_adding_marks_one_number_in_each_half_and_asks_for_their_sum() -> None:
    x, y = adding.make(400, 20, 3)
    assert x.shape == (400, 20, 2)
    assert y.shape == (400, 1)
    numbers, marks = x[:, :, 0], x[:, :, 1]
    assert set(np.unique(marks)) == {0, 1}
    assert (marks[:, :10].sum(axis=1) == 1).all()
    assert (marks[:, 10:].sum(axis=1) == 1).all()
    assert (marks.sum(axis=0) > 0).all()  # every place occurs
    assert 0 <= numbers.min() < 0.05
    assert 0.95 < numbers.max() < 1
    np.testing.assert_allclose(y[:, 0], (numbers * marks).sum(axis=1), rtol=1e-6)
    assert abs(((adding.make(20_000, 2, 0)[1] - 1) ** 2).mean() - adding.BASELINE) < 0.005


def test_copy_asks_for_the_symbols_after_the_mark_and_for_blanks_before() -> None:
    x, y = copy_memory.make(300, 7, 3)
    assert x.shape == y.shape == (300, 27)
    assert set(np.unique(x[:, :10])) == set(range(1, 9))
    assert (x[:, 10:16] == 0).all()
    assert (x[:, 16] == 9).all()
    assert (x[:, 17:] == 0).all()
    assert (y[:, :17] == 0).all()
    np.testing.assert_array_equal(y[:, 17:], x[:, :10])
    assert round(copy_memory.BASELINE, 4) == 0.2971


def test_addition_asks_different_questions_and_answers_them_right() -> None:
    questions, answers = addition.make(2_000, 3, 3)
    pairs = [tuple(map(int, question.split("+"))) for question in questions]
    assert [str(a + b) for a, b in pairs] == answers
    assert len({tuple(sorted(pair)) for pair in pairs}) == 2_000  # a+b and b+a are one question
    assert {len(part) for question in questions for part in question.split("+")} == {1, 2, 3}


@pytest.mark.parametrize("make", [adding.make, copy_memory.make, lambda n, size, seed: addition.make(n, 3, seed)])
def test_the_seed_decides(make) -> None:
    first, again, other = (make(30, 12, seed) for seed in (5, 5, 6))
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


TS = """# made by hand
@problemName Tiny
@timeStamps false
@classLabel true up down
@data
1.5,-2,3:up

0,1e-1,7:down
4,5,6:up
"""


def test_ts_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.ts"
    path.write_text(TS)
    x, labels = data.read_ts(path)
    np.testing.assert_array_equal(x, [[[1.5], [-2], [3]], [[0], [0.1], [7]], [[4], [5], [6]]])
    assert labels.tolist() == ["up", "down", "up"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (TS + "1,2:up\n", "line 10: expected 3 values, got 2"),
        (TS + "1,2,3\n", "line 10: expected one series and a label"),
        (TS + "1,2,3:4,5,6:up\n", "line 10: expected one series and a label"),
        ("@problemName Empty\n@data\n", "expected series after @data, got none"),
    ],
)
def test_ts_file_that_is_not_understood_is_refused(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "tiny.ts"
    path.write_text(text)
    with pytest.raises(ValueError, match=error):
        data.read_ts(path)


def test_nearest_neighbour_takes_the_label_of_the_nearest() -> None:
    x = np.array([[0.0, 0, 0], [5, 5, 5], [0, 9, 0]])[:, :, None]
    wanted = np.array([[4.0, 5, 6], [0, 7, 0], [1, 0, 0]])[:, :, None]
    assert archive.nearest(x, np.array(["a", "b", "c"]), wanted).tolist() == ["b", "c", "a"]


def test_parts_share_out_every_class() -> None:
    labels = np.array(["a"] * 20 + ["b"] * 11)
    part = archive.parts_of(labels)
    assert np.bincount(part[labels == "a"]).tolist() == [4] * 5
    assert sorted(np.bincount(part[labels == "b"])) == [2, 2, 2, 2, 3]


@pytest.mark.parametrize("lag", [1, 12])
def test_a_forecast_of_a_series_that_grows_evenly_goes_on(lag: int) -> None:
    series = 100 * 1.01 ** np.arange(60)  # every change of the logarithm is the same, so nothing is left to learn
    ahead = airline.Setting(lag, 24, 4, epochs=1).forecast(series, 24, 0)
    np.testing.assert_allclose(ahead, 100 * 1.01 ** np.arange(60, 84), rtol=0.02)


def test_without_data_the_command_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("CRNN_DATA", raising=False)
    assert command.main(["airline"]) == 1
    assert "CRNN_DATA" in capsys.readouterr().err
    monkeypatch.setenv("CRNN_DATA", str(tmp_path))
    assert command.main(["gunpoint"]) == 1
    assert "GunPoint/GunPoint_TRAIN.ts" in capsys.readouterr().err


def test_every_task_has_a_module() -> None:
    assert set(command.TASKS) == {"adding", "copy", "addition", "airline", "gunpoint", "italy", "forecasts"}
    for name in command.TASKS.values():
        assert importlib.util.find_spec(f"benchmarks.published.{name}") is not None
