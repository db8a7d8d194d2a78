# SPDX-License-Identifier: MIT
"""Names of series and of their index: what pandas allows, as a file can hold it and gives it back.

    "load", 7, None                 themselves
    ("load", "north")               {"tuple": ["load", "north"]}
    Timestamp("2026-01-31")         {"timestamp": ["2026-01-31T00:00:00", null]}
"""

from __future__ import annotations

import datetime
from contextlib import suppress
from typing import Any

import numpy as np

from crnn.array_input import library_of, shown

__all__ = ["checked_label", "label_from_json", "label_to_json"]

DEEPEST = 8  # tuples in tuples


def checked_label(name: str, what: str, label: Any) -> Any:
    """A label, those of NumPy as Python's. Raises ValueError, which calls the series ``name``, for one that a file
    would not give back. ``what`` is labelled.
    """
    if isinstance(label, np.datetime64):
        import pandas as pd

        label = pd.Timestamp(label)
    elif isinstance(label, np.generic) and label.dtype.kind in "biufU":
        label = label.item()
    try:
        if _same(label_from_json(label_to_json(label)), label):
            return label
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f"{name}: expected {what} that a file can hold: a string, number, date, Timestamp, Period or a tuple of these, "
        f"got {type(label).__name__} {shown(label)}; write its str()"
    )


def label_to_json(label: Any) -> Any:
    """A label as JSON can hold it. Raises TypeError for one that it cannot."""
    kind = type(label)
    if label is None or kind in (str, int):
        return label
    if kind is tuple:
        return {"tuple": [label_to_json(each) for each in label]}
    if kind is bool:
        return {"bool": label}
    if kind is float:
        return {"float": repr(label)}
    if kind in (datetime.date, datetime.datetime):
        return {kind.__name__: label.isoformat()}
    if library_of(label) == "pandas" and kind.__name__ == "Timestamp":
        zone = label.tz
        return {"timestamp": [(label if zone is None else label.tz_convert("UTC")).isoformat(), zone and str(zone)]}
    if library_of(label) == "pandas" and kind.__name__ == "Period":
        return {"period": [str(label), label.freqstr]}
    raise TypeError(f"expected a label that JSON can hold, got {kind.__name__}")


def label_from_json(value: Any, depth: int = 0) -> Any:
    """The label of a JSON value. Raises ValueError."""
    if value is None or type(value) in (str, int):
        return value
    if not isinstance(value, dict) or len(value) != 1 or depth > DEEPEST:
        raise ValueError(f"expected a name, got {value!r:.200}")
    ((kind, content),) = value.items()
    if kind == "tuple" and isinstance(content, list):
        return tuple(label_from_json(each, depth + 1) for each in content)
    if kind == "bool" and isinstance(content, bool):
        return content
    if kind in ("float", "date", "datetime") and isinstance(content, str):
        read: Any = {"float": float, "date": datetime.date.fromisoformat, "datetime": datetime.datetime.fromisoformat}
        with suppress(ValueError):
            return read[kind](content)
    if kind in ("timestamp", "period") and isinstance(content, list) and len(content) == 2:
        return _of_pandas(kind, *content)
    raise ValueError(f"expected a name, got {value!r:.200}")


def _of_pandas(kind: str, text: Any, more: Any) -> Any:
    """A Timestamp or a Period. Raises ValueError."""
    if not isinstance(text, str) or not isinstance(more, str | None):
        raise ValueError(f"expected a name, a {kind}, got {text!r:.100} and {more!r:.100}")
    import pandas as pd

    try:
        if kind == "period":
            return pd.Period(text, freq=more)
        return pd.Timestamp(text) if more is None else pd.Timestamp(text).tz_convert(more)
    except Exception as error:  # of pandas, or of what reads time zones for it
        raise ValueError(f"expected a name, a {kind}, got {text!r:.100} and {more!r:.100}: {error}") from None


def _same(a: Any, b: Any) -> bool:
    """Whether two labels are equal; NaN equals NaN."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b or (a != a and b != b))
