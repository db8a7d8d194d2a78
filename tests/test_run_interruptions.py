# SPDX-License-Identifier: MIT
"""Training that is interrupted at random instants loses nothing. ``tests/soak.py --interruptions`` tries many more."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from interruption_tools import Whole, trial
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
import crnn.training
from crnn.training.interrupts import Interrupted

pytestmark = pytest.mark.thread_unsafe  # signals are the process's

# ---- at every line ---------------------------------------------------------------------------------------------------

FOLDERS = tuple(str(Path(crnn.__file__).parent / name) for name in ("training", "io"))
IDS = np.random.default_rng(8).integers(12, size=60)


def fitted(folder, **options):
    """A model, its log, and the weights that were judged with their losses."""
    model, log, judged = language_model(), crnn.TrainingLog(), []
    evaluate = model.evaluate

    def watched(*args, **kwargs):
        result = evaluate(*args, **kwargs)
        judged.append((result.loss, model.flat_params.copy()))
        return result

    model.evaluate = watched
    ended = None
    try:
        crnn.fit(
            model, IDS, valid=IDS[:20], epochs=3, batch_size=3, bptt=5, optimizer=crnn.optim.SGD(0.3), log_every=2,
            checkpoint=folder / "c", checkpoint_updates=2, log_file=folder / "log", log=log, **options,
        )  # fmt: skip
    except Interrupted as interrupt:
        ended = interrupt
    return model, log, judged, ended


def interrupt_at(lines):
    """Send a signal when these many lines of training or of writing files have been run. Returns the count."""
    count = [0]

    def trace(frame, event, arg):
        if not frame.f_code.co_filename.startswith(FOLDERS):
            return None
        if event == "line" and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # else it ends this process
            count[0] += 1
            if count[0] in lines:
                signal.raise_signal(signal.SIGTERM)
        return trace

    sys.settrace(trace)
    return count


def lines_in_all(folder):
    before = sys.gettrace()
    count = interrupt_at(())
    try:
        whole = fitted(folder)
    finally:
        sys.settrace(before)
    return count[0], whole


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an iterator that was given up
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("signals", [1, 2, 3])
def test_a_signal_at_any_line_loses_nothing(tmp_path, part, signals):
    """The second one raises at the very line, wherever that is."""
    (tmp_path / "whole").mkdir()
    total, (whole, whole_log, _, _) = lines_in_all(tmp_path / "whole")
    before = sys.gettrace()
    for number, first in enumerate(np.random.default_rng([part, signals]).integers(1, total, 8).tolist()):
        folder = tmp_path / str(number)
        folder.mkdir()
        gap = 1 + number % 3
        interrupt_at({first + gap * each for each in range(signals)})
        try:
            model, log, judged, ended = fitted(folder)
        except KeyboardInterrupt:
            pytest.fail("a KeyboardInterrupt that is not of training")
        finally:
            sys.settrace(before)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if judged and ended:
            best = [min(judged[:n], key=lambda each: each[0])[1] for n in (len(judged), len(judged) - 1) if n]
            assert any(model.flat_params.tobytes() == weights.tobytes() for weights in best), (first, gap)
        assert [json.loads(line) for line in (folder / "log").read_text().splitlines()] == log.entries
        resume = (folder / "c").exists()
        again, log, _, _ = fitted(folder, resume=resume, restart=not resume)
        assert_same_bits(again.flat_params, whole.flat_params)
        assert log.column("valid_loss", "epoch") == whole_log.column("valid_loss", "epoch")
        assert [json.loads(line) for line in (folder / "log").read_text().splitlines()] == log.entries
        assert sorted(os.listdir(folder)) == ["c", "log"]


# ---- at random instants ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Whole(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork, and no such signals")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("seed", range(10))
def test_an_interrupted_run_loses_no_model_and_ends_with_the_bits_of_a_whole_one(tmp_path, whole, seed):
    assert trial(whole, tmp_path / "run", np.random.default_rng([7, seed]), times=2) == []
