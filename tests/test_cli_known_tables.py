# SPDX-License-Identifier: MIT
"""Tables for models that exist: written as in training, without saying it again; labels as they were given."""

import csv
import json

import numpy as np
import pytest
from table_tools import fails, write

import crnn

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

SMALL = ["--hidden", "3", "--epochs", "2", "-q", "--threads", "1"]
RNG = np.random.default_rng(7)
X = [RNG.normal(size=(3 + i % 3, 2)).round(3) for i in range(12)]
Y = ["größer" if i % 3 else "kleiner" for i in range(12)]


def with_comma(value):
    return str(value).replace(".", ",")


def rows(number=str, labels=Y):
    yield ["id", "x", "y", "label"]
    for i, (x, label) in enumerate(zip(X, labels, strict=True)):
        for a, b in x.tolist():
            yield [f"s{i}", number(a), number(b), label]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


# ---- how a table is written --------------------------------------------------------------------------------------


def recode(path, encoding):
    path.write_text(path.read_text("utf-8"), encoding)


def test_a_table_with_decimal_commas_is_read_again_without_saying_so(here, run):
    write(here / "german.csv", rows(with_comma), ";")
    recode(here / "german.csv", "cp1252")
    write(here / "plain.csv", rows())
    options = ["--decimal", ",", "--encoding", "cp1252", "--delimiter", ";", "--header"]
    run("train", "german.csv", "--task", "classify", "-o", "m", *SMALL, *options)
    run("train", "plain.csv", "--task", "classify", "-o", "plain", *SMALL)
    assert crnn.load("m").flat_params.tobytes() == crnn.load("plain").flat_params.tobytes()
    again = run("predict", "m", "german.csv")[0]
    assert again == run("predict", "m", "german.csv", *options)[0]
    assert rows_of(again)[0]["prediction"] in ("größer", "kleiner")
    assert run("eval", "m", "german.csv")[0] == run("eval", "plain", "plain.csv")[0]
    typed = ["--decimal", ".", "--encoding", "utf-8", "--delimiter", ","]  # which says it again
    assert run("predict", "m", "plain.csv", *typed)[0] == again
    assert "expected" in fails(run, "predict", "m", "plain.csv")


def test_what_a_table_is_read_as_is_said_once_where_two_models_are_evaluated_on_it(here, run):
    write(here / "plain.csv", rows())
    run("train", "plain.csv", "--task", "classify", "-o", "m", *SMALL)
    out, err = run("quantize", "m", "-o", "q", "--eval", "plain.csv")
    assert err.count("plain.csv: 12 sequences") == 1
    assert out.count("sequences 12") == 2


def test_series_with_decimal_commas_are_read_again_without_saying_so(here, run):
    series = [[t, with_comma(round(float(np.sin(t / 3)), 3))] for t in range(60)]
    write(here / "german.csv", [["time", "sold"], *series], ";")
    run("train", "german.csv", "--task", "forecast", "-o", "m", *SMALL, "--decimal", ",", "--horizon", 3)
    assert run("predict", "m", "german.csv")[0] == run("predict", "m", "german.csv", "--decimal", ",")[0]
    assert run("eval", "m", "german.csv", "--origins", 2)[0].startswith("rmse")
    assert "--decimal" in fails(run, "predict", "m", "german.csv", "--decimal", ".")


@pytest.mark.parametrize(
    "saved", [{"decimal": "x"}, {"decimal": 1}, {"delimiter": ";;"}, {"header": "yes"}, {"encoding": 8}]
)
def test_settings_of_a_file_that_are_none_are_not_used(here, run, saved):
    write(here / "plain.csv", rows())
    run("train", "plain.csv", "--task", "classify", "-o", "m", *SMALL)
    expected = run("predict", "m", "plain.csv")[0]
    model = crnn.load("m")
    (record,) = model.training_runs
    model.training_runs = ({**record, "command": record["command"] | saved},)
    model.save("m")
    assert run("predict", "m", "plain.csv")[0] == expected


