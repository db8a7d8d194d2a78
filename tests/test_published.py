# SPDX-License-Identifier: MIT
"""The tasks in benchmarks.published: what is asked, and what is right by construction."""

import itertools
import json
import math
import re
import signal
from pathlib import Path

import numpy as np
import pytest

import crnn

MODULES = (
    "adding",
    "addition",
    "airline",
    "archive",
    "copy_memory",
    "data",
    "language",
    "names",
    "penn",
    "table",
    "tasks",
    "work",
    "__main__",
)
adding, addition, airline, archive, copy_memory, data, language, names, penn, table, tasks, work, command = (
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


def test_the_table_may_be_all_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--table", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("| task | settings |")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "expected a task, or --table"),
        (["ptb"], "argument task: expected one of ptb-words, .*, all, got 'ptb'"),
        (["digits", "--seed", "-1"], "argument --seed: expected an integer of at least 0, got '-1'"),
        (["digits", "--threads", "0"], "argument --threads: expected an integer of at least 1, got '0'"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert re.search(error, capsys.readouterr().err)


def test_a_folder_that_is_none_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for arguments, error in {
        ("adding", "--folder", str(tmp_path / "file")): "argument --folder: expected a folder, got a file: ",
        ("--table", "--folder", str(tmp_path / "none")): "--folder: expected a folder with results, got .*not exist",
    }.items():
        with pytest.raises(SystemExit):
            command.main([*arguments])
        assert re.search(error, capsys.readouterr().err)


@pytest.mark.parametrize("content", ["{", "[]", '{"task": "adding"}', "\udcff"], ids=repr)
def test_a_result_of_another_program_is_named(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text(content, errors="surrogateescape")
    assert command.main(["--table", "--folder", str(tmp_path)]) == 1
    assert re.match(r"--table: .*result\.json: expected a file of a run", capsys.readouterr().err)


def test_data_that_are_no_data_end_their_task_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CRNN_DATA", str(tmp_path))
    for name in ("GunPoint", "ItalyPowerDemand"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_TRAIN.ts").write_text("no series")
    assert command.main(["gunpoint", "italy", "--folder", str(tmp_path / "runs")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        f"{task}: {name}_TRAIN.ts: expected series after @data, got none"
        for task, name in {"gunpoint": "GunPoint", "italy": "ItalyPowerDemand"}.items()
    ]


def test_every_task_has_a_module_and_a_line_in_the_table_of_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "published.md").read_text(encoding="utf-8")
    for task in tasks.TASKS.values():
        assert callable(task.load().run)
        assert f"| `{task.name}` |" in page


# ---- language models ----------------------------------------------------------------------------------------------


def test_loss_in_blocks_is_that_of_each_block_alone() -> None:
    text = "to be or not to be, that is the question. " * 3
    model = crnn.LanguageModel(crnn.Vocab.from_text(text), hidden_size=8, seed=1)
    ids = model.vocab.encode(text)
    alone = [model.evaluate(ids[i : i + 6]).loss for i in range(0, len(ids) - 5, 5)]
    assert math.isclose(language.loss_in_blocks(model, ids, 5, 1), np.mean(alone), rel_tol=1e-5)


def test_words_are_ordered_by_frequency_and_characters_have_no_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ptb").mkdir()
    for part, text in {"train": " b <unk> b c\n a c b\n", "valid": " a b\n", "test": " c <unk>\n"}.items():
        (tmp_path / "ptb" / f"ptb.{part}.txt").write_text(text, encoding="utf-8")
    monkeypatch.setenv("CRNN_DATA", str(tmp_path))
    words, letters = penn.parts("word"), penn.parts("char")
    assert words.vocab.tokens[0] == "<unk>"
    assert words.vocab.tokens[1] == "b"
    assert words.vocab.decode(words.valid).split() == ["a", "b"]
    assert len(words.test) == 3  # with the end of the line
    assert letters.vocab.decode(letters.train) == "_b_<unk>_b_c_a_c_b"
    assert letters.vocab.decode(letters.test) == "_c_<unk>"


def test_names_are_read_from_a_start_to_a_stop_and_held_out_once() -> None:
    (x,), (y,) = names.make(["abz"])
    assert x.tolist() == [0, 1, 2, 26]
    assert y.tolist() == [1, 2, 26, 0]
    everything = [str(number) for number in range(5_000)]
    train, valid, test = names.split(everything, 3)
    assert [len(train), len(valid), len(test)] == [3_000, 1_000, 1_000]
    assert sorted(train + valid + test) == sorted(everything)
    assert names.split(everything, 4)[2] != test


# ---- a run that is interrupted, and its result --------------------------------------------------------------------

SMALLEST = ["shakespeare-20s", "--threads", "1", "--folder"]


@pytest.fixture
def small_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    letters = np.random.default_rng(0).choice(list("abcdefg \n"), 7_000)
    (tmp_path / "tinyshakespeare.txt").write_text("".join(letters), encoding="utf-8")
    monkeypatch.setenv("CRNN_DATA", str(tmp_path))


def result_in(folder: Path) -> dict:
    (result,) = work.results_in(folder)
    return result


@pytest.mark.usefixtures("small_text")
def test_a_run_that_was_terminated_continues_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command.main([*SMALLEST, str(whole)]) == 0
    capsys.readouterr()

    updates = itertools.count(1)
    with monkeypatch.context() as patched:
        patched.setattr(
            work.Clock, "tick", lambda self, progress: next(updates) == 4 and signal.raise_signal(signal.SIGTERM)
        )
        assert command.main([*SMALLEST, str(parts)]) == 128 + signal.SIGTERM
    assert "the same command continues" in capsys.readouterr().err
    assert not work.results_in(parts)
    spent = json.loads((parts / "shakespeare-20s-0" / "model.time.json").read_text())
    assert spent["seconds"] > 0

    monkeypatch.setattr(work.Clock, "tick", lambda self, progress: next(updates) and None)
    assert command.main([*SMALLEST, str(parts), "--table"]) == 0
    assert next(updates) == 2 * 4 + 1  # two epochs of four windows; none of them is trained on twice
    assert result_in(parts)["value"] == result_in(whole)["value"]
    assert result_in(parts)["seconds"] > spent["seconds"]
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| `shakespeare-20s` |")
    assert result_in(whole)["result"] in row

    assert command.main([*SMALLEST, str(parts)]) == 0  # a finished run is only read
    assert next(updates) == 2 * 4 + 2
    assert result_in(parts)["value"] == result_in(whole)["value"]


@pytest.mark.usefixtures("small_text")
def test_a_checkpoint_of_other_settings_is_refused_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command.main([*SMALLEST, str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    settings = tmp_path / "shakespeare-20s-0" / "model.settings.json"
    settings.write_text(settings.read_text().replace('"lr": "0.01"', '"lr": "0.02"'))
    assert command.main([*SMALLEST, str(tmp_path)]) == 1
    assert "is of other settings; --restart replaces it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before if path != settings} == {
        path: content for path, content in before.items() if path != settings
    }
    assert command.main([*SMALLEST, str(tmp_path), "--restart"]) == 0
    assert settings.read_bytes() == before[settings]


def test_a_goal_is_met_in_its_time_or_missed() -> None:
    task = tasks.Task("some", "penn", 2, "small", "80", goal=82.0)
    result = {"value": 81.9, "seconds": 100, "cpu_seconds": 190}
    assert table.goal(task, result) == "82 in 2 min: met"
    assert table.duration(result) == "1.7 (3.2)"
    assert table.goal(task, result | {"value": None}) == "82 in 2 min"
    assert table.goal(task, result | {"value": 82.1}) == "82 in 2 min: missed"
    assert table.goal(task, result | {"seconds": 130}) == "82 in 2 min: met, but it took longer"
    assert table.goal(tasks.Task("some", "penn", 0.5, "small", "80"), result) == "in 30 s"
