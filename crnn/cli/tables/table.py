# SPDX-License-Identifier: MIT
"""Table: the rows of a CSV file with their line numbers. What is not stated, delimiter and header, is found.

Files may be compressed, pipes or standard input, as texts may. A file is read twice: its first lines to find how it is
written, then all of it, so that rows need not be in memory together.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from crnn.cli.common import STANDARD, standard_input
from crnn.cli.corpus import add_encoding_flag
from crnn.text.reading import check_encoding, file_document
from crnn.text.sources import Source, open_sources

__all__ = ["Row", "Table", "TableError", "add_table_flags", "as_number", "reading_of"]

LOOKED_AT = 50  # lines from which delimiter and header are found
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", " ": "space"}
NAMED = {name: delimiter for delimiter, name in DELIMITERS.items()}
# Names of columns that are taken for what they say, in any case of letters; they tell that a first row is a header.
LABELS = ("label", "class", "target")
IDS = ("id",)
TIMES = ("time", "timestamp")
TEXTS = ("text", "token", "word")
TELLING = {*LABELS, *IDS, *TIMES, *TEXTS}
DECIMALS = (".", ",")
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods, and .xls, begin
WITH_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
LONGEST_CELL = 1 << 30  # characters; 131,072 of the csv module are too few for texts


class TableError(ValueError):
    """A table is not what is needed; the message says where."""


class Row(NamedTuple):
    """The cells of a row, and the number of the line that it ends in, from 1."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Reading:
    """How a table is to be read; None: as it is found to be written."""

    encoding: str
    delimiter: str | None
    header: bool | None
    decimal: str


def _delimiter(text: str) -> str:
    """The value of ``--delimiter``."""
    found = NAMED.get(text, "\t" if text == "\\t" else text)
    if len(found) != 1 or found in '"\r\n':
        raise argparse.ArgumentTypeError(f"expected one character, or {', '.join(NAMED)}, got {text!r}")
    return found


def add_table_flags(parser: argparse._ActionsContainer, encoding: str, *, trained: bool = False) -> None:
    """Add the flags that say how a table is written; ``encoding`` is the default one, for the help.

    ``trained``: for a model that exists, whose training tells what is not given.
    """
    found = "as in training, or found" if trained else "found"
    parser.add_argument(
        "--delimiter",
        type=_delimiter,
        help=f"what is between two cells: a character, or {', '.join(NAMED)}; {found} if not given",
    )
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help=f"whether the first row has the names of the columns; {found} if not given",
    )
    parser.add_argument(
        "--decimal",
        choices=list(DECIMALS),
        default=None if trained else DECIMALS[0],
        help="mark between a number and its fraction" + "; that of the training if not given" * trained,
    )
    add_encoding_flag(parser, encoding)


def reading_of(arguments: argparse.Namespace, saved: Mapping[str, Any] | None = None) -> Reading:
    """The values of the flags that `add_table_flags` added; of those that were not given the ``saved`` ones."""
    known = saved or {}
    encoding, delimiter, header, decimal = (known.get(name) for name in ("encoding", "delimiter", "header", "decimal"))
    if arguments.encoding is not None or not isinstance(encoding, str):
        encoding = arguments.encoding
    if arguments.delimiter is not None or not (isinstance(delimiter, str) and len(delimiter) == 1):
        delimiter = arguments.delimiter
    if arguments.header is not None or not isinstance(header, bool):
        header = arguments.header
    if arguments.decimal is not None or decimal not in DECIMALS:
        decimal = arguments.decimal or DECIMALS[0]
    return Reading(check_encoding(encoding or "utf-8-sig"), delimiter, header, decimal)


def as_number(cell: str, decimal: str = ".") -> float | None:
    """A number, NaN and infinity included; None if a cell is none, such as 1_2, which Python reads as 12."""
    if "_" in cell:
        return None
    try:
        return float(cell if decimal == "." else cell.replace(".", "?").replace(decimal, "."))
    except ValueError:
        return None


