# SPDX-License-Identifier: MIT
"""crnn train --task classify and tag, predict and eval on tables: the same as in Python, and what is refused."""

import csv
import json
import os
import subprocess

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import crnn_command, environment
from table_tools import fails, write

import crnn
from crnn.cli.command import CommandParser, all_parsers
from crnn.cli.tasks import TASKS
from crnn.cli.train import add_arguments
from crnn.models.inputs.held_out import held_out

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

SMALL = ["--hidden", "5", "--epochs", "4", "-q", "--threads", "1"]
RNG = np.random.default_rng(5)
LENGTHS = [3 + i % 4 for i in range(24)]
X = [RNG.normal(size=(T, 2)).round(3) + (0.5 if i % 3 else -0.5) for i, T in enumerate(LENGTHS)]
Y = ["up" if i % 3 else "down" for i in range(len(X))]
TAGS = [["a" if value > 0 else "b" for value in x[:, 0].cumsum()] for x in X]


def long_rows(*, labels=True, tags=False, names=("sensor", "t", "ax", "ay", "kind")):
    rows = [list(names[: 4 + labels])]
    for i, x in enumerate(X):
        for t, (one, two) in enumerate(x.tolist()):
            rows.append([f"s{i}", t, one, two, *([TAGS[i][t] if tags else Y[i]] if labels else [])])
    return rows


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: tables in long format with labels of sequences and of steps, and one in wide format."""
    write(tmp_path / "long.csv", long_rows())
    write(tmp_path / "tags.csv", long_rows(tags=True))
    write(tmp_path / "wide.tsv", [[1 if y == "up" else -1, *x[:, 0]] for x, y in zip(X, Y, strict=True)], "\t")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LONG = ["long.csv", "--task", "classify", "--id", "sensor", "--time", "t", "--label", "kind"]
TAG = ["tags.csv", "--task", "tag", "--id", "sensor", "--time", "t", "--label", "kind"]
WIDE = ["wide.tsv", "--task", "classify"]


def rows_of(text, delimiter=","):
    return list(csv.DictReader(text.splitlines(), delimiter=delimiter))


# ---- train -------------------------------------------------------------------------------------------------------


def test_a_classifier_of_a_long_table_is_that_of_fit(here, run):
    _, err = run("train", *LONG, "-o", "m", *SMALL, "--seed", 3, "--lr", 0.02, "--batch", 7)
    model = crnn.SequenceClassifier(hidden_size=5, seed=3).fit(X, Y, epochs=4, seed=3, lr=0.02, batch_size=7)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)
    assert crnn.load("m").classes == ["down", "up"]
    assert "long.csv: 24 sequences of 3 to 6 steps of 2 values (ax, ay); long format: a row is a step, labels" in err
    assert "2 classes: down (8), up (16)" in err


def test_a_classifier_of_a_wide_table_is_that_of_fit(here, run):
    run("train", *WIDE, "-o", "m", *SMALL, "--valid", 0.25)
    y = [1 if label == "up" else -1 for label in Y]
    model = crnn.SequenceClassifier(classes=[-1, 1], hidden_size=5)
    model.fit([x[:, :1] for x in X], y, epochs=4, valid=0.25)
    loaded = crnn.load("m")
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert loaded.classes == [-1, 1]
    scores = loaded.training_runs[0]["scores"]
    assert scores["valid_loss"] == pytest.approx(model.log.best["valid_loss"], rel=1e-5)


def test_a_tagger_is_that_of_fit(here, run):
    run("train", *TAG, "-o", "m", *SMALL, "--cell", "lstm", "--bidirectional", "--layers", 2, "--no-scale")
    model = crnn.SequenceTagger(hidden_size=5, cell="lstm", bidirectional=True, num_layers=2, scale=False)
    assert_same_bits(crnn.load("m").flat_params, model.fit(X, TAGS, epochs=4).flat_params)


def test_several_columns_of_labels_make_a_multilabel_model(here, run):
    both = [[int(y == "up"), int(len(x) > 4)] for x, y in zip(X, Y, strict=True)]
    rows = [[f"s{i}", value, *both[i]] for i, x in enumerate(X) for value in x[:, 0]]
    write(here / "multi.csv", [["id", "x", "up", "far"], *rows])
    run("train", "multi.csv", "--task", "classify", "--label", "up", "--label", "far", "-o", "m", *SMALL)
    model = crnn.SequenceClassifier(classes=["up", "far"], multilabel=True, hidden_size=5)
    model.fit([x[:, :1] for x in X], np.array(both), epochs=4)
    loaded = crnn.load("m")
    assert_same_bits(loaded.flat_params, model.flat_params)
    found = rows_of(run("predict", "m", "multi.csv", "--proba")[0])
    probabilities = model.predict_proba([x[:, :1] for x in X])
    assert list(found[0]) == ["id", "up", "far", "prediction_up", "prediction_far", "proba_up", "proba_far"]
    assert [np.float32(row["proba_far"]) for row in found] == probabilities[:, 1].tolist()
    assert [row["prediction_up"] for row in found] == [str(int(p > 0.5)) for p in probabilities[:, 0]]
    assert "accuracy" in run("eval", "m", "multi.csv")[0]


@pytest.mark.parametrize(("given", "thresholds"), [([0.4], [0.4, 0.4]), ([0.25, 0.75], [0.25, 0.75])])
def test_thresholds_of_labels_reach_the_model(here, run, given, thresholds):
    rows = [[f"s{i}", value, int(Y[i] == "up"), int(len(x) > 4)] for i, x in enumerate(X) for value in x[:, 0]]
    write(here / "multi.csv", [["id", "x", "up", "far"], *rows])
    options = [part for each in given for part in ("--threshold", each)]
    run("train", "multi.csv", "--task", "classify", "--label", "up", "--label", "far", "-o", "m", *SMALL, *options)
    assert crnn.load("m").thresholds == thresholds
    assert "--threshold: expected" in fails(run, "train", *LONG, "-o", "n", *SMALL, *options)


def test_options_of_the_model_reach_it(here, run):
    write(here / "even.csv", [["label", "a", "b", "c"], *[[y, *x[:3, 0]] for x, y in zip(X, Y, strict=True)]])
    run("train", "even.csv", "--task", "classify", "-o", "m", *SMALL, "--pooling", "flatten", "--label-smoothing", 0.1)
    config = crnn.load("m").config()
    assert (config["pooling"], config["steps"], config["label_smoothing"], config["scale"]) == ("flatten", 3, 0.1, True)


@pytest.mark.parametrize(
    ("given", "weights"),
    [(["balanced"], "balanced"), (["up=0.5", "down=2"], {"up": 0.5, "down": 2.0}), ([], None)],
)
def test_classes_are_weighed_as_in_python(here, run, given, weights):
    options = [part for each in given for part in ("--class-weight", each)]
    run("train", *LONG, "-o", "m", *SMALL, *options)
    model = crnn.SequenceClassifier(hidden_size=5, class_weight=weights).fit(X, Y, epochs=4)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)
    (here / "run.toml").write_text(run("info", "--config", "m")[0], encoding="utf-8")
    run("train", "long.csv", "-o", "n", "--config", "run.toml", "-q")
    assert (here / "n").read_bytes() == (here / "m").read_bytes()


def test_labels_that_are_numbers_are_weighed(here, run):
    run("train", *WIDE, "-o", "m", *SMALL, "--class-weight=-1=3")
    assert crnn.load("m").class_weight == [3, 1]


def test_validation_and_test_data_are_shares_or_tables(here, run):
    write(here / "other.csv", [long_rows()[0], *[row[::1] for row in long_rows()[1:] if row[0] in ("s1", "s2", "s3")]])
    others = ["--valid", "other.csv", "--test", "other.csv"]
    out, err = run("train", *LONG, "-o", "m", *SMALL, *others, "--json")
    found = json.loads(out)
    result = crnn.load("m").evaluate(X[1:4], Y[1:4])
    assert found["test"]["nats"] == pytest.approx(found["valid_loss"]) == pytest.approx(result.nats)
    assert f"test {result.nats:.4f} nats, accuracy {100 * result.accuracy:.1f} % of 3" in err
    found = json.loads(run("train", *LONG, "-o", "n", *SMALL, "--valid", 0.25, "--test", 0.25, "--json")[0])
    assert found["test"]["count"] == 6
    assert crnn.load("n").training_runs[0]["valid"] is not None


@pytest.mark.parametrize("value", ["none", "0"])
def test_all_sequences_are_trained_on_if_that_is_said(here, run, value):
    run("train", *LONG, "-o", "m", *SMALL, "--valid", value)
    assert crnn.load("m").training_runs[0]["valid"] is None


def test_columns_of_another_table_are_found_by_name(here, run):
    run("train", *LONG, "-o", "m", *SMALL)
    plain = run("predict", "m", "long.csv")[0]
    moved = [[row[i] for i in (3, 4, 1, 2, 0)] for row in long_rows()]
    write(here / "moved.csv", [[*row, 9] for row in moved])
    assert run("predict", "m", "moved.csv")[0] == plain


def test_a_run_is_resumed(here, run):
    run("train", *LONG, "-o", "whole", *SMALL, "--schedule", "constant", "--epochs", 6, "--valid", 0.25)
    parts = ["train", *LONG, "-o", "parts", *SMALL, "--schedule", "constant", "--valid", 0.25]
    run(*parts)
    _, err = run(*parts, "--epochs", 6, "--resume")
    assert (here / "parts").read_bytes() == (here / "whole").read_bytes()
    assert "resuming at epoch 5" in err
    rows = long_rows()
    rows[5][2] = 9.5
    write(here / "long.csv", rows)
    assert "data: expected the training data of parts.checkpoint" in fails(run, *parts, "--epochs", 7, "--resume")


def test_the_options_of_a_run_repeat_it(here, run):
    run("train", *LONG, "-o", "m", *SMALL, "--no-scale", "--pooling", "mean", "--dropout", 0.2, "--test", 0.25)
    toml, _ = run("info", "--config", "m")
    (here / "run.toml").write_text(toml, encoding="utf-8")
    assert 'column = ["ax", "ay"]' in toml
    assert 'format = "long"' in toml
    run("train", "long.csv", "-o", "again", "--config", "run.toml", "-q")
    assert (here / "again").read_bytes() == (here / "m").read_bytes()


def test_a_table_may_come_from_standard_input(here):
    command = crnn_command("train", "-", *LONG[1:], "-o", "m", *SMALL)
    content = (here / "long.csv").read_bytes()
    done = subprocess.run(command, env=environment(), input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"<stdin>" not in done.stderr
    done = subprocess.run(
        crnn_command("predict", "m", "-"), env=environment(), input=content, capture_output=True, check=False
    )
    assert len(done.stdout.splitlines()) == 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "nothing"], "--label: expected one of the columns sensor, t, ax, ay, kind"),
        (["--valid", "no.csv"], "no.csv: No such file"),
        (["--test", "auto"], "--test: expected a share between 0 and 1, a file, or none, got 'auto'"),
        (["--valid", "long.csv", "-o", "long.csv"], "expected different files, got long.csv"),
        (["--patience", "2", "--valid", "none"], "--patience: expected validation data with it, got none"),
        (["--valid", "./long.csv"], "--valid: expected other data than those to train on, got long.csv for both"),
        (["--test", "long.csv"], "--test: expected other data than those to train on"),
        (["--pooling", "flatten"], "expected sequences of 3 steps, for"),
        (["--hidden", "0"], "--hidden: expected an integer of at least 1, got 0"),
        (["--column", "ax", "--column", "kind"], "expected each column once, got kind for two purposes"),
        (["--valid", "tags.csv"], "tags.csv: line 6, column 5 (kind): expected the label 'b' of line 5"),
        (["--encoding", "hex"], "--encoding: expected a text encoding"),
        (["--class-weight", "left=1"], "--class-weight: expected each of the classes down, up once, got 'left'"),
        (["--class-weight", "up=1", "--class-weight", "up=2"], "once, got 'up'"),
        (["--class-weight", "up=1", "--class-weight", "balanced"], "or a weight for each class, got both"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_and_writes_nothing(here, run, arguments, message):
    before = sorted(os.listdir(here))
    assert message in fails(run, "train", *LONG, *([] if "-o" in arguments else ["-o", "m"]), *SMALL, *arguments)
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize(("task", "option"), [("classify", "--label"), ("tag", "--label"), ("regress", "--target")])
def test_a_column_that_is_not_named_is_asked_for_by_the_option_of_the_task(here, run, task, option):
    message = f"{option}: expected the column of the labels, such as {option} kind; long.csv has"
    assert message in fails(run, "train", "long.csv", "--task", task, "-o", "m", *SMALL)


@pytest.mark.parametrize("option", ["--bptt", "--carry", "--unit", "--tie-weights", "--sample-every"])
def test_options_of_texts_are_not_those_of_tables(here, run, option, capsys):
    with pytest.raises(SystemExit):
        run("train", *LONG, "-o", "m", option, "1")
    assert f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_classes_and_widths_of_other_tables_are_checked(here, run):
    rows = long_rows()
    write(here / "new.csv", [rows[0], [*rows[1][:4], "left"]])
    message = fails(run, "train", *LONG, "-o", "m", *SMALL, "--valid", "new.csv")
    assert "new.csv: line 2: expected one of the classes down, up in column kind, got 'left'" in message
    run("train", *LONG, "-o", "m", *SMALL)
    assert "line 2: expected one of the classes" in fails(run, "eval", "m", "new.csv")
    assert "expected 2 columns of values, as the model has learnt, got 1 (ax)" in fails(
        run, "predict", "m", "long.csv", "--column", "ax"
    )


def test_a_table_that_is_learnt_as_text_is_named(here, run):
    options = ["--hidden", "4", "--epochs", "1", "--batch", "4", "-q"]
    assert "wide.tsv is learnt as text; --task classify" in run("train", "wide.tsv", "-o", "m", *options)[1]
    assert "learnt as text" not in run("train", "wide.tsv", "--task", "text", "-o", "n", *options)[1]


def test_data_and_validation_data_of_a_configuration_are_relative_to_it(here, run, monkeypatch):
    (here / "runs").mkdir()
    rows = long_rows()
    write(here / "runs" / "other.csv", [rows[0], *rows[1:4], *rows[12:18]])
    lines = ['task = "classify"', 'data = "../long.csv"', 'valid = "other.csv"', 'label = "kind"', 'id = "sensor"']
    lines += ['time = "t"', "hidden = 5", "epochs = 2", "quiet = true", "scale = false", 'output = "m"']
    (here / "runs" / "run.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir("/")
    run("train", "--config", here / "runs" / "run.toml")
    model = crnn.load(here / "runs" / "m")
    assert (model.net.hidden_size, model.scale) == (5, False)
    assert "# valid: a file was given, whose path is not saved" in run("info", "--config", here / "runs" / "m")[0]


# ---- values ------------------------------------------------------------------------------------------------------

MEANS = [[round(float(x.mean()), 3), len(x)] for x in X]


@pytest.fixture
def values(here):
    """A table of sequences with two values for each, and of steps with one for each."""
    rows = [[f"s{i}", t, *x[t], *MEANS[i]] for i, x in enumerate(X) for t in range(len(x))]
    write(here / "values.csv", [["id", "time", "ax", "ay", "mean", "steps"], *rows])
    sums = [[f"s{i}", t, *x[t], round(float(x[: t + 1, 0].sum()), 4)] for i, x in enumerate(X) for t in range(len(x))]
    write(here / "sums.csv", [["id", "time", "ax", "ay", "target"], *sums])
    return [[row[4] for row in sums if row[0] == f"s{i}"] for i in range(len(X))]


REGRESS = ["train", "values.csv", "--task", "regress", "--target", "mean", "--target", "steps", "-o", "m", *SMALL]


def test_a_regressor_is_that_of_fit(values, run):
    _, err = run(*REGRESS, "--loss", "huber", "--delta", 0.5, "--pooling", "mean", "--test", 0.25)
    model = crnn.SequenceRegressor(2, 2, hidden_size=5, loss="huber", delta=0.5, pooling="mean")
    kept = sorted(set(range(24)) - set(held_out(0.25, [0] * 24, 0)))
    model.fit([X[i] for i in kept], np.array([MEANS[i] for i in kept]), epochs=4)
    loaded = crnn.load("m")
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert "test rmse" in err
    found = rows_of(run("predict", "m", "values.csv")[0])
    assert list(found[0]) == ["id", "mean", "steps", "prediction_1", "prediction_2"]
    assert [float(row["prediction_2"]) for row in found] == model.predict(X)[:, 1].tolist()
    result = json.loads(run("eval", "m", "values.csv", "--json")[0])
    assert result["rmse"] == model.evaluate(X, np.array(MEANS)).rmse
    assert f"rmse {result['rmse']:.6g}" in run("eval", "m", "values.csv")[0]


def test_a_regressor_of_steps_is_that_of_fit(values, run):
    run("train", "sums.csv", "--task", "regress", "--pooling", "none", "-o", "m", *SMALL)
    model = crnn.SequenceRegressor(2, 1, hidden_size=5, pooling=None).fit(X, [np.array(y) for y in values], epochs=4)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)
    found = rows_of(run("predict", "m", "sums.csv")[0])
    assert list(found[0]) == ["id", "time", "target", "prediction"]
    np.testing.assert_array_equal([float(row["prediction"]) for row in found], np.concatenate(model.predict(X))[:, 0])
    assert json.loads(run("eval", "m", "sums.csv", "--json")[0])["mse"] == model.evaluate(X, values).mse


def test_quantiles_and_options_of_a_run_of_values(values, run):
    run(*REGRESS[:6], *REGRESS[8:], "--loss", "quantile", "--quantile", 0.25, "--quantile", 0.75)
    assert crnn.load("m").quantiles == [0.25, 0.75]
    with open("run.toml", "w", encoding="utf-8") as file:
        file.write(run("info", "--config", "m")[0])
    run("train", "values.csv", "--config", "run.toml", "-o", "n", "-q")
    assert crnn.load("n").to_bytes() == crnn.load("m").to_bytes()


def test_values_that_cannot_be_learnt_are_refused(values, run, here):
    assert "long for values of every step, got wide" in fails(run, *REGRESS, "--pooling", "none", "--format", "wide")
    rows = [["id", "ax", "target"], ["a", 1, "2"], ["a", 2, "2"], ["b", 3, "high"]]
    write(here / "bad.csv", rows)
    message = "bad.csv: line 4, column target: expected a number or an empty cell, got 'high'"
    assert message in fails(run, "train", "bad.csv", "--task", "regress", "-o", "n", *SMALL)
    run(*REGRESS)
    assert "expected 2 columns of values to learn, got mean" in fails(run, "eval", "m", "values.csv", "--label", "mean")


def test_a_table_without_names_must_say_whether_it_has_values_to_learn(here, run):
    write(here / "plain.csv", [[len(x), *x[:, 0]] for x in X])
    run("train", "plain.csv", "--task", "regress", "--format", "wide", "-o", "m", *SMALL)
    assert "expected --no-labels, or names of columns" in fails(run, "predict", "m", "plain.csv")
    write(here / "without.csv", [x[:, 0] for x in X])
    found = [float(row["prediction"]) for row in rows_of(run("predict", "m", "without.csv", "--no-labels")[0])]
    assert found == crnn.load("m").predict([x[:, :1] for x in X])[:, 0].tolist()


# ---- texts -------------------------------------------------------------------------------------------------------

WORDS = ["good film", "bad film", "good day out", "a bad day", "fine", "poor"]
TEXTS = [f"{WORDS[i % 6]} {i}" for i in range(18)]
MOODS = [("pos", "neg")[i % 2] for i in range(18)]


@pytest.fixture
def texts(here):
    return write(here / "texts.csv", [["text", "label", "n"], *[[t, m, 1] for t, m in zip(TEXTS, MOODS, strict=True)]])


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_a_classifier_of_texts_is_that_of_fit(texts, run, unit):
    _, err = run("train", "texts.csv", "--task", "classify", "-o", "m", *SMALL, "--vocab", unit, "--embedding", 3)
    model = crnn.SequenceClassifier(vocab=unit, hidden_size=5, embedding_size=3).fit(TEXTS, MOODS, epochs=4)
    loaded = crnn.load("m")
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert loaded.vocab == model.vocab
    assert "18 texts; a row is a text, texts in column text, labels in column label, not used: n; 2 classes" in err
    assert f"{len(model.vocab)} different {unit}s" in err
    found = rows_of(run("predict", "m", "texts.csv", "--proba")[0])
    assert [row["prediction"] for row in found] == model.predict(TEXTS).tolist()
    assert f"accuracy {model.evaluate(TEXTS, MOODS).accuracy:.4f}" in run("eval", "m", "texts.csv")[0]


def test_a_tagger_of_words_is_that_of_fit(here, run):
    sentences = [text.split() for text in TEXTS]
    tags = [["W" if word.isalpha() else "N" for word in words] for words in sentences]
    pairs = [[i, *pair] for i in range(18) for pair in zip(sentences[i], tags[i], strict=True)]
    write(here / "words.csv", [["sentence", "token", "tag"], *pairs])
    run("train", "words.csv", "--task", "tag", "--id", "sentence", "--label", "tag", "-o", "m", *SMALL)
    model = crnn.SequenceTagger(vocab="word", hidden_size=5).fit(sentences, tags, epochs=4)
    assert_same_bits(crnn.load("m").flat_params, model.flat_params)
    found = rows_of(run("predict", "m", "words.csv")[0])
    assert list(found[0]) == ["sentence", "token", "tag", "prediction"]
    assert [row["token"] for row in found] == [pair[1] for pair in pairs]
    assert [row["prediction"] for row in found] == [tag for each in model.predict(sentences) for tag in each]


def test_a_model_of_texts_needs_texts_and_its_options_too(texts, run):
    run("train", "texts.csv", "--task", "classify", "-o", "m", *SMALL)
    assert crnn.load("m").vocab.unit == "char"
    assert "--text: expected one of the columns sensor" in fails(run, "predict", "m", "long.csv")
    for option in (["--vocab", "word"], ["--embedding", "3"]):
        message = f"{option[0]}: expected a column of texts with it, got columns of values"
        assert message in fails(run, "train", *LONG, "-o", "n", *SMALL, *option)
    assert "text" in run("info", "--config", "m")[0]


# ---- predict and eval --------------------------------------------------------------------------------------------


def test_predictions_of_sequences_are_those_of_predict(here, run):
    run("train", *LONG, "-o", "m", *SMALL)
    model = crnn.load("m")
    out, err = run("predict", "m", "long.csv", "--proba")
    found, probabilities = rows_of(out), model.predict_proba(X)
    assert list(found[0]) == ["sensor", "kind", "prediction", "proba_down", "proba_up"]
    assert [row["sensor"] for row in found] == [f"s{i}" for i in range(len(X))]
    assert [row["kind"] for row in found] == Y
    assert [row["prediction"] for row in found] == model.predict(X).tolist()
    assert [np.float32(row["proba_up"]) for row in found] == probabilities[:, 1].tolist()
    assert "24 sequences" in err


def test_predictions_of_steps_are_those_of_predict(here, run):
    run("train", *TAG, "-o", "m", *SMALL)
    found = rows_of(run("predict", "m", "tags.csv", "--proba")[0])
    model = crnn.load("m")
    assert list(found[0]) == ["sensor", "t", "kind", "prediction", "proba_a", "proba_b"]
    assert [row["prediction"] for row in found] == [label for each in model.predict(X) for label in each]
    assert [(row["sensor"], row["t"]) for row in found] == [(row[0], str(row[1])) for row in long_rows()[1:]]
    probabilities = np.concatenate(model.predict_proba(X))
    assert [np.float32(row["proba_b"]) for row in found] == probabilities[:, 1].tolist()


def test_tables_without_labels_are_predicted(here, run):
    run("train", *LONG, "-o", "m", *SMALL)
    wanted = [row["prediction"] for row in rows_of(run("predict", "m", "long.csv")[0])]
    write(here / "plain.csv", long_rows(labels=False))
    found = rows_of(run("predict", "m", "plain.csv")[0])
    assert list(found[0]) == ["sensor", "prediction"]
    assert [row["prediction"] for row in found] == wanted
    run("train", *WIDE, "-o", "w", *SMALL)
    wanted = [row["prediction"] for row in rows_of(run("predict", "w", "wide.tsv")[0])]
    write(here / "values.csv", [x[:, 0] for x in X])
    out, err = run("predict", "w", "values.csv")
    assert [row["prediction"] for row in rows_of(out)] == wanted  # the first column is no label
    assert "labels" not in err
    assert rows_of(run("predict", "w", "wide.tsv")[0])[0].keys() == {"label", "prediction"}
    assert rows_of(run("predict", "w", "wide.tsv", "--no-labels")[0])[0].keys() == {"prediction"}


def test_predictions_are_written_to_a_new_file(here, run):
    run("train", *LONG, "-o", "m", *SMALL)
    out, _ = run("predict", "m", "long.csv")
    assert run("predict", "m", "long.csv", "-o", "p.csv")[0] == ""
    assert (here / "p.csv").read_text(encoding="utf-8") == out
    assert "p.csv, which exists; --overwrite replaces it" in fails(run, "predict", "m", "long.csv", "-o", "p.csv")
    assert "different files" in fails(run, "predict", "m", "long.csv", "-o", "m", "--overwrite")
    assert "different files" in fails(run, "predict", "m", "long.csv", "-o", "long.csv", "--overwrite")
    run("predict", "m", "long.csv", "-o", "p.csv", "--overwrite")
    run("predict", "m", "long.csv", "-o", "p.tsv")
    assert (here / "p.tsv").read_text(encoding="utf-8") == out.replace(",", "\t")


def test_predictions_as_json(here, run):
    run("train", *TAG, "-o", "m", *SMALL)
    objects = [json.loads(line) for line in run("predict", "m", "tags.csv", "--json", "--proba")[0].splitlines()]
    model = crnn.load("m")
    assert [each["prediction"] for each in objects] == [each.tolist() for each in model.predict(X)]
    assert objects[1]["line"] == 5
    assert (objects[1]["sensor"], objects[1]["label"]) == ("s1", TAGS[1])
    np.testing.assert_allclose(objects[0]["proba_a"], model.predict_proba(X)[0][:, 0])


@pytest.mark.parametrize("task", [LONG, TAG])
def test_eval_prints_what_evaluate_says(here, run, task):
    run("train", *task, "-o", "m", *SMALL)
    result = crnn.load("m").evaluate(X, Y if task is LONG else TAGS)
    out, _ = run("eval", "m", task[0])
    unit = "sequences" if task is LONG else "steps"
    assert out == (
        f"nats {result.nats:.4f}  bits {result.bits:.4f}  accuracy {result.accuracy:.4f}  {unit} {result.count}\n"
    )
    found = json.loads(run("eval", "m", task[0], "--json")[0])
    assert (found["nats"], found["accuracy"], found["count"]) == (result.nats, result.accuracy, result.count)
    assert found["sequences"] == 24


def test_a_regressor_of_python_predicts_a_table(here, run):
    model = crnn.SequenceRegressor(2, 1, hidden_size=5, loss="quantile", quantiles=[0.25, 0.5])
    model.fit(X, [float(len(x)) for x in X], epochs=2)
    model.save("m")
    write(here / "plain.csv", long_rows(labels=False))
    found = rows_of(run("predict", "m", "plain.csv", "--id", "sensor", "--time", "t")[0])
    values = model.predict(X).reshape(len(X), 2)
    assert [float(row["prediction_q0.25"]) for row in found] == values[:, 0].tolist()
    assert [float(row["prediction_q0.5"]) for row in found] == values[:, 1].tolist()
    assert "--proba: expected a model of classes" in fails(
        run, "predict", "m", "plain.csv", "--id", "sensor", "--time", "t", "--proba"
    )
    message = "label: expected the column of the labels"
    assert message in fails(run, "eval", "m", "plain.csv", "--id", "sensor", "--time", "t")


def test_models_and_options_of_other_data_are_refused(here, run):
    crnn.LanguageModel(crnn.Vocab.from_text("abc"), hidden_size=3).save("text")
    assert "expected a model of sequences" in fails(run, "predict", "text", "long.csv")
    assert "--id: not an option for texts" in fails(run, "eval", "text", "long.csv", "--id", "sensor")
    run("train", *LONG, "-o", "m", *SMALL)
    assert "--batch: not an option for tables of sequences" in fails(run, "eval", "m", "long.csv", "--batch", 3)
    assert "--border: not an option for tables of sequences" in fails(run, "eval", "m", "long.csv", "--border", "x")
    assert "expected one table, got 2 files" in fails(run, "eval", "m", "long.csv", "long.csv")
    write(here / "plain.csv", long_rows(labels=False))
    assert "--label: expected one of the columns sensor, t, ax, ay" in fails(run, "eval", "m", "plain.csv")


def test_predictions_have_names_of_their_own(here, run):
    run("train", *LONG, "-o", "m", *SMALL)
    write(here / "odd.csv", long_rows(names=("prediction", "t", "ax", "ay", "kind")))
    message = fails(run, "predict", "m", "odd.csv", "--id", "prediction")
    assert "expected no column called prediction, as the predictions are called" in message


# ---- the lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_has_the_options_of_training(task):
    parser = CommandParser("crnn train")
    parser.words = ["--task", task.name]
    add_arguments(parser)
    names = {action.dest for action in parser._actions}
    assert {"output", "epochs", "batch_size", "lr", "checkpoint", "resume", "report", "config", "json", "seed"} <= names
    assert task.help in parser.format_help()
    assert all(action.help for action in parser._actions)


def test_every_option_of_the_classifier_has_a_flag_or_is_found(here):
    parser = CommandParser("crnn train")
    parser.words = ["--task", "classify"]
    add_arguments(parser)
    names = {action.dest for action in parser._actions}
    found = {"input_size", "num_classes", "classes", "multilabel", "steps"}  # in the data
    python = {"reduction", "max_updates", "progress", "log_every", "warm_start"}  # --precision is that of fit
    assert set(crnn.SequenceClassifier().get_params()) - names == found | python
    assert "predict" in all_parsers()
