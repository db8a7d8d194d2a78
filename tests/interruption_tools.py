# SPDX-License-Identifier: MIT
"""``crnn train`` in child processes that are interrupted at random instants, resumed, and compared with a whole run."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
from model_tools import text

import crnn
from crnn import cli

SIGNALS = [("SIGINT",), ("SIGINT", "SIGINT"), ("SIGTERM",), ("SIGHUP",), ("SIGTERM", "SIGINT"), ("SIGKILL",)]
STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
TIMEOUT = 120  # seconds after which a process hangs
OPTIONS = [
    "--hidden", "16", "--epochs", "4", "--batch", "4", "--bptt", "16", "--dropout", "0.2", "--lr", "0.02",
    "--checkpoint-updates", "9", "--log", "log.jsonl",
]  # fmt: skip


def start(folder: Path, arguments: list[str]) -> int:
    """Start ``crnn train text.txt`` in a forked child, whose messages go to the file ``err``. Returns its id.

    A fork takes a fraction of the time of a new Python, so more of the instants are in training.
    """
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(folder)
        file = os.open("err", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 2)
        sys.stderr = os.fdopen(2, "w")
        for name in STATUS:
            signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
        status = cli.main(["train", "text.txt", "-o", "m", *OPTIONS, *arguments])
        sys.stderr.flush()
    except KeyboardInterrupt:  # before `main` has begun, or after it has ended
        status = 130
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, repr(error).encode())
        status = 99
    finally:
        os._exit(status)


def wait(child: int) -> int | None:
    """The exit status of a child, minus the signal that ended it; None if it hangs. It is gone afterwards."""
    limit = time.monotonic() + TIMEOUT
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


class Whole:
    """A run without interruption, and an older model of the same text."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "text.txt").write_text(text(4000), newline="")
        started = time.monotonic()
        assert wait(start(folder, [])) == 0, (folder / "err").read_text()
        self.seconds = time.monotonic() - started
        self.model = (folder / "m").read_bytes()
        self.losses = {entry["epoch"]: entry["valid_loss"] for entry in epochs(folder)}
        self.valid = crnn.TextCorpus.from_file(folder / "text.txt").valid
        model = crnn.load(folder / "m")
        model.flat_params[...] *= 0.9
        self.old = model.to_bytes()

    def loss(self, path: Path) -> float:
        """The validation loss of a model in a file, as training computes it."""
        loss: float = crnn.load(path).evaluate(self.valid, batch_size=4).nats
        return loss


def epochs(folder: Path) -> list[dict]:
    """The entries of the epochs in the log."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry for entry in entries if entry["kind"] == "epoch"]


def trial(whole: Whole, folder: Path, rng: np.random.Generator, times: int = 1) -> list[str]:
    """Interrupt a run so many times, and resume it to its end. Returns what went wrong."""
    folder.mkdir()
    (folder / "text.txt").write_text(text(4000), newline="")
    old = bool(rng.integers(2))
    if old:
        (folder / "m").write_bytes(whole.old)
    faults: list[str] = []
    for _ in range(times):
        faults += interrupted(whole, folder, rng, old=old)
        if faults:
            return faults
    status = wait(start(folder, ["--threads", "1", *how(folder, old=old)]))
    if status != 0:
        return [f"resumed: status {status}: {(folder / 'err').read_text()[-500:]}"]
    if (folder / "m").read_bytes() != whole.model:
        faults.append("the resumed run has other bits than the whole one")
    if {entry["epoch"]: entry["valid_loss"] for entry in epochs(folder)} != whole.losses:
        faults.append(f"the log has other epochs: {epochs(folder)}")
    if len(epochs(folder)) != len(whole.losses):
        faults.append("the log has epochs twice")
    shutil.rmtree(folder)
    return faults


def how(folder: Path, *, old: bool) -> list[str]:
    """The flag with which a run is started again, or for the first time."""
    if (folder / "m.checkpoint").exists():
        return ["--resume"]
    return ["--restart"] if old else []


def interrupted(whole: Whole, folder: Path, rng: np.random.Generator, *, old: bool) -> list[str]:
    """Start a run, interrupt it at a random instant, and look at what it leaves. Returns what went wrong."""
    signals = SIGNALS[rng.integers(len(SIGNALS))]
    threads = str(rng.integers(1, 3))
    begin = how(folder, old=old)
    child = start(folder, ["--threads", threads, *begin])
    time.sleep(rng.uniform(0.01, 1.1 * whole.seconds))
    for number, name in enumerate(signals):
        if number:
            time.sleep(rng.uniform(0, 0.03))
        os.kill(child, getattr(signal, name))  # a child that has ended is not waited for yet, so it exists
    status = wait(child)
    said = (folder / "err").read_text() if (folder / "err").exists() else ""
    what = f"{'+'.join(signals)}, {threads} threads, {begin}: status {status}"
    expected = {0, *(-getattr(signal, name) for name in signals), *(STATUS.get(name, 0) for name in signals)}
    if status is None:
        return [f"{what}: hung: {said[-300:]}"]
    if status not in expected or "Traceback" in said:
        return [f"{what}: {said[-1000:]}"]
    return [f"{what}: {fault}" for fault in lost(whole, folder, old=old, saved="interrupted:" in said)]


def lost(whole: Whole, folder: Path, *, old: bool, saved: bool) -> list[str]:
    """What is missing or damaged after an interruption. ``saved``: the run could save everything at its end."""
    output, checkpoint = folder / "m", folder / "m.checkpoint"
    if checkpoint.exists():
        crnn.load(checkpoint)
    if output.exists() and output.read_bytes() == whole.old:
        return ["the old model is still there, although a better one was judged"] if saved and epochs(folder) else []
    if old and not output.exists():
        return ["the old model is gone"]
    if output.exists() and not checkpoint.exists():
        return ["a model without its checkpoint"]
    if saved and epochs(folder):
        best = min(entry["valid_loss"] for entry in epochs(folder))
        if not output.exists() or whole.loss(output) != best or whole.loss(checkpoint) != best:
            return ["the best model is lost"]
    return []