class Table:
    """A CSV file. A context manager, which closes it.

    Attributes
    ----------
    name : str
        For messages.
    delimiter : str
    has_header : bool
    columns : list of str
        Their names; "1", "2", ... without a header.
    first_rows : list of lists of str
        The cells of some rows below the header.
    decimal : str
    """

    name: str
    delimiter: str
    has_header: bool
    columns: list[str]
    first_rows: list[list[str]]
    decimal: str

    def __init__(self, path: Path, reading: Reading, known_columns: frozenset[str] = frozenset()) -> None:
        """``known_columns``: names that were given, which tell that a first row of them is a header."""
        self._stack = ExitStack()
        self._encoding, self.decimal = reading.encoding, reading.decimal
        if path.is_dir():
            raise TableError(f"{path}: expected a table, got a folder")
        if _is_workbook(path):
            raise TableError(f"{path}: expected CSV, got a workbook, or another archive; save its sheet as CSV")
        file = standard_input() if path == STANDARD else str(path)
        self._source: Source = open_sources([file], self._stack)[0]
        self.name = self._source.name
        lines = list(islice((line for line in self._lines() if line.strip()), LOOKED_AT))
        if not lines:
            raise TableError(f"{self.name}: expected a table, got an empty file")
        stated = re.fullmatch(r'sep=([^"])', lines[0].rstrip("\r\n"))  # what Excel writes and reads, no row
        self._skipped = 1 if stated else 0
        lines = lines[self._skipped :]
        self.delimiter = reading.delimiter or (stated[1] if stated else self._found_delimiter(lines))
        with self._csv_errors():
            rows = self._sample(lines, self.delimiter)
        if not rows:
            raise TableError(f"{self.name}: expected a table, got no cells")
        self.has_header = self._found_header(rows, known_columns) if reading.header is None else reading.header
        self.first_rows = rows[self.has_header :]
        sizes = set(map(len, rows))
        self.columns = [" ".join(cell.split()) for cell in rows[0]] if self.has_header else []
        if not self.has_header:
            self.columns = [str(number) for number in range(1, max(sizes) + 1)]
        self._check_names()

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- how it is written ----------------------------------------------------------------------------------------

    def _found_delimiter(self, lines: list[str]) -> str:
        """The only delimiter that gives every line the same number of cells, or more than one cell."""
        tabs_only = self.name.lower().endswith((".tsv", ".tab"))
        even: list[str] = []  # with as many cells in every line
        some: list[str] = []  # with several
        for delimiter in ["\t"] if tabs_only else [each for each in (",", ";", "\t") if each != self.decimal]:
            try:
                counts = set(map(len, self._sample(lines, delimiter)))
            except csv.Error:
                continue
            if min(counts, default=1) > 1:
                (even if len(counts) == 1 else some).append(delimiter)
        found = even or some
        if len(found) > 1:
            names = " and ".join(DELIMITERS[each] for each in found)
            raise TableError(f"{self.name}: expected --delimiter, because {names} are both possible")
        if found:
            return found[0]
        numbers = all(as_number(cell, self.decimal) is not None for cell in lines[-1].split())
        spaced: bool = numbers and len(lines[-1].split()) > 1
        return " " if spaced else ","

    def _sample(self, lines: list[str], delimiter: str) -> list[list[str]]:
        """The cells of the first lines. Raises csv.Error if they are not CSV of this delimiter."""
        rows: list[list[str]] = []
        try:
            for _, cells in self._cells(iter(lines), delimiter):
                rows.append(cells)  # those before an error are kept
        except csv.Error:
            if not rows or len(lines) < LOOKED_AT:  # else the last line may end within a cell
                raise
        return rows

    def _found_header(self, rows: list[list[str]], known_columns: frozenset[str]) -> bool:
        """Whether the first row has names: none of its cells is a number, but cells below them are.

        Raises TableError if that does not tell, as with steps that are numbered: name,1,2,3.
        """
        first = [cell.strip() for cell in rows[0]]
        if known_columns & set(first) or TELLING & {cell.lower() for cell in first}:
            return True
        numbers = [number for cell in first if (number := as_number(cell, self.decimal)) is not None]
        counted = len(first) > len(numbers) > 1 and numbers[0] in (0, 1)
        counted = counted and {b - a for a, b in pairwise(numbers)} == {1.0}
        if numbers and not counted:
            return False
        if not counted and any(as_number(cell, self.decimal) is not None for row in rows[1:] for cell in row):
            return True
        raise TableError(
            f"{self.name}: expected --header or --no-header, because it is unclear whether its first row, "
            f"{', '.join(map(repr, first[:5]))}, has the names of columns"
        )

    def _check_names(self) -> None:
        twice = next((name for i, name in enumerate(self.columns) if name in self.columns[:i]), None)
        if twice is not None:
            raise TableError(f"{self.name}: expected columns of different names, got {twice!r} twice")

    # ---- rows -----------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """The rows below the header, without empty lines, and without empty rows at the end, as spreadsheets have them.

        Raises TableError for a row that cannot be read.
        """
        with self._csv_errors():
            rows = self._cells(self._lines())
            for _ in range(self._skipped + self.has_header):
                next(rows, None)
            for line, cells in _without_empty_end(rows):
                if self.has_header and len(cells) > len(self.columns):
                    raise TableError(
                        f"{self.name}: line {line}: expected {len(self.columns)} cells, one for each column, got "
                        f"{len(cells)}"
                    )
                yield Row(line, cells)

    def number(self, row: Row, column: int, hint: str = "") -> float:
        """The number in a cell; NaN if it is empty. Raises TableError if it is something else.

        ``hint``: what to do with a cell that is not even like a number.
        """
        cell = row.cells[column].strip() if column < len(row.cells) else ""
        value = as_number(cell, self.decimal) if cell else math.nan
        if value is None:
            if self.decimal == "." and WITH_COMMA.fullmatch(cell):
                hint = "; --decimal , reads a comma as the decimal mark"
            elif as_number(cell) is not None:
                hint = "; with --decimal , a number has no point"
            elif cell[0].isdigit():
                hint = ""
            raise TableError(f"{self.at(row.line, column)}: expected a number, got {cell!r:.100}{hint}")
        return value

    def at(self, line: int, column: int | None = None) -> str:
        """Where something is, for messages."""
        if column is None:
            return f"{self.name}: line {line}"
        named = self.has_header and column < len(self.columns) and self.columns[column]
        name = f" ({self.columns[column]})" if named else ""
        return f"{self.name}: line {line}, column {column + 1}{name}"

    def has(self, given: str | None) -> bool:
        """Whether there is a column of this name or number."""
        if given is None:
            return False
        return given in self.columns or (given.isdecimal() and 1 <= int(given) <= len(self.columns))

    def column(self, option: str, given: str) -> int:
        """The index of a column, which was given by its name or its number, from 1. Raises TableError."""
        if self.has_header and given in self.columns:
            return self.columns.index(given)
        if given.isdecimal() and 1 <= int(given) <= len(self.columns):
            return int(given) - 1
        some = ", ".join(self.columns[:20]) + ", ..." * (len(self.columns) > 20)
        expected = f"one of the columns {some}" if self.has_header else f"a column from 1 to {len(self.columns)}"
        raise TableError(f"{option}: expected {expected} of {self.name}, got {given!r:.100}")

    def _lines(self) -> Iterator[str]:
        """The lines of the file with their ends."""
        held = ""
        for chunk in file_document(self._source, "char", self._encoding).chunks():
            lines = (held + str(chunk)).split("\n")
            held = lines.pop()
            for line in lines:
                yield line + "\n"
        if held:
            yield held

    def _cells(self, lines: Iterator[str], delimiter: str | None = None) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each row that is not empty."""
        delimiter = delimiter or self.delimiter
        if delimiter == " ":
            yield from ((number, cells) for number, line in enumerate(lines, 1) if (cells := line.split()))
            return
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        for cells in reader:
            self._line = reader.line_num
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield reader.line_num, cells

    def _csv_errors(self) -> _CsvErrors:
        return _CsvErrors(self)

    _line = 0


def _is_workbook(path: Path) -> bool:
    """Whether a file is one of a spreadsheet program, which is no text."""
    if not path.is_file():  # a pipe is read once
        return False
    with path.open("rb") as file:
        return file.read(4) in WORKBOOKS


def _without_empty_end(rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """The rows up to the last one that has a cell which is not empty."""
    held: list[tuple[int, list[str]]] = []
    for row in rows:
        if not any(map(str.strip, row[1])):
            held.append(row)
            continue
        yield from held
        held.clear()
        yield row


class _CsvErrors:
    """Context manager that names file and line in errors of the csv module, and lets it read long cells."""

    def __init__(self, table: Table) -> None:
        self._table, self._limit = table, 0

    def __enter__(self) -> None:
        self._limit = csv.field_size_limit(LONGEST_CELL)

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        csv.field_size_limit(self._limit)
        if isinstance(error, csv.Error):
            got = "a carriage return alone, which is no line end; write newlines" if "new-line" in str(error) else error
            raise TableError(f"{self._table.at(self._table._line + 1)}: expected a row of CSV, got {got}") from None
