# SPDX-License-Identifier: MIT
"""--json: what every subcommand prints for programs, on standard output and nowhere else."""

import base64
import json
import math

import numpy as np
import pytest
from model_tools import language_model, text

import crnn
from crnn import cli
from crnn.cli.command import SUBCOMMANDS, all_parsers
from crnn.cli.results import to_json

pytestmark = pytest.mark.thread_unsafe  # standard output and error are the process's

TINY = ["--hidden", "9", "--epochs", "2", "--batch", "4", "--bptt", "8", "-q"]


@pytest.fixture
def objects(capsys):
    """The JSON objects that a command prints, one per line."""

    def run(*arguments, status=0):
        assert cli.main([*map(str, arguments), "--json"]) == status
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.mark.parametrize("name", [each.name for each in SUBCOMMANDS])
def test_every_subcommand_has_it(name):
    if name == "completion":
        pytest.skip("its result is a program")
    assert "--json" in all_parsers()[name].format_help()


def test_numbers_that_json_does_not_have_are_null_and_others_have_all_digits():
    values = {"a": math.nan, "b": [math.inf, 1 / 3], "c": np.float64(0.1), "d": {"e": np.arange(2)}, "f": True}
    assert json.loads(to_json(values)) == {"a": None, "b": [None, 1 / 3], "c": 0.1, "d": {"e": [0, 1]}, "f": True}
    assert to_json({"x": "é\n"}).isascii()


def test_eval_prints_the_whole_evaluation(tmp_path, model_file, objects):
    content = "hello, hello new world!\n" * 5
    (tmp_path / "text").write_text(content, newline="")
    result = crnn.load(model_file).evaluate(content)
    (found,) = objects("eval", model_file, tmp_path / "text")
    figures = {"loss": result.nats, "nats": result.nats, "bits": result.bits, "perplexity": result.perplexity}
    figures |= {"accuracy": result.accuracy, "count": result.count}
    assert found == {"model": str(model_file), "unit": "char", "unknown": 0} | figures


def test_info_prints_what_the_file_holds(model_file, objects):
    model = crnn.load(model_file)
    (found,) = objects("info", model_file)
    assert found["config"] == model.config()
    assert (found["kind"], found["bytes"]) == ("LanguageModel", model_file.stat().st_size)
    assert found["params"]["W_hy"] == {"dtype": "float32", "shape": [19, 12]}
    assert found["size"] == model.flat_params.size
    assert found["vocab"]["tokens"] == list(model.vocab.tokens)
    assert (found["checkpoint"], found["training_runs"]) == (False, [])


def test_info_of_a_classifier_of_texts_has_its_vocabulary(tmp_path, objects, capsys):
    crnn.SequenceClassifier(vocab="word", hidden_size=5).fit(["a b", "c"], [0, 1], epochs=1).save(tmp_path / "m")
    assert objects("info", tmp_path / "m")[0]["vocab"]["tokens"] == ["<unk>", "a", "b", "c"]
    cli.main(["info", str(tmp_path / "m")])
    assert "Vocab(4 words" in capsys.readouterr().out


def test_info_of_a_model_without_a_vocabulary(tmp_path, objects):
    crnn.SequenceClassifier(3, 2, hidden_size=5).save(tmp_path / "m")
    (found,) = objects("info", tmp_path / "m")
    assert "vocab" not in found
    assert found["config"]["pooling"] == "max"


def test_sample_prints_an_object_for_each_text(model_file, objects):
    model = crnn.load(model_file)
    found = objects("sample", model_file, "--prompt", "he", "--length", 20, "--seed", 3, "-n", 2)
    wanted = [{"seed": seed, "prompt": "he", "text": model.generate("he", 20, seed=seed)} for seed in (3, 4)]
    assert found == wanted


def test_sample_of_bytes_prints_text_and_the_bytes(tmp_path, objects):
    model = language_model("hello", unit="byte")
    model.save(tmp_path / "m")
    (found,) = objects("sample", tmp_path / "m", "--prompt", r"caf\xc3", "--length", 20, "--seed", 3)
    drawn = b"".join(model.iter_generate_bytes(b"caf\xc3", 20, seed=3))
    assert base64.b64decode(found["text_base64"]) == drawn
    assert base64.b64decode(found["prompt_base64"]) == b"caf\xc3"
    assert (found["prompt"], found["text"]) == ("caf\ufffd", drawn.decode("utf-8", "replace"))


def test_train_prints_what_the_run_has_reached(tmp_path, text_file, objects):
    (found,) = objects("train", text_file, "-o", tmp_path / "m", *TINY)
    (record,) = crnn.load(tmp_path / "m").training_runs
    assert (found["output"], found["kind"], found["ended"]) == (str(tmp_path / "m"), "LanguageModel", "finished")
    assert (found["epochs"], found["updates"], found["unit"]) == (2, record["updates"], "nats")
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        assert found[name] == pytest.approx(record["scores"][name], rel=1e-5)
    assert found["test"]["nats"] == pytest.approx(record["scores"]["test_loss"], rel=1e-5)


def test_train_prints_it_too_when_it_diverges(tmp_path, text_file, objects):
    wild = ["--cell", "relu", "--embedding", "9", "--optimizer", "sgd", "--lr", "1e30", "--clip-norm", "0"]
    (found,) = objects("train", text_file, "-o", tmp_path / "m", *TINY, *wild, status=1)
    assert (found["ended"], found["output"], found["best_epoch"]) == ("diverged", None, None)


def test_demo_prints_its_text(tmp_path, objects, monkeypatch):
    monkeypatch.setattr(crnn._demo, "documentation_prose", lambda: "The " + text(3000))
    (found,) = objects("demo", "--hidden", 9, "--epochs", 1, "--length", 30, "-o", tmp_path / "m")
    model = crnn.load(tmp_path / "m")
    wanted = model.generate("The ", 30, temperature=0.7, seed=1)
    assert found == {"output": str(tmp_path / "m"), "seed": 1, "prompt": "The ", "text": wanted}


def test_report_prints_the_runs_on_the_page(tmp_path, text_file, objects):
    cli.main([str(each) for each in ("train", text_file, "-o", tmp_path / "m", *TINY, "--log", tmp_path / "run.jsonl")])
    (found,) = objects("report", tmp_path / "run.jsonl", "-o", tmp_path / "run.html")
    assert found == {"output": str(tmp_path / "run.html"), "runs": ["run"]}


def test_verify_prints_an_object_for_each_part_and_one_for_all(objects, monkeypatch):
    parts = (crnn.PartResult("one", "ab", "ab"), crnn.PartResult("two", "", "cd", "was NaN"))

    def verify(isa, threads, on_part):
        for part in parts:
            on_part(part)
        return crnn.Verification(parts, "generic", threads)

    monkeypatch.setattr(crnn, "verify", verify)
    one, two, all_parts = objects("verify", status=1)
    assert one == {"part": "one", "ok": True, "hash": "ab", "expected": "ab", "error": None}
    assert two == {"part": "two", "ok": False, "hash": "", "expected": "cd", "error": "was NaN"}
    assert all_parts == {"hash": crnn.Verification(parts, "generic", 2).hash} | {
        "crnn": crnn.__version__, "isa": "generic", "threads": 2, "ok": False
    }  # fmt: skip


def test_an_error_is_a_line_on_standard_error_and_no_object(tmp_path, capsys):
    assert cli.main(["info", str(tmp_path / "none"), "--json"]) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
