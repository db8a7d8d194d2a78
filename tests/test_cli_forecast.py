# SPDX-License-Identifier: MIT
"""crnn train --task forecast, predict and eval of series in tables: as in Python; times that continue; refusals."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from table_tools import fails, write

import crnn
from crnn.cli.tables.times import axis_of, seconds_of

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

RNG = np.random.default_rng(3)
T, AHEAD = 90, 4
STEPS = np.arange(T + AHEAD)
KNOWN = np.round(np.sin(STEPS / 3), 4)
PAST = np.round(RNG.normal(size=T), 4)
SERIES = np.round(0.1 * STEPS[:T] + np.array([0, 2, 1, 5])[STEPS[:T] % 4] + KNOWN[:T] + RNG.normal(size=T) / 9, 4)
MONTHS = [f"{2000 + i // 12}-{i % 12 + 1:02d}" for i in range(T + AHEAD)]
SMALL = ["--hidden", "4", "--epochs", "3", "--horizon", "3", "-q", "--threads", "1"]
OPTIONS = {"hidden_size": 4, "horizon": 3}


def rows_of_table(*, ahead=0, ids=("",)):
    rows = [[*(["shop"] if len(ids) > 1 else []), "month", "sold", "rain", "sun"]]
    for number, id in enumerate(ids):
        for i in range(T + ahead):
            values = [SERIES[i] + number, PAST[i]] if i < T else ["", ""]
            rows.append([*([id] if len(ids) > 1 else []), MONTHS[i], *values, KNOWN[i]])
    return rows


@pytest.fixture
def here(tmp_path, monkeypatch):
    write(tmp_path / "t.csv", rows_of_table())
    write(tmp_path / "ahead.csv", rows_of_table(ahead=AHEAD))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = ["train", "t.csv", "--task", "forecast", "--time", "month", "--target", "sold"]


def table_of(text):
    return list(csv.DictReader(text.splitlines()))


# ---- train -------------------------------------------------------------------------------------------------------


def test_a_forecaster_of_a_table_is_that_of_fit(here, run):
    _, err = run(*TRAIN, "-o", "m", *SMALL, "--lr", 0.02, "--seed", 2)
    model = crnn.Forecaster(**OPTIONS, seed=2).fit(SERIES, epochs=3, lr=0.02, seed=2)
    loaded = crnn.load("m")
    assert isinstance(loaded, crnn.Forecaster)
    assert_same_bits(loaded.flat_params, model.flat_params)
    np.testing.assert_array_equal(loaded.forecast(5), model.forecast(5))
    assert "t.csv: a series of 90 steps; target: sold; times in column month, evenly spaced; not used: rain, sun" in err
    assert "season: 4 steps; differences: " in err


def test_further_columns_reach_it(here, run):
    options = ["--past", "rain", "--future", "sun", "--gaps", "mask", "--season", 4, "--difference", "4,1"]
    run(*TRAIN, "-o", "m", *SMALL, *options, "--window", 20, "--loss", "huber", "--delta", 0.5, "--valid", 0.3)
    model = crnn.Forecaster(**OPTIONS, gaps="mask", season=4, difference=[4, 1], window=20, loss="huber", delta=0.5)
    model.fit(SERIES, PAST[:, None], KNOWN[:T, None], epochs=3, valid=0.3)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)


@pytest.mark.parametrize(("option", "value"), [("none", None), ("1", [1]), ("auto", "auto")])
def test_differences_are_as_in_python(here, run, option, value):
    run(*TRAIN, "-o", "m", *SMALL, "--difference", option, "--valid", "none")
    model = crnn.Forecaster(**OPTIONS, difference=value).fit(SERIES, epochs=3, valid=None)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)


def test_the_only_column_that_is_left_is_the_target(here, run):
    write(here / "one.csv", [[row[0], row[1]] for row in rows_of_table()])
    run("train", "one.csv", "--task", "forecast", "--time", "month", "-o", "m", *SMALL)
    assert "expected the column to forecast, such as --target sun" in fails(
        run, "train", "t.csv", "--task", "forecast", "-o", "n", *SMALL
    )


def test_several_series_by_id(here, run):
    write(here / "shops.csv", rows_of_table(ids=("north", "south")))
    _, err = run("train", "shops.csv", *TRAIN[2:], "--id", "shop", "-o", "m", *SMALL)
    model = crnn.Forecaster(**OPTIONS).fit([SERIES, SERIES + 1], epochs=3)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)
    assert "2 series (ids in column shop) of 90 steps" in err
    found = table_of(run("predict", "m", "shops.csv")[0])
    places = [(shop, month) for shop in ("north", "south") for month in MONTHS[T : T + 3]]
    assert [(row["shop"], row["month"]) for row in found] == places
    wanted = np.concatenate(model.forecast(3, [SERIES, SERIES + 1]))
    assert [float(row["sold"]) for row in found] == wanted.tolist()
    assert [row["series"] for row in table_of(run("predict", "m")[0])] == ["1"] * 3 + ["2"] * 3


def test_missing_values_and_missing_rows_are_gaps(here, run):
    rows = rows_of_table()
    rows[20][1] = ""
    del rows[30]
    write(here / "gaps.csv", rows)
    _, err = run("train", "gaps.csv", *TRAIN[2:], "-o", "m", *SMALL, "--gaps", "carry")
    series = SERIES.copy()
    series[[19, 29]] = np.nan
    model = crnn.Forecaster(**OPTIONS, gaps="carry").fit(series, epochs=3)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)
    assert "2 missing values; times in column month, evenly spaced, 1 rows missing" in err


def test_a_run_is_resumed_and_repeated_by_its_options(here, run):
    run(*TRAIN, "-o", "whole", *SMALL, "--schedule", "constant", "--epochs", 5)
    parts = [*TRAIN, "-o", "parts", *SMALL, "--schedule", "constant"]
    run(*parts)
    run(*parts, "--epochs", 5, "--resume")
    assert (here / "parts").read_bytes() == (here / "whole").read_bytes()
    toml, _ = run("info", "--config", "whole")
    (here / "run.toml").write_text(toml, encoding="utf-8")
    assert 'target = ["sold"]' in toml
    run("train", "t.csv", "-o", "again", "--config", "run.toml", "-q")
    assert (here / "again").read_bytes() == (here / "whole").read_bytes()


def test_differences_are_repeated_from_the_options_too(here, run):
    run(*TRAIN, "-o", "m", *SMALL, "--difference", "4,1", "--season", 4)
    (here / "run.toml").write_text(run("info", "--config", "m")[0], encoding="utf-8")
    run("train", "t.csv", "-o", "n", "--config", "run.toml", "-q")
    assert (here / "n").read_bytes() == (here / "m").read_bytes()


def test_an_interrupted_run_leaves_a_forecaster(here, run, monkeypatch):
    def interrupt(update, total):
        if update == 8:
            signal.raise_signal(signal.SIGINT)
        return 1.0

    command = [*TRAIN, "-o", "m", *SMALL, "--epochs", 100, "--schedule", "constant"]
    with monkeypatch.context() as patch:
        patch.setitem(crnn.optim.SCHEDULES, "constant", lambda warmup: interrupt)
        _, err = run(*command, status=130)
    assert "wrote m" in err
    assert crnn.load("m").forecast(2).shape == (2,)
    assert "resuming" in run(*command[:-2], "--epochs", 4, "--resume")[1]
    found = json.loads(run(*TRAIN, "-o", "k", *SMALL, "--json")[0])
    assert (found["kind"], found["ended"]) == ("Forecaster", "finished")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nothing"], "--target: expected one of the columns month, sold, rain, sun of t.csv"),
        (["--past", "sold"], "expected each column once, got sold for two purposes"),
        (["--future", "nothing"], "--future: expected one of the columns"),
        (["--id", "nothing"], "--id: expected one of the columns"),
        (["--horizon", "0"], "--horizon: expected an integer of at least 1, got 0"),
        (["--season", "0"], "--season: expected"),
        (["--window", "0"], "--window: expected"),
        (["--difference", "0"], "--difference: expected"),
        (["--logarithm", "--target", "rain"], "above 0"),
        (["--hidden", "0"], "--hidden: expected"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_and_writes_nothing(here, run, arguments, message):
    before = sorted(os.listdir(here))
    given = TRAIN[:-2] if "--target" in arguments else TRAIN
    assert message in fails(run, *given, "-o", "m", *SMALL, *arguments)
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--season", "often", "expected a number of steps, or auto, got 'often'"),
        ("--difference", "1,x", "expected lags, such as 1 or 12,1, auto, or none, got 'x'"),
        ("--valid", "other.csv", "expected a share between 0 and 1, auto, or none, got 'other.csv'"),
        ("--valid", "1.5", "expected a share between 0 and 1"),
        ("--gaps", "leave", "invalid choice: 'leave'"),
        ("--loss", "quantile", "invalid choice: 'quantile'"),
    ],
)
def test_values_that_options_do_not_take_are_refused(here, run, capsys, option, value, message):
    with pytest.raises(SystemExit):
        run(*TRAIN, "-o", "m", option, value)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "cell", "message"),
    [
        (5, "inf", r"t.csv: line 6, column 2 (sold): expected a number or an empty cell, got infinity"),
        (5, "many", r"t.csv: line 6, column 2 (sold): expected a number, got 'many'"),
    ],
)
def test_cells_that_are_no_numbers_are_refused_with_their_place(here, run, line, cell, message):
    rows = rows_of_table()
    rows[line][1] = cell
    write(here / "t.csv", rows)
    assert message in fails(run, *TRAIN, "-o", "m", *SMALL)


def test_a_target_without_values_and_times_that_fall_are_refused(here, run):
    write(here / "t.csv", [[row[0], "" if i else "sold"] for i, row in enumerate(rows_of_table())])
    assert "t.csv: line 2: expected values of the target, got none" in fails(run, *TRAIN, "-o", "m", *SMALL)
    write(here / "t.csv", rows_of_table()[:2])
    assert "expected more steps, to learn to forecast" in fails(run, *TRAIN, "-o", "m", *SMALL)
    rows = rows_of_table()
    rows[3:5] = rows[4:2:-1]
    write(here / "t.csv", rows)
    assert "line 5, column 1 (month): expected a later time" in fails(run, *TRAIN, "-o", "m", *SMALL)


# ---- predict and eval --------------------------------------------------------------------------------------------


def test_forecasts_continue_the_times_of_the_table(here, run):
    run(*TRAIN, "-o", "m", *SMALL)
    model = crnn.load("m")
    found = table_of(run("predict", "m", "t.csv", "--horizon", 5)[0])
    assert [row["month"] for row in found] == [*MONTHS[T:], "2007-11"]
    assert [float(row["sold"]) for row in found] == model.forecast(5, SERIES).tolist()
    found = table_of(run("predict", "m")[0])  # the series that was learnt
    assert [row["step"] for row in found] == ["1", "2", "3"]
    assert [float(row["sold"]) for row in found] == model.forecast(3).tolist()


def test_bands_are_columns(here, run):
    run(*TRAIN, "-o", "m", *SMALL)
    found = table_of(run("predict", "m", "t.csv", "--quantile", 0.9, "--quantile", 0.1)[0])
    assert list(found[0]) == ["month", "sold_q0.1", "sold_q0.9"]
    bands = crnn.load("m").forecast(3, SERIES, quantiles=(0.1, 0.9))
    np.testing.assert_array_equal([[float(row["sold_q0.1"]), float(row["sold_q0.9"])] for row in found], bands)
    objects = [json.loads(line) for line in run("predict", "m", "t.csv", "--json")[0].splitlines()]
    assert objects[0] == {"month": MONTHS[T], "sold": crnn.load("m").forecast(3, SERIES)[0]}


def test_columns_that_are_known_ahead_are_the_rows_after_the_last_target(here, run):
    run(*TRAIN, "--future", "sun", "-o", "m", *SMALL)
    model = crnn.load("m")
    found = table_of(run("predict", "m", "ahead.csv")[0])
    assert [row["month"] for row in found] == MONTHS[T:]
    wanted = model.forecast(AHEAD, SERIES, future=KNOWN[:, None])
    assert [float(row["sold"]) for row in found] == wanted.tolist()
    assert len(table_of(run("predict", "m", "ahead.csv", "--horizon", 2)[0])) == 2
    message = "expected 9 rows after the last target, with the columns that are known ahead (sun), got 4"
    assert message in fails(run, "predict", "m", "ahead.csv", "--horizon", 9)
    assert "expected 1 rows after the last target" in fails(run, "predict", "m", "t.csv")
    assert "expected a table with rows ahead of sun, got none" in fails(run, "predict", "m")


def test_eval_tests_from_several_origins(here, run):
    run(*TRAIN, "-o", "m", *SMALL)
    found = json.loads(run("eval", "m", "t.csv", "--origins", 3, "--horizon", 2, "--json")[0])
    wanted = crnn.load("m").backtest(SERIES, 2, 3)
    assert (found["rmse"], found["mae"]) == (wanted.rmse, wanted.mae)
    assert (found["naive_rmse"], found["origins"], found["horizon"]) == (wanted.naive.rmse, 3, 2)
    out, _ = run("eval", "m", "t.csv", "--origins", 3, "--horizon", 2)
    assert f"rmse {wanted.rmse:.4f}  mae {wanted.mae:.4f}  2 steps from 3 origins" in out
    assert f"rmse {wanted.naive.rmse:.4f}" in out


def test_options_of_other_models_are_refused(here, run):
    run(*TRAIN, "-o", "m", *SMALL)
    assert "--proba: not an option for forecasts" in fails(run, "predict", "m", "t.csv", "--proba")
    assert "--label: not an option for forecasts" in fails(run, "predict", "m", "t.csv", "--label", "sold")
    assert "--label: not an option for series" in fails(run, "eval", "m", "t.csv", "--label", "sold")
    crnn.SequenceRegressor(1, 1, hidden_size=3).save("r")
    assert "--horizon: not an option for sequences" in fails(run, "predict", "r", "t.csv", "--horizon", 3)
    assert "data: expected a table of sequences, got none" in fails(run, "predict", "r")
    assert "--horizon: not an option for tables of sequences" in fails(run, "eval", "r", "t.csv", "--horizon", 3)


# ---- times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "following"),
    [
        (["1", "2", "3"], ["4", "5"]),
        (["0.5", "1.0", "1.5"], ["2", "2.5"]),
        (["1990", "1992"], ["1994", "1996"]),
        (["2025-11", "2025-12"], ["2026-01", "2026-02"]),
        (["2025-12-31", "2026-01-31", "2026-02-28"], ["2026-03-31", "2026-04-30"]),
        (["2025-10-15", "2026-01-15"], ["2026-04-15", "2026-07-15"]),
        (["2026-02-27", "2026-02-28"], ["2026-03-01", "2026-03-02"]),
        (["2026-02-20", "2026-02-27"], ["2026-03-06", "2026-03-13"]),
        (["2026-01-31 22:00", "2026-01-31 23:00"], ["2026-02-01 00:00", "2026-02-01 01:00"]),
        (["2026-01-31T23:59:59", "2026-02-01T00:00:00"], ["2026-02-01T00:00:01", "2026-02-01T00:00:02"]),
        (["2026-01-31T23:00:00Z", "2026-02-01T00:00:00Z"], ["2026-02-01T01:00:00Z", "2026-02-01T02:00:00Z"]),
        (["2026-01-31T23:00+02:00", "2026-02-01T00:00+02:00"], ["2026-02-01T01:00+02:00", "2026-02-01T02:00+02:00"]),
    ],
)
def test_times_go_on_as_they_are_written(times, following):
    axis = axis_of(times)
    assert axis.places == list(range(len(times)))
    assert [axis.label(len(times) + i) for i in range(2)] == following
    assert [axis.label(i) for i in range(len(times))] == [each.replace("1.0", "1") for each in times]


def test_rows_that_are_missing_have_their_place():
    days = [f"2026-01-{day:02d}" for day in range(1, 29) if day not in (9, 10)]
    axis = axis_of(days)
    assert axis.missing == 2
    assert axis.places[7:10] == [7, 10, 11]
    months = [month for month in MONTHS if not month.endswith("-07")]
    assert axis_of(months).missing == len(MONTHS) - len(months)


@pytest.mark.parametrize(
    "times",
    [
        ["1"],
        ["1", "2", "4"],  # a third of the steps would be missing
        ["2026-01-02", "2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08", "2026-01-09", "2026-01-12"],
        ["2026-01-31", "2026-03-01", "2026-03-31"],
        ["2026-01-01", "2026-01-02T00:00Z"],
    ],
)
def test_times_that_are_not_evenly_spaced_have_no_axis(times):
    assert axis_of(times) is None


def test_times_rise_as_their_seconds_do():
    assert seconds_of("2026-01-31T12:00+02:00") == seconds_of("2026-01-31T10:00Z")
    assert seconds_of("1,5", ",") == 1.5
    assert seconds_of("inf") is seconds_of("nan") is seconds_of("soon") is seconds_of("2026-13") is None


def test_steps_have_numbers_where_times_are_not_evenly_spaced(here, run):
    rows = rows_of_table()
    for i in range(1, 40):
        rows[i][0] = f"1999-{i // 4 + 1:02d}-{i % 4 * 7 + 1:02d}"
    write(here / "t.csv", rows)
    _, err = run(*TRAIN, "-o", "m", *SMALL)
    assert "not evenly spaced: a row is a step" in err
    assert [row["step"] for row in table_of(run("predict", "m", "t.csv")[0])] == ["1", "2", "3"]
