# SPDX-License-Identifier: MIT
"""LogFile: the entries of a log in a file that grows as they are made, as CSV or as JSON lines."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from crnn.io.atomic_write import PathLike
from crnn.training.entries import KINDS, LONGEST_LINE, TABLE_COLUMNS, Entry, is_entry

__all__ = ["LogFile", "check_log", "header_of", "line_of", "read_runs"]

Start = Literal["append", "resume", "replace"]


def header_of(*, as_csv: bool) -> str:
    """The first line of a file: the names of the columns of a table, nothing for JSON lines."""
    return ",".join(TABLE_COLUMNS) + "\r\n" if as_csv else ""


def line_of(entry: Entry, *, as_csv: bool) -> str:
    """The line of one entry: a row of a table, in which fields that it does not have are empty, or a JSON object.

    Empty if the entry is of a kind that a table does not have.
    """
    if not as_csv:
        return json.dumps(entry) + "\n"
    if not KINDS[entry["kind"]].in_table:
        return ""
    row = io.StringIO(newline="")
    csv.DictWriter(row, TABLE_COLUMNS).writerow(entry)
    return row.getvalue()


class LogFile:
    """A table if the name of the file ends in .csv, otherwise one JSON object per line.

    Every line is written immediately, so that other programs can follow, and so that a killed run loses none.

    Parameters
    ----------
    path : path
    entries : list of dict
        The entries so far, restored from a checkpoint.
    start : {"append", "resume", "replace"}
        What to do with an existing file. It must be a log, otherwise ValueError is raised and it is unchanged.
        append: keep its lines. resume: keep its lines up to the last of ``entries``; later ones are of updates that
        will be repeated. replace: discard its lines.
    """

    def __init__(self, path: PathLike, entries: Sequence[Entry] = (), start: Start = "append") -> None:
        self._path = os.path.abspath(os.fsdecode(path))
        self._as_csv = _is_table(path)
        header = header_of(as_csv=self._as_csv)
        restored = list(filter(None, (line_of(entry, as_csv=self._as_csv) for entry in entries)))
        existing = check_log(path)
        kept, missing = _kept(existing, restored, start)
        self._file = _opened(path, "r+b" if existing else "ab")
        self._written = len(entries)  # how many entries are in the file; -1: not even the header
        if existing:
            self._file.truncate(sum(map(len, kept)))
            self._file.seek(0, os.SEEK_END)
        if not kept:
            self._write([header])
        self._write(missing)

    def _write(self, lines: Iterable[str]) -> None:
        """Append lines, all or none of them. Raises OSError."""
        content = memoryview("".join(lines).encode())
        end = self._file.seek(0, os.SEEK_END)
        try:
            while content:  # an unbuffered file may write a part
                content = content[self._file.write(content) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise OSError(error.errno, error.strerror, self._path) from None

    def add(self, entries: Sequence[Entry]) -> None:
        """Append the entries that are not in the file yet, of all entries of the log.

        If the file has been removed, a new one gets all entries. After OSError the next call continues.
        """
        if not os.fstat(self._file.fileno()).st_nlink:
            file = _opened(self._path, "ab")
            self._file.close()
            self._file, self._written = file, -1
        while self._written < len(entries):
            number, as_csv = self._written, self._as_csv
            self._write([header_of(as_csv=as_csv) if number < 0 else line_of(entries[number], as_csv=as_csv)])
            self._written += 1

    def close(self) -> None:
        """Close the file. More than once is fine."""
        self._file.close()


def _opened(path: PathLike, mode: Literal["r+b", "ab"]) -> io.FileIO:
    """The file, unbuffered, so that what is written is in it when the process ends."""
    return open(path, mode, buffering=0)


def check_log(path: PathLike) -> list[bytes]:
    """The lines of an existing file, none if there is none. Raises ValueError unless it is a log, or empty."""
    lines = _lines_of(path)
    if not _is_log(lines, header_of(as_csv=_is_table(path))):
        raise ValueError(f"log_file: expected a new file, or the log of a training, got {os.fsdecode(path)}")
    return lines


def _is_table(path: PathLike) -> bool:
    return os.fsdecode(path).lower().endswith(".csv")


def _lines_of(path: PathLike) -> list[bytes]:
    """The lines of a file with their ends; none if it does not exist."""
    try:
        with open(path, "rb") as file:
            return file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _is_log(lines: list[bytes], header: str) -> bool:
    """Whether a file is empty, or starts as a log with this header does."""
    if not lines or header:
        return not lines or lines[0].strip() == header.strip().encode()
    try:
        entry = json.loads(lines[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and entry.get("kind") in KINDS


def _kept(existing: list[bytes], restored: list[str], start: Start) -> tuple[list[bytes], list[str]]:
    """The lines of an existing file to keep, and the lines to write after them."""
    if start == "replace":
        return [], restored
    if start == "append" or not restored:
        complete = [line for line in existing if line.endswith(b"\n")]  # a full disk may have cut off the last
        return complete, restored
    lines = [line.encode() for line in restored]
    ends = [number + 1 for number in range(len(existing) - 1, -1, -1) if existing[number] == lines[-1]]
    # The last line may be there twice: what a model did after an epoch, it does when training is interrupted then.
    whole = [end for end in ends if existing[max(end - len(lines), 0) : end] == lines]
    if ends:
        return existing[: (whole or ends)[0]], []
    complete = [line for line in existing if line.endswith(b"\n")]
    # The disk may have been full from some line on.
    begun = max((number for number, line in enumerate(complete) if line == lines[0]), default=len(complete))
    known = len(complete) - begun
    return complete, restored[known:] if complete[begun:] == lines[:known] else restored


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_runs(path: PathLike) -> list[list[Entry]]:
    """The entries in a log's file, by run. A line at the end that was cut off is left out.

    Raises ValueError if the file is not a log, naming the first line that is wrong, and OSError.
    """
    name = os.fsdecode(path)
    with open(path, "rb") as file:
        content = file.read()
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    if _is_table(path) and lines and lines.pop(0).strip() != header_of(as_csv=True).strip().encode():
        raise ValueError(f"{name}: expected the log of a training, whose first line names its columns")
    first, entry_of = (2, _entry_of_row) if _is_table(path) else (1, _entry_of_json)
    runs: list[list[Entry]] = []
    for number, line in enumerate(lines, first):
        entry = entry_of(line)
        if not is_entry(entry):
            raise ValueError(f"{name}: expected the log of a training, got in line {number}: {line[:80]!r}")
        if not runs or _begins_run(entry, runs[-1]):
            runs.append([])
        runs[-1].append(entry)
    return runs


def _begins_run(entry: Entry, entries: list[Entry]) -> bool:
    """Whether an entry is the first of another run than those before it in a file."""
    last = entries[-1]
    epochs = last["epoch"] - (last["kind"] == "train")  # finished ones
    expected = epochs + 1 if entry["kind"] in ("train", "epoch") else epochs
    begins = entry["kind"] == "run" and not entry["update"]
    fewest = last["update"] + (entry["kind"] == "train")  # such an entry is of at least one update more
    return begins or entry["epoch"] != expected or entry["update"] < fewest


def _entry_of_json(line: bytes) -> Any:
    """The entry in a line of JSON, None if there is none or the line is longer than those of any log."""
    try:
        entry = json.loads(line) if len(line) <= LONGEST_LINE else None
    except (ValueError, RecursionError):
        return None
    # All entries share the names of their fields: a long log takes less than half of the memory.
    return {sys.intern(name): value for name, value in entry.items()} if isinstance(entry, dict) else entry


def _entry_of_row(line: bytes) -> Any:
    """The entry in a row of a table, None if there is none."""
    try:
        row = next(csv.reader([line.decode()]))
        fields = {name: value for name, value in zip(TABLE_COLUMNS, row, strict=True) if value}
        return {name: value if name == "kind" else _number(value) for name, value in fields.items()}
    except ValueError:
        return None


def _number(text: str) -> float:
    return int(text) if text.isascii() and text.isdigit() else float(text)
