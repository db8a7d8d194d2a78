# SPDX-License-Identifier: MIT
"""Layout: which columns of a table are what, as far as that was said, and as it is found in a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crnn.cli.configuration import Repeated
from crnn.cli.tables.table import (
    IDS,
    LABELS,
    TEXTS,
    TIMES,
    Reading,
    Row,
    Table,
    TableError,
    add_table_flags,
    reading_of,
)

__all__ = [
    "LABEL_FLAG",
    "TARGET_FLAG",
    "Layout",
    "Roles",
    "add_layout_flags",
    "layout_of",
    "role",
    "roles_in",
    "some_of",
]

SHOWN = 8  # columns or classes that a message names


@dataclass(frozen=True)
class Layout:
    """Which columns of a table are what, as far as that was said; None and empty: as the header names them.

    Attributes
    ----------
    format : {"auto", "wide", "long"}
    id, time : str or None
        The sequence that a step belongs to, and when it was.
    labels : tuple of str
    columns : tuple of str
        The values of a step; all other columns if none is given.
    text : str or None
        The text of a sequence, or in long format a word, in place of values.
    reading : Reading
        How the table is written.
    optional : tuple of str
        Which of "id", "time", "weight" and "mask" a table need not have, although they are named.
    weight, mask : str or None
        The weights of sequences or steps, and which steps are there; none if they are not said.
    """

    format: str
    id: str | None
    time: str | None
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    reading: Reading
    optional: tuple[str, ...] = ()
    text: str | None = None
    weight: str | None = None
    mask: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """All columns that were named, without those that were numbered."""
        named = [self.id, self.time, self.text, self.weight, self.mask, *self.labels, *self.columns]
        given = filter(None, named)
        return frozenset(name for name in given if not name.isdecimal())


# The flag of the columns of labels, and its help.
LABEL_FLAG = (
    "--label",
    f"column of the labels, by its name or number from 1; if not given one called {', '.join(LABELS)}, or without a "
    "header the first one. Repeated: several binary labels",
)
TARGET_FLAG = (
    "--target",
    f"column of the values to learn, by its name or number from 1; if not given one called {', '.join(LABELS)}, or "
    "without a header the first one; may be repeated",
)


def add_layout_flags(
    parser: argparse._ActionsContainer,
    *,
    formats: bool = True,
    label_flag: tuple[str, str] = LABEL_FLAG,
    encoding: str = "utf-8",
    trained: bool = False,
) -> None:
    """Add the flags that say which columns are what, and how the table is written, see `add_table_flags`."""
    if formats:
        parser.add_argument(
            "--format",
            choices=["auto", "wide", "long"],
            default="auto",
            help="wide: a row is a sequence, one value per step; long: a row is a step; auto: long if ids repeat",
        )
    flag, help = label_flag
    parser.add_argument(flag, dest="label", action=Repeated, default=[], metavar="COLUMN", help=help)
    parser.add_argument(
        "--id", metavar="COLUMN", help="column that says which sequence a row belongs to; if not given one called id"
    )
    parser.add_argument(
        "--time",
        metavar="COLUMN",
        help=f"column of times, which must rise within a sequence; if not given one called {' or '.join(TIMES)}",
    )
    parser.add_argument(
        "--column", action=Repeated, default=[], metavar="COLUMN", help="column of values; all others if not given"
    )
    parser.add_argument(
        "--text",
        dest="text_column",
        metavar="COLUMN",
        help=f"column of texts, or in long format of words, in place of values; if not given one called "
        f"{', '.join(TEXTS)}",
    )
    parser.add_argument(
        "--sample-weight",
        metavar="COLUMN",
        help="column of the weights of sequences, or of steps if each has a label; all weigh alike if not given",
    )
    parser.add_argument(
        "--mask",
        metavar="COLUMN",
        help="in long format: column of 1 for a step that is there, 0 for one that is skipped; all are there if not "
        "given",
    )
    add_table_flags(parser, encoding, trained=trained)


def layout_of(arguments: argparse.Namespace, saved: Mapping[str, Any] | None = None) -> Layout:
    """The values of the flags that `add_layout_flags` added; ``saved`` as in `reading_of`."""
    return Layout(
        format=getattr(arguments, "format", "long"),
        id=arguments.id,
        time=arguments.time,
        labels=tuple(getattr(arguments, "label", ())),
        columns=tuple(arguments.column),
        text=arguments.text_column,
        reading=reading_of(arguments, saved),
        weight=arguments.sample_weight,
        mask=arguments.mask,
    )


@dataclass(frozen=True)
class Roles:
    """Indices of the columns of a table."""

    id: int | None
    time: int | None
    labels: tuple[int, ...]
    values: tuple[int, ...] | None  # None: all others
    text: int | None = None
    weight: int | None = None
    mask: int | None = None

    @property
    def single(self) -> list[int]:
        """The columns of which there is at most one of a kind."""
        return [each for each in (self.id, self.time, self.text, self.weight, self.mask) if each is not None]

    @property
    def others(self) -> frozenset[int]:
        """Columns that are not values."""
        return frozenset([*self.labels, *self.single])

    def values_of(self, row: Row) -> Sequence[int]:
        """The columns of a row's values."""
        if self.values is not None:
            return self.values
        return [each for each in range(len(row.cells)) if each not in self.others]

    def named(self, table: Table, layout: Layout, format: str) -> Layout:
        """The layout of a table in which these columns were found."""

        def name(column: int | None) -> str | None:
            return None if column is None else table.columns[column]

        labels = tuple(table.columns[each] for each in self.labels)
        found: dict[str, Any] = {each: name(getattr(self, each)) for each in ("id", "time", "text", "weight", "mask")}
        return replace(layout, format=format, labels=labels, **found)