def test_the_options_of_a_run_say_how_its_table_was_written(here, run):
    write(here / "german.csv", rows(with_comma), ";")
    run("train", "german.csv", "--task", "classify", "-o", "m", *SMALL, "--decimal", ",")
    (here / "run.toml").write_text(run("info", "--config", "m")[0], encoding="utf-8")
    run("train", "german.csv", "-o", "n", "--config", "run.toml", "-q")
    assert (here / "n").read_bytes() == (here / "m").read_bytes()


# ---- labels that are real numbers --------------------------------------------------------------------------------


def trained(here, run, labels, *options, number=str, delimiter=","):
    write(here / "t.csv", rows(number, [labels[i % len(labels)] for i in range(12)]), delimiter)
    run("train", "t.csv", "--task", "classify", "-o", "m", *SMALL, *options)
    return crnn.load("m").classes


def test_classes_that_are_real_numbers_are_printed_as_they_were_given(here, run):
    assert trained(here, run, ["1.5", "2", "-0.25"]) == ["-0.25", "1.5", "2"]
    found = rows_of(run("predict", "m", "t.csv", "--proba")[0])
    assert list(found[0])[-4:] == ["prediction", "proba_-0.25", "proba_1.5", "proba_2"]
    assert {row["prediction"] for row in found} <= {"-0.25", "1.5", "2"}
    assert [row["label"] for row in found[:3]] == ["1.5", "2", "-0.25"]
    first = json.loads(run("predict", "m", "t.csv", "--json")[0].splitlines()[0])
    assert first["prediction"] in ("-0.25", "1.5", "2")


def test_classes_with_decimal_commas_are_printed_as_they_were_given(here, run):
    options = {"number": with_comma, "delimiter": ";"}
    assert trained(here, run, ["1,5", "2,25"], "--decimal", ",", **options) == ["1,5", "2,25"]
    assert {row["prediction"] for row in rows_of(run("predict", "m", "t.csv")[0])} <= {"1,5", "2,25"}
    assert " accuracy " in run("eval", "m", "t.csv")[0]


def test_several_spellings_of_a_number_are_one_class(here, run):
    assert trained(here, run, ["1.50", "2", "1.5", "2.0"], "--class-weight", "1.5=2") == ["1.5", "2"]
    write(here / "other.csv", rows(str, ["1.500", "2.00"] * 6))
    assert run("eval", "m", "other.csv")[0].split()[-1] == "12"
    assert "expected one of the classes 1.5, 2 in column label, got '1.6'" in fails(
        run, "eval", "m", write(here / "more.csv", rows(str, ["1.5", "1.6"] * 6))
    )


def test_numbers_among_other_labels_are_names(here, run):
    assert trained(here, run, ["1.50", "1.5", "much"]) == ["1.5", "1.50", "much"]


def test_one_number_in_two_spellings_is_not_two_classes(here, run):
    write(here / "t.csv", rows(str, ["1.5", "1.50"] * 6))
    assert "expected labels of at least two classes" in fails(
        run, "train", "t.csv", "--task", "classify", "-o", "m", *SMALL
    )


# ---- models that were trained in Python --------------------------------------------------------------------------


def test_columns_of_a_model_that_was_trained_on_data_frames_are_found_by_name(here, run):
    pd = pytest.importorskip("pandas")
    frames = [pd.DataFrame(x, columns=["x", "y"]) for x in X]
    model = crnn.SequenceClassifier(hidden_size=3, epochs=2).fit(frames, Y)
    model.save("m")
    table = [[row[0], row[2], "more", row[1]] for row in rows()]  # y before x
    write(here / "t.csv", [["id", "y", "more", "x"], *table[1:]])
    assert [row["prediction"] for row in rows_of(run("predict", "m", "t.csv")[0])] == model.predict(frames).tolist()
    write(here / "u.csv", [["id", "y", "z"], *(row[:3] for row in rows() if row[0] != "id")])
    assert "--column: expected one of the columns id, y, z" in fails(run, "predict", "m", "u.csv")
