# SPDX-License-Identifier: MIT
"""Read data files from the folder in the environment variable CRNN_DATA. The files are not part of the project."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class NoData(Exception):
    """A data file does not exist."""


def find(*parts: str) -> Path:
    """Path of a file in the folder CRNN_DATA. Raises NoData if it does not exist."""
    wanted, folder = "/".join(parts), os.environ.get("CRNN_DATA")
    if not folder:
        raise NoData(f"needs {wanted}: let the environment variable CRNN_DATA name a folder that holds it")
    path = Path(folder, *parts)
    if not path.is_file():
        raise NoData(f"needs {wanted}, which is not in the folder that CRNN_DATA names, {folder}")
    return path


def read_ts(path: Path) -> tuple[Array, Array]:
    """Series (N, T, 1) and labels (N,) of a file in the UCR archive's .ts form: one variable, equal lengths.

    After `@data` each line is a series, its values parted by commas, then a colon and its label.
    """
    series: list[list[float]] = []
    labels: list[str] = []
    head = True
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if head:
            head = line.lower() != "@data"
            continue
        values, colon, label = line.rpartition(":")
        if not colon or ":" in values:
            raise ValueError(f"{path.name}, line {number}: expected one series and a label after a colon")
        series.append([float(value) for value in values.split(",")])
        labels.append(label)
        if len(series[-1]) != len(series[0]):
            raise ValueError(f"{path.name}, line {number}: expected {len(series[0])} values, got {len(series[-1])}")
    if not series:
        raise ValueError(f"{path.name}: expected series after @data, got none")
    return np.array(series)[:, :, None], np.array(labels)


def read_column(path: Path) -> Array:
    """The numbers in the last column of a CSV file with a line of headings."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    try:
        return np.array([float(row[-1]) for row in rows[1:]])
    except ValueError as error:
        raise ValueError(f"{path.name}: expected numbers in the last column: {error}") from None
