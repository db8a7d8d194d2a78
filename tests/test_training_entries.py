# SPDX-License-Identifier: MIT
"""The kinds of entries of a log: what a file may hold, and in which order."""

import base64
import json

import pytest

import crnn
from crnn.training.entries import KINDS, is_entry, is_history

RUN = {"crnn": "1.0", "started": "2026-01-02T03:04:05Z", "name": "m", "unit": "nats", "counted": "tokens"}
RUN |= {"machine": {"cores": 2}, "model": {"kind": "RNN"}, "data": {}, "options": {}, "epochs": 3, "updates": 9}
SERIES = {"name": "y", "history": [1.0, 2.0], "truth": [3.0], "predicted": [2.9]}
EXAMPLES = {
    "train": {"train_loss": 1.0, "tokens": 5, "seconds": 0.1, "tokens_per_second": 50.0, "lr": 0.1, "grad_norm": 1.0},
    "epoch": {"train_loss": 1.0, "tokens": 5, "seconds": 0.1, "valid_loss": 1.0, "valid_accuracy": 0.5},
    "run": RUN,
    "sample": {"prompt": "a", "text": "b\n", "temperature": 0.8},
    "gradient_flow": {
        "layers": ["layer 0", "layer 1"], "steps": [0, 1, 2], "norms": [[0.1, 0.2, 0.3]] * 2, "saturation": [0.0, 0.1],
        "spectral_radius": [None, 1.0],
    },
    "text": {
        "tokens": ["a", "b", "c"], "surprisal": [1.0, 2.0, 3.0], "surprisal_unit": "nats", "units": ["u", "v"],
        "scale": [1.0, 2.0], "activity": base64.b64encode(bytes(6)).decode(),
    },
    "confusion": {"labels": ["a", "b"], "counts": [[1, 0], [0, 1]], "data": "valid"},
    "forecast": {"series": [SERIES, SERIES | {"lower": [2.0], "upper": [4.0]}], "data": "train"},
    "values": {"truth": [1.0], "predicted": [1.5], "data": "valid"},
    "end": {"reason": "finished", "best_epoch": None, "scores": {"valid_loss": 1.0}, "notes": ["n"], "seconds": 1.0},
}  # fmt: skip


def entry(kind, **changes):
    return {"kind": kind, "epoch": 1, "update": 5} | EXAMPLES[kind] | changes


def test_every_kind_has_an_example():
    assert EXAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_recognised_after_a_file_and_without_a_field_or_with_another_it_is_not(kind):
    assert is_entry(json.loads(json.dumps(entry(kind))))
    for name in EXAMPLES[kind]:
        partial = entry(kind)
        del partial[name]
        assert is_entry(partial) == (name in KINDS[kind].optional)
        assert not is_entry(entry(kind, **{name: object()}))
    assert not is_entry(entry(kind, other=1))
    assert not is_entry(entry(kind, epoch=-1))
    assert not is_entry(entry(kind, update=1.0))
    assert not is_entry(entry(kind) | {"kind": [kind]})


@pytest.mark.parametrize(
    "wrong",
    [
        entry("gradient_flow", norms=[[0.1, 0.2, 0.3]]),
        entry("gradient_flow", steps=[0, 1]),
        entry("gradient_flow", saturation=[0.0]),
        entry("text", surprisal=[1.0]),
        entry("text", scale=[1.0]),
        entry("text", activity="AAAA"),
        entry("text", activity="not base64!"),
        entry("confusion", counts=[[1, 0]]),
        entry("confusion", counts=[[1], [0]]),
        entry("forecast", series=[SERIES | {"predicted": []}]),
        entry("forecast", series=[SERIES | {"lower": []}]),
        entry("forecast", series=[{"name": "y"}]),
        entry("values", truth=[]),
        entry("end", notes=[1]),
        [],
        None,
    ],
    ids=repr,
)
def test_fields_that_do_not_fit_together_are_no_entry(wrong):
    assert not is_entry(wrong)


def at(kind, epoch, update):
    return entry(kind, epoch=epoch, update=update)


def test_a_history_has_rising_updates_and_epochs_in_their_order():
    entries = [at("run", 0, 0), at("gradient_flow", 0, 0), at("train", 1, 3), at("epoch", 1, 3), at("sample", 1, 3)]
    entries += [at("train", 2, 5)]
    assert is_history(entries, 5)
    assert not is_history(entries, 4)
    assert not is_history([*entries, at("train", 2, 4)], 5)
    assert not is_history([*entries, at("epoch", 1, 5)], 5)
    assert not is_history([*entries, at("sample", 2, 5)], 5)


def test_a_table_has_losses_only_and_lines_of_json_have_all(tmp_path):
    log = crnn.TrainingLog()
    log.restore([at("run", 0, 0), at("train", 1, 3), at("sample", 0, 3), at("epoch", 1, 3)])
    log.to_csv(tmp_path / "log.csv")
    log.to_jsonl(tmp_path / "log.jsonl")
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["kind", "train", "epoch"]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == log.entries


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_resumed_file_has_the_entries_of_other_kinds_once(tmp_path, suffix):
    path = tmp_path / f"log.{suffix}"
    before = [at("run", 0, 0), at("train", 1, 3), at("epoch", 1, 3), at("sample", 1, 3)]
    for start in ("append", "resume"):
        log = crnn.TrainingLog()
        log.restore(before)
        log.append_to(path, start)
        log.close()
    log = crnn.TrainingLog()
    log.restore(before)
    getattr(log, f"to_{suffix}")(tmp_path / "expected")
    assert path.read_bytes() == (tmp_path / "expected").read_bytes()
