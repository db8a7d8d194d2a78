# SPDX-License-Identifier: MIT
"""The fuzz targets of tests/fuzz: a few inputs of each, that they find what is broken, and that the corpus loads."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz import mutate, targets
from fuzz.make_corpus import models, quantised
from kernel_tools import assert_same_bits

import crnn
from crnn.io import model_file, registry
from crnn.nn.precision import PRECISIONS

pytestmark = pytest.mark.thread_unsafe  # warnings are errors in the targets, files at the same path

ORIGINALS = models()
EXPECTED = ORIGINALS | quantised(ORIGINALS)
FILES = sorted(targets.CORPUS.glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_an_earlier_version_still_loads(path):
    """The corpus is committed, and made again only when the format is."""
    model = crnn.load(path)
    assert type(model) is type(EXPECTED[path.stem])
    assert model.config() == EXPECTED[path.stem].config()
    header, tensors = file_parts(path)
    for name, values in model.params.items():
        if tensors[name].dtype == values.dtype:
            assert_same_bits(values, tensors[name])
        assert values.any() if model.config()["precision"] else values.all(), "a corpus of zeros hides faults"
    assert len(path.read_bytes()) < 10_000
    assert "sha256" in header


def file_parts(path):
    tensors, header = model_file.read(path)
    return header, tensors


def test_the_corpus_has_every_kind_of_model():
    kinds = {type(crnn.load(path)).__name__ for path in FILES}
    assert kinds == set(registry.kinds("crnn"))
    assert {path.stem for path in FILES} == set(EXPECTED)


def test_the_corpus_has_weights_in_every_precision():
    kinds = set()
    for path in FILES:
        precision = crnn.load(path).config().get("precision")
        kinds |= set(precision.values()) if isinstance(precision, dict) else {precision}
    assert kinds == {None, *PRECISIONS}


@pytest.mark.parametrize("target", targets.TARGETS)
def test_mutated_files_are_refused_or_whole(tmp_path, target):
    corpus, check = targets.TARGETS[target](tmp_path)
    outcomes = set()
    for number in range({"checkpoints": 60, "archives": 200}.get(target, 400)):
        name, content, other, rng = targets.inputs(corpus, 1, number)
        outcomes.add(check(*fed(rng, content, other, name)))
    assert targets.REFUSED in outcomes
    assert len(outcomes) > 1, "nothing but refusals: the mutations break the syntax only"
    for name, content in corpus.items():
        assert check(content, name, mutate.KEPT) == (
            targets.OTHER if target in ("torch", "audio") else targets.SAME
        )


def fed(rng, content, other, name):
    changed, digest = mutate.mutate(rng, content, other)
    return changed, name, digest


def test_the_mutations_reach_all_parts_of_a_file():
    content = FILES[0].read_bytes()
    original = mutate.File(content)
    changed = {"outer": 0, "inner": 0, "data": 0, "syntax": 0}
    for number in range(300):
        mutated, _ = mutate.mutate(random.Random(number), content, FILES[1].read_bytes())
        try:
            file = mutate.File(mutated)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            changed["syntax"] += 1
            continue
        changed["outer"] += file.entries != original.entries
        changed["inner"] += json.dumps(file.inner) != json.dumps(original.inner)
        changed["data"] += file.data != original.data
    assert min(changed.values()) > 30, changed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_digest_of_mutated_files_is_that_of_crnn(path):
    file = mutate.File(path.read_bytes())
    assert file.inner.pop("sha256") == file.sha256()


@pytest.mark.parametrize("digest", [mutate.REMOVED, mutate.RENEWED])
def test_a_changed_file_with_a_right_digest_or_none_is_loaded(digest):
    """So the mutations get past the digest."""
    file = mutate.File(FILES[0].read_bytes())
    file.inner["config"]["dropout"] = 0.25
    with pytest.raises(crnn.ModelFileError, match="digest"):
        crnn.models.files.from_bytes(file.to_bytes(mutate.KEPT))
    assert crnn.models.files.from_bytes(file.to_bytes(digest)).config()["dropout"] == 0.25


def test_a_fault_is_found(tmp_path, monkeypatch):
    """With the check of finite numbers and the digest taken away."""
    monkeypatch.setattr(model_file, "check_finite", lambda tensors: None)
    monkeypatch.setattr(model_file, "check_digest", lambda name, header, digest: None)
    corpus, check = targets.TARGETS["models"](tmp_path)

    def feed():
        for number in range(2000):
            name, content, other, rng = targets.inputs(corpus, 1, number)
            check(*fed(rng, content, other, name))

    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        feed()


def test_the_command_reports_what_it_did(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "models", "--inputs", "50", "--seed", "1"]
    root = Path(__file__).parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "models: 50 inputs in " in result.stdout


# ---- what was found --------------------------------------------------------------------------------------------------

FOUND = {
    "a checkpoint without an output": (lambda header: header.pop("output"), targets.SAME),
    "a vocabulary without tokens": (lambda header: header["model"]["vocab"].update(tokens=None), targets.REFUSED),
    "an optimizer with a long name": (lambda header: header["optimizer"].update(rule="x" * 10_000), targets.REFUSED),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_was_found_in_checkpoints_is_not_there_any_more(tmp_path, case):
    change, outcome = FOUND[case]
    corpus, check = targets.TARGETS["checkpoints"](tmp_path)
    file = mutate.File(corpus["text"])
    change(file.inner)
    assert check(file.to_bytes(mutate.REMOVED), "text", mutate.REMOVED) == outcome
