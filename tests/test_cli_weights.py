# SPDX-License-Identifier: MIT
"""Columns of sample weights and of the mask: the same as in Python, and what is refused."""

import csv
import json

import numpy as np
import pytest
from table_tools import fails, write

import crnn

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

SMALL = ["--hidden", "3", "--epochs", "3", "-q", "--threads", "1"]
OPTIONS = {"hidden_size": 3, "epochs": 3}
RNG = np.random.default_rng(11)
LENGTHS = [3 + i % 4 for i in range(14)]
X = [RNG.normal(size=(T, 2)).round(3) for T in LENGTHS]
Y = ["up" if i % 3 else "down" for i in range(14)]
VALUES = [round(float(x.sum()), 3) for x in X]
TAGS = [["a" if value > 0 else "b" for value in x[:, 0]] for x in X]
WEIGHTS = [float(i % 4) for i in range(14)]
OF_STEPS = [[(i + t) % 3 / 2 for t in range(T)] for i, T in enumerate(LENGTHS)]
MASK = [[(i + t) % 4 != 0 or t == 1 for t in range(T)] for i, T in enumerate(LENGTHS)]


def table(path, labels, weights=None, mask=None, *, label="kind"):
    """A row for each step; a label, a weight and a mark of the mask for each sequence or each step."""
    rows = [["id", "x", "w", "y", "there", label]]
    for i, x in enumerate(X):
        for t, (one, two) in enumerate(x.tolist()):
            of_both = (labels[i], 1 if weights is None else weights[i])
            label, weight = (each[t] if isinstance(each, list) else each for each in of_both)
            there = mask is None or mask[i][t]
            values = (one, two) if there else ("", "nan")  # which nobody reads
            rows.append([f"s{i}", values[0], weight, values[1], int(there), label if there else ""])
    return write(path, rows)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path):
    return list(csv.reader(path.read_text("utf-8").splitlines()))


def same_as(path, model):
    return crnn.load(path).flat_params.tobytes() == model.flat_params.tobytes()


COLUMNS = ["--label", "kind", "--sample-weight", "w", "--mask", "there"]


@pytest.mark.parametrize(
    "given", [{"sample_weight": WEIGHTS}, {"mask": MASK}, {"sample_weight": WEIGHTS, "mask": MASK}]
)
def test_a_classifier_with_weights_and_a_mask_is_that_of_fit(here, run, given):
    table(here / "t.csv", Y, given.get("sample_weight"), given.get("mask"))
    _, err = run("train", "t.csv", "--task", "classify", "-o", "m", *SMALL, *COLUMNS)
    assert same_as("m", crnn.SequenceClassifier(**OPTIONS).fit(X, Y, **given))
    assert "of 2 values (x, y); long format" in err
    assert "weights in column w, the mask in column there" in err


@pytest.mark.parametrize("weights", [WEIGHTS, OF_STEPS])
def test_a_tagger_with_weights_and_a_mask_is_that_of_fit(here, run, weights):
    table(here / "t.csv", TAGS, weights, MASK)
    run("train", "t.csv", "--task", "tag", "-o", "m", *SMALL, *COLUMNS)
    of_steps = [each if isinstance(each, list) else [each] * T for each, T in zip(weights, LENGTHS, strict=True)]
    assert same_as("m", crnn.SequenceTagger(**OPTIONS).fit(X, TAGS, of_steps, mask=MASK))


@pytest.mark.parametrize("pooling", ["max", "none"])
def test_a_regressor_with_weights_and_a_mask_is_that_of_fit(here, run, pooling):
    y = VALUES if pooling == "max" else [x.sum(axis=1).round(3).tolist() for x in X]
    weights = WEIGHTS if pooling == "max" else OF_STEPS
    table(here / "t.csv", y, weights, MASK)
    options = ["--target", *COLUMNS[1:], "--pooling", pooling]
    run("train", "t.csv", "--task", "regress", "-o", "m", *SMALL, *options)
    model = crnn.SequenceRegressor(pooling=None if pooling == "none" else pooling, output_size=1, **OPTIONS)
    y = [[each] for each in y] if pooling == "max" else [[[each] for each in row] for row in y]
    assert same_as("m", model.fit(X, np.array(y) if pooling == "max" else y, weights, mask=MASK))


