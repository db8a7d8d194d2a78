# SPDX-License-Identifier: MIT
"""Real data, from the folder that the environment variable CRNN_DATA names. None of it is in this repository."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

HELP = (
    "set CRNN_DATA to a folder with airline.csv (columns Date, Passengers), GunPoint/ and ItalyPowerDemand/ "
    "(each with its _TRAIN.ts and _TEST.ts, from timeseriesclassification.com)"
)


class NoData(Exception):
    """A file is not there; the message says what to do."""


def find(name: str) -> Path:
    """A file of the data folder."""
    folder = os.environ.get("CRNN_DATA")
    if not folder:
        raise NoData(f"{name}: needs real data: {HELP}")
    path = Path(folder, name)
    if not path.is_file():
        raise NoData(f"{path}: not there: {HELP}")
    return path


def read_ts(path: Path) -> tuple[Array, Array]:
    """Univariate series of one length and their labels: X (N, T, 1), y (N,) of strings. The .ts format of sktime."""
    rows, labels, within = [], [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            within = within or line.lower() == "@data"
        elif not within or line.count(":") != 1:
            raise ValueError(
                f"{path}, line {number}: expected values, a colon and a label behind @data, got {line:.40}"
            )
        else:
            values, label = line.split(":")
            rows.append([float(value) for value in values.split(",")])
            labels.append(label.strip())
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path}: expected series of one length, got {len(rows)} of several")
    return np.array(rows)[:, :, None], np.array(labels)


def archive(name: str) -> tuple[Array, Array, Array, Array]:
    """X_train, y_train, X_test, y_test of a data set of the UCR archive."""
    train, test = (read_ts(find(f"{name}/{name}_{part}.ts")) for part in ("TRAIN", "TEST"))
    return *train, *test


def passengers() -> Array:
    """Monthly airline passengers in thousands, 1949 to 1960: (144,). Box, Jenkins 1970, series G."""
    with find("airline.csv").open(encoding="utf-8", newline="") as file:
        return np.array([float(row["Passengers"]) for row in csv.DictReader(file)])
