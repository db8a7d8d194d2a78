# SPDX-License-Identifier: MIT
"""`python -m benchmarks.logs`: find labelled anomalies in a log that changes, with a model that is fixed or learns.

The log is drawn here: services of some hosts write lines of several templates, whose fields vary, and one line in a
hundred is an anomaly: a template that is never used otherwise, an unusual value of a field, two lines mixed up, or a
line that breaks off. In the middle it drifts: hosts have other names, the date is another one, one more template
becomes frequent. A model learns the beginning, anomalies included. The area under the ROC curve of the scores is
measured before the drift and after it, of the model as it is, of one that is trained again after the drift, and of
`crnn score --learn`; then the lines per second of `crnn score`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import crnn

ANOMALIES = 0.01  # of all lines

# What the services write, by how often. {..} is a field of `Log.field`.
TEMPLATES = [
    (30, "nginx[{pid}]: {ip} GET /{page} {ok} {size}"),
    (12, "nginx[{pid}]: {ip} POST /api/v2/{page} {ok} {size}"),
    (14, "app[{pid}]: request {id} took {ms} ms"),
    (10, "app[{pid}]: user {user} logged in from {ip}"),
    (5, "app[{pid}]: cache miss for key {page}:{id}"),
    (8, "sshd[{pid}]: Accepted publickey for {user} from {ip} port {port}"),
    (5, "sshd[{pid}]: session closed for user {user}"),
    (8, "db[{pid}]: checkpoint complete: wrote {size} buffers in {ms} ms"),
    (5, "cron[{pid}]: ({user}) CMD (/usr/local/bin/{job} --quiet)"),
    (3, "kernel: eth0: link up, 1000 Mbps, full duplex"),
]
NEW_TEMPLATE = (15, "proxy[{pid}]: upstream {ip}:{port} healthy, latency {ms} ms")
UNKNOWN = [
    "kernel: Out of memory: Killed process {pid} ({job})",
    "sshd[{pid}]: error: maximum authentication attempts exceeded for root",
    "db[{pid}]: PANIC: could not locate a valid checkpoint record",
    "app[{pid}]: Traceback: ZeroDivisionError in /{page}",
    "kernel: EXT4-fs error (device sda1): deleted inode referenced: {id}",
]
PAGES = ["index", "login", "search", "items", "cart", "users", "status", "images/logo.png", "help"]
USERS = ["alice", "bob", "carol", "deploy", "git", "backup", "postgres"]
JOBS = ["rotate", "backup", "cleanup", "report", "sync-mail"]
HOSTS = ["web01", "web02", "db01", "mail"], ["fra-node-a", "fra-node-b", "fra-node-c", "fra-store"]
DATES = "Mar 14", "Apr 02"


@dataclass
class Log:
    """A log with a drift. Lines are drawn by `lines`; the clock continues from one call to the next."""

    seed: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._seconds = 0.0

    def lines(self, count: int, *, drifted: bool) -> tuple[list[str], NDArray[np.bool_]]:
        """So many lines with their ends, and which are anomalies."""
        weights, texts = zip(*(TEMPLATES + [NEW_TEMPLATE] * drifted), strict=True)
        shares = np.array(weights) / sum(weights)
        labels = self._rng.random(count) < ANOMALIES
        drawn = self._rng.choice(len(texts), size=count, p=shares)
        found = []
        for template, anomalous in zip(drawn.tolist(), labels.tolist(), strict=True):
            text = self._filled(texts[template])
            if anomalous:
                text = self._anomaly(text, [self._filled(texts[i]) for i in self._rng.choice(len(texts), 2)])
            found.append(f"{self._begin(drifted)} {text}\n")
        return found, labels

    def _begin(self, drifted: bool) -> str:
        self._seconds += float(self._rng.exponential(0.5))
        clock = int(self._seconds) % 86_400
        host = self._one(HOSTS[drifted])
        return f"{DATES[drifted]} {clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02} {host}"

    def _anomaly(self, text: str, others: Sequence[str]) -> str:
        kind = self._rng.integers(4)
        if kind == 0:
            return self._filled(self._one(UNKNOWN))
        if kind == 1:  # an unusual value in place of the last word
            head, _, last = text.rpartition(" ")
            return f"{head} {self._one(['-1', 'NaN', '../../etc/passwd', '0x' + last, last * 4])}"
        if kind == 2:
            first, second = others
            return first[: len(first) // 2] + second[len(second) // 3 :]
        return text[: max(8, int(len(text) * self._rng.uniform(0.3, 0.7)))] + "\x00\x00"

    def _filled(self, template: str) -> str:
        text = template
        while "{" in text:
            name = text[text.index("{") + 1 : text.index("}")]
            text = text.replace(f"{{{name}}}", self.field(name), 1)
        return text

    def field(self, name: str) -> str:
        """A value of a field of the templates."""

        def number(low: int, high: int) -> str:
            return str(self._rng.integers(low, high))

        values: dict[str, Callable[[], str]] = {
            "pid": lambda: number(300, 4000),
            "ip": lambda: f"10.0.{number(0, 4)}.{number(1, 255)}",
            "page": lambda: self._one(PAGES),
            "ok": lambda: self._one(["200", "200", "200", "200", "304", "404"]),
            "size": lambda: number(100, 60_000),
            "ms": lambda: number(1, 900),
            "id": lambda: f"{self._rng.integers(1 << 32):08x}",
            "user": lambda: self._one(USERS),
            "port": lambda: number(1024, 65_536),
            "job": lambda: self._one(JOBS),
        }
        return values[name]()

    def _one(self, values: Sequence[str]) -> str:
        return values[int(self._rng.integers(len(values)))]


def area_under_roc(scores: Sequence[float], labels: NDArray[np.bool_]) -> float:
    """The probability that an anomaly has a higher score than another line; ties count half."""
    _, inverse, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def trained(lines: Sequence[str], seed: int) -> crnn.LanguageModel:
    """A model of characters that has learnt these lines."""
    corpus = crnn.TextCorpus.from_text("".join(lines), valid=0.02, test=0.0, unknown=True)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=64, seed=seed)
    return model.fit(corpus, epochs=4, batch_size=32, bptt=64, lr=1e-2, schedule="cosine", progress=False)


def scored(model: Path, lines: Sequence[str], *flags: str) -> tuple[list[float], float]:
    """The scores of lines by ``crnn score``, and lines per second, without the start of the program."""
    command = [sys.executable, "-m", "crnn", "score", str(model), *flags]
    start = time.perf_counter()
    subprocess.run(command, input=b"", capture_output=True, check=True)
    empty = time.perf_counter() - start
    start = time.perf_counter()
    done = subprocess.run(command, input="".join(lines).encode(), capture_output=True, check=True)
    seconds = time.perf_counter() - start - empty
    return [float(line.split(b"\t")[0]) for line in done.stdout.split(b"\n")[:-1]], len(lines) / seconds


def main(arguments: list[str] | None = None) -> int:
    """Draw a log, and print how well each model finds its anomalies. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logs", description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000, help="lines to train on, before the drift and after it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the lines and the labels there")
    options = parser.parse_args(arguments)
    log, count = Log(options.seed), options.lines
    parts = {
        name: log.lines(number, drifted=drifted)
        for name, number, drifted in (
            ("training", count, False),
            ("before", count // 2, False),
            ("drift", count, True),
            ("after", count // 2, True),
        )
    }
    lines = {name: part[0] for name, part in parts.items()}
    labels = {name: part[1] for name, part in parts.items()}
    if options.keep is not None:
        for name, part in lines.items():
            (options.keep / f"{name}.log").write_text("".join(part), encoding="utf-8")
            np.savetxt(options.keep / f"{name}.labels", labels[name], fmt="%d")
    with tempfile.TemporaryDirectory() as folder:
        first, again = Path(folder, "first"), Path(folder, "again")
        trained(lines["training"], options.seed).save(first)
        trained(lines["drift"], options.seed).save(again)
        everything = [*lines["before"], *lines["drift"], *lines["after"]]
        static, speed = scored(first, everything)
        learning, learning_speed = scored(first, everything, "--learn")
        retrained, _ = scored(again, lines["after"])
    stop = len(lines["before"])
    begin = stop + len(lines["drift"])
    rows = [
        ("before the drift", static[:stop], learning[:stop], None, labels["before"]),
        ("the lines after it", static[stop:begin], learning[stop:begin], None, labels["drift"]),
        ("the lines after these", static[begin:], learning[begin:], retrained, labels["after"]),
    ]
    print(f"{'area under ROC':24}{'static':>10}{'--learn':>10}{'retrained':>12}")
    for name, fixed, learnt, new, truth in rows:
        shown = "" if new is None else f"{area_under_roc(new, truth):12.3f}"
        print(f"{name:24}{area_under_roc(fixed, truth):10.3f}{area_under_roc(learnt, truth):10.3f}{shown}")
    print(f"{'lines per second':24}{speed:10,.0f}{learning_speed:10,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
