# SPDX-License-Identifier: MIT
"""What the tests of commands on tables share: writing a table, and the message of a command that fails."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def write(path: Path, rows: Iterable[Sequence[Any]], delimiter: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def fails(run: Callable[..., tuple[str, str]], *arguments: Any) -> str:
    """The last line of standard error, which says why; ``run`` is the fixture."""
    out, err = run(*arguments, status=1)
    assert out == ""
    return err.splitlines()[-1]