def roles_in(
    table: Table,
    layout: Layout,
    *,
    labelled: bool | None,
    texts: bool | None = None,
    is_label: Callable[[str], bool] | None = None,
) -> Roles:
    """The columns of a table; arguments as of `read_sequences`.

    Raises TableError for a column that the table does not have, or that is given two roles.
    """
    named = (("id", layout.id), ("time", layout.time), ("weight", layout.weight), ("mask", layout.mask))
    needed = {name: None if name in layout.optional and not table.has(given) else given for name, given in named}
    id = role(table, "--id", needed["id"], IDS)
    time = role(table, "--time", needed["time"], TIMES)
    weight, mask = role(table, "--sample-weight", needed["weight"], ()), role(table, "--mask", needed["mask"], ())
    wanted = () if labelled is False else layout.labels
    labels = [table.column("--label", each) for each in wanted if labelled or table.has(each)]
    if labels and not labelled and not table.has_header:
        if is_label is None:
            expected = "--no-labels, or names of columns, which tell whether it has labels"
            raise TableError(f"{table.name}: expected {expected}, got neither")
        cells = [row[each].strip() for row in table.first_rows for each in labels if each < len(row)]
        labels = labels if all(map(is_label, cells)) else []
    if not layout.labels and labelled is not False:
        found = role(table, "--label", None, LABELS)
        if found is None and not table.has_header and id is None and time is None and labelled:
            found = 0
        if found is None and labelled:
            raise TableError(
                f"label: expected the column of the labels, such as label={table.columns[-1]}; {table.name} has the "
                f"columns {some_of(table.columns)}"
            )
        labels = [] if found is None else [found]
    values = tuple(table.column("--column", each) for each in layout.columns) or None
    text = None if texts is False else role(table, "--text", layout.text, () if values else TEXTS)
    if texts and text is None:
        raise TableError(f"text_column: expected the column of the texts, such as --text {table.columns[-1]}, got none")
    if text is not None and values:
        raise TableError("text_column and column: expected one of them, got both")
    roles = Roles(id, time, tuple(labels), values if text is None else (), text, weight, mask)
    nameless = [each for each in roles.values_of(Row(1, table.columns)) if not table.columns[each]]
    if nameless:
        where, hint = table.at(1, nameless[0]), "--column names the columns of values"
        raise TableError(f"{where}: expected a name, got none, as an index has; {hint}")
    given = [*labels, *roles.single, *(values or ())]
    twice = next((each for i, each in enumerate(given) if each in given[:i]), None)
    if twice is not None:
        raise TableError(f"{table.name}: expected each column once, got {table.columns[twice]} for two purposes")
    return roles


def role(table: Table, option: str, given: str | None, names: Sequence[str]) -> int | None:
    """The column that was given, or the only one with one of these names; None if there is none."""
    if given is not None:
        return table.column(option, given)
    if not table.has_header:
        return None
    found = [i for i, name in enumerate(table.columns) if name.lower() in names]
    if len(found) > 1:
        names_found = " and ".join(table.columns[i] for i in found)
        raise TableError(f"{table.name}: expected {option}, because {names_found} are both possible")
    return found[0] if found else None


def some_of(names: Iterable[str | None]) -> str:
    """Names in a row, not too many of them."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