def test_validation_and_test_data_have_weights_and_masks_too(here, run):
    table(here / "t.csv", Y, WEIGHTS, MASK)
    table(here / "other.csv", Y[::-1], WEIGHTS[::-1], MASK)
    others = ["--valid", "other.csv", "--test", "other.csv", "--json"]
    out, _ = run("train", "t.csv", "--task", "classify", "-o", "m", *SMALL, *COLUMNS, *others)
    model = crnn.SequenceClassifier(**OPTIONS)
    rest = [x[np.array(mask)] for x, mask in zip(X, MASK, strict=True)]
    model.fit(rest, Y, WEIGHTS, valid=(rest, Y[::-1], WEIGHTS[::-1]))
    assert same_as("m", model)
    found = model.evaluate(model.data(X, Y[::-1], WEIGHTS[::-1], mask=MASK))
    assert json.loads(out)["test"]["nats"] == pytest.approx(found.nats)
    evaluated = json.loads(run("eval", "m", "other.csv", "--json")[0])
    assert (evaluated["nats"], evaluated["accuracy"]) == (pytest.approx(found.nats), pytest.approx(found.accuracy))


def test_classes_of_what_is_not_there_are_none(here, run):
    labels = ["gone" if weight == 0 else y for y, weight in zip(Y, WEIGHTS, strict=True)]
    table(here / "t.csv", labels, WEIGHTS)
    run("train", "t.csv", "--task", "classify", "-o", "m", *SMALL, *COLUMNS)
    assert crnn.load("m").classes == ["down", "up"]


def test_a_wide_table_has_weights_of_its_rows(here, run):
    wide = [["label", "w", "t1", "t2", "t3"], *([y, w, *x[:3, 0]] for y, w, x in zip(Y, WEIGHTS, X, strict=True))]
    train = ["train", write(here / "w.csv", wide), "--task", "classify", *SMALL]
    run(*train, "-o", "m", "--sample-weight", "w")
    assert same_as("m", crnn.SequenceClassifier(**OPTIONS).fit([x[:3, :1] for x in X], Y, WEIGHTS))
    out = run("predict", "m", "w.csv")[0]
    assert out == run("predict", "m", write(here / "v.csv", [row[:1] + row[2:] for row in wide]))[0]
    write(here / "w.csv", [[*wide[0], "there"], *([*row, 1] for row in wide[1:])])
    message = "--mask: expected a column that says which steps are there, which there is none in wide format"
    assert message in fails(run, *train, "-o", "n", "--mask", "there")


def test_predictions_of_masked_steps_are_empty(here, run):
    table(here / "t.csv", TAGS, OF_STEPS, MASK)
    run("train", "t.csv", "--task", "tag", "-o", "m", *SMALL, *COLUMNS)
    found = list(csv.DictReader(run("predict", "m", "t.csv", "--proba")[0].splitlines()))
    model = crnn.load("m")
    expected = np.concatenate(model.predict(X, mask=MASK)).tolist()
    assert [row["prediction"] or None for row in found] == expected
    assert [row["proba_a"] == "" for row in found] == [each is None for each in expected]
    first = json.loads(run("predict", "m", "t.csv", "--json")[0].splitlines()[0])
    assert first["prediction"] == expected[: LENGTHS[0]]
    table(here / "all.csv", TAGS)  # without zeros in its mask
    rows = [row[:4] + row[5:] for row in read(here / "all.csv")]
    write(here / "none.csv", rows)  # and without the column
    assert run("predict", "m", "all.csv")[0] == run("predict", "m", "none.csv")[0]
    assert "" not in [row["prediction"] for row in csv.DictReader(run("predict", "m", "none.csv")[0].splitlines())]


def test_masked_steps_do_not_change_the_prediction_of_a_sequence(here, run):
    table(here / "t.csv", Y, WEIGHTS, MASK)
    run("train", "t.csv", "--task", "classify", "-o", "m", *SMALL, *COLUMNS)
    found = [row["prediction"] for row in csv.DictReader(run("predict", "m", "t.csv")[0].splitlines())]
    assert found == crnn.load("m").predict(X, mask=MASK).tolist()


def test_the_columns_are_saved_with_the_model(here, run):
    table(here / "t.csv", Y, WEIGHTS, MASK)
    run("train", "t.csv", "--task", "classify", "-o", "m", *SMALL, *COLUMNS)
    (here / "run.toml").write_text(run("info", "--config", "m")[0], encoding="utf-8")
    run("train", "t.csv", "-o", "n", "--config", "run.toml", "-q")
    assert (here / "n").read_bytes() == (here / "m").read_bytes()


WRONG = {
    "a weight below 0": (3, "w", "-1", "line 3, column 3 (w): expected a weight of at least 0, got -1"),
    "no weight": (4, "w", "", "line 4, column 3 (w): expected a weight of at least 0, got an empty cell or NaN"),
    "an infinite weight": (4, "w", "inf", "line 4, column 3 (w): expected a weight of at least 0, got inf"),
    "a word as weight": (4, "w", "heavy", "line 4, column 3 (w): expected a number, got 'heavy'"),
    "several weights of a sequence": (3, "w", "7", "line 3, column 3 (w): expected the weight 1 of line 2"),
    "no mark": (2, "there", "", "line 2, column 5 (there): expected 1 for a step that is there, or 0, got ''"),
    "a number as mark": (2, "there", "2", "line 2, column 5 (there): expected 1 for a step that is there, or 0"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_weight_or_mark_is_refused_by_line_and_column(here, run, wrong):
    line, column, cell, message = WRONG[wrong]
    table(here / "t.csv", Y)
    rows = read(here / "t.csv")
    rows[line - 1][rows[0].index(column)] = cell
    write(here / "t.csv", rows)
    assert message in fails(run, "train", "t.csv", "--task", "classify", "-o", "m", *SMALL, *COLUMNS)
    assert not (here / "m").exists()


def test_what_cannot_be_weighed_or_masked_is_refused_in_the_words_of_the_shell(here, run):
    table(here / "t.csv", Y, [0] * 14)
    train = ["train", "t.csv", "--task", "classify", "-o", "m", *SMALL, "--label", "kind"]
    weight = "--sample-weight"
    assert f"{weight}: expected at least one weight above 0 in t.csv" in fails(run, *train, weight, "w")
    assert f"{weight}: expected one of the columns id, x, w" in fails(run, *train, weight, "v")
    assert "expected each column once, got w for two purposes" in fails(run, *train, weight, "w", "--mask", "w")
    table(here / "t.csv", Y, mask=[[False] * T for T in LENGTHS])
    message = "t.csv: line 2: expected at least one step of id 's0' that is there, got a mask of zeros only"
    assert message in fails(run, *train, "--mask", "there")
    write(here / "texts.csv", [["id", "word", "label", "there"], *[[i // 2, "word", i // 2 % 2, 1] for i in range(8)]])
    assert "--mask: expected a column" in fails(
        run, "train", "texts.csv", "--task", "classify", "-o", "m", *SMALL, "--mask", "there", "--format", "long"
    )


def test_texts_have_weights(here, run):
    texts = ["on", "off", "oon", "offf"] * 4
    rows = [[text, i % 2, 1 + i % 3] for i, text in enumerate(texts)]
    write(here / "texts.csv", [["text", "label", "w"], *rows])
    run("train", "texts.csv", "--task", "classify", "-o", "m", *SMALL, "--sample-weight", "w")
    model = crnn.SequenceClassifier(vocab="char", **OPTIONS)
    assert same_as("m", model.fit(texts, [row[1] for row in rows], [row[2] for row in rows]))
