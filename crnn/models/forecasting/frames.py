# SPDX-License-Identifier: MIT
"""Series as users pass them, and forecasts as they get them: arrays, or those of pandas with their index.

pandas is not imported here, unless a model that has learnt from it is to answer with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crnn.array_input import as_array, in_precision, library_of, real_numbers, shown
from crnn.checks import Array
from crnn.models.forecasting.labels import checked_label, label_from_json, label_to_json

FREQUENCIES = {"MS": "M", "ME": "M", "BMS": "M", "BME": "M", "QS": "Q", "QE": "Q", "BQS": "Q", "BQE": "Q"}
LARGEST_LABEL = int(np.iinfo(np.int64).max)
KINDS = ("datetime", "period", "range")


@dataclass(frozen=True)
class Axis:
    """The index of a series at its end, and how it continues.

    Attributes
    ----------
    kind : {"datetime", "period", "range"}
    last : str or int
        The last label.
    step : str or int
        The frequency, or the difference of two labels.
    tz : str or None
    name
        A label, see `crnn.models.forecasting.labels`.
    """

    kind: str
    last: str | int
    step: str | int
    tz: str | None = None
    name: Any = None

    @classmethod
    def of(cls, name: str, index: Any) -> Axis:
        """That of a pandas index. Raises ValueError, which calls the series ``name``, if it has no frequency."""
        import pandas as pd

        label = checked_label(name, "an index with a name", index.name)
        if isinstance(index, pd.PeriodIndex):
            steady = bool((index == pd.period_range(index[0], periods=len(index), freq=index.freq)).all())
            if steady:
                return cls("period", str(index[-1]), index.freqstr, None, label)
        elif isinstance(index, pd.DatetimeIndex):
            step = index.freqstr or pd.DatetimeIndex(index, freq="infer").freqstr
            if step is not None and (len(index) < 2 or index[1] > index[0]):
                tz = None if index.tz is None else str(index.tz)
                last = index[-1] if index.tz is None else index[-1].tz_convert("UTC")
                return cls("datetime", last.isoformat(), step, tz, label)
        elif pd.api.types.is_integer_dtype(index.dtype) and not index.hasnans:
            found = _even_integers(name, index.to_numpy())
            if found is not None:
                return cls("range", *found, None, label)
        raise ValueError(
            f"{name}: expected an index of dates or periods with a frequency, or of evenly spaced integers, got "
            f"{type(index).__name__} {shown([str(label) for label in index[:3]])}; {_index_hint(name, index)}"
        )

    def after(self, n: int) -> Any:
        """The pandas index of the next ``n`` steps."""
        import pandas as pd

        try:
            if self.kind == "period":
                first = pd.Period(self.last, freq=self.step) + 1
                return pd.period_range(first, periods=n, freq=self.step, name=self.name)
            if self.kind == "datetime":
                last = pd.Timestamp(self.last)
                last = last if self.tz is None else last.tz_convert(self.tz)
                return pd.date_range(last, periods=n + 1, freq=self.step, name=self.name)[1:]
            first, step = int(self.last) + int(self.step), int(self.step)
            np.array([first, first + n * step], np.int64)  # which pandas notices when the index is used
            return pd.RangeIndex(first, first + n * step, step, name=self.name)
        except (OverflowError, pd.errors.OutOfBoundsDatetime):
            raise ValueError(
                f"series: expected an index that continues for {n:,} steps, got one that ends at {self.last}, after "
                "which pandas cannot count as far; write series.reset_index(drop=True)"
            ) from None

    def advanced(self, n: int) -> Axis:
        """The axis after the next ``n`` steps."""
        index = self.after(n)
        last = index[-1]
        if self.kind == "range":
            return Axis(self.kind, int(last), self.step, self.tz, self.name)
        if self.kind == "period":
            return Axis(self.kind, str(last), self.step, self.tz, self.name)
        last = last if self.tz is None else last.tz_convert("UTC")
        return Axis(self.kind, last.isoformat(), self.step, self.tz, self.name)

    @property
    def frequency(self) -> str | None:
        """The frequency without multiple and anchor, such as "M"; None if it is a multiple, or none."""
        if self.kind == "range":
            return None
        unit = str(self.step).partition("-")[0]
        return FREQUENCIES.get(unit, unit)


def _even_integers(name: str, labels: Any) -> tuple[int, int] | None:
    """The last of evenly spaced integers, and their difference; None if they are not even.

    Raises ValueError, which calls the series ``name``, for integers that int64 cannot hold.
    """
    if len(labels) and int(labels.max()) > LARGEST_LABEL:
        raise ValueError(
            f"{name}: expected an index of integers of at most {LARGEST_LABEL}, got {int(labels.max())}; write "
            f"{name}.reset_index(drop=True)"
        )
    labels = labels.astype(np.int64)
    first, last, n = int(labels[0]), int(labels[-1]), len(labels)
    step = int(labels[1]) - first if n > 1 else 1
    even = step != 0 and abs(step) <= LARGEST_LABEL and last == first + (n - 1) * step
    return (last, step) if even and (np.diff(labels) == step).all() else None


def _index_hint(name: str, index: Any) -> str:
    """What to write for an index that cannot be continued."""
    import pandas as pd

    without = f"{name}.reset_index(drop=True) for steps without dates"
    if not isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return f"write {name}.index = pd.to_datetime({name}.index) if these are dates, or {without}"
    if index.has_duplicates:
        return f"{index[index.duplicated()][0]} is there twice; write one series for each group, or their sum by date"
    if not index.is_monotonic_increasing:
        return f"write {name}.sort_index()"
    return f"write {name}.asfreq('D') for gaps in daily dates, 'MS' or 'ME' in months, or {without}"


@dataclass(frozen=True)
class Frame:
    """A series: its values, and what its container says of them.

    Attributes
    ----------
    values : array (T, P)
        float64, NaN = missing; a copy.
    flat : bool
        Whether it was given as (T,).
    columns : list or None
        Their names, of a pandas object.
    axis : Axis or None
        Of a pandas object.
    index
        The pandas index, or None.
    """

    values: Array
    flat: bool
    columns: list[Any] | None = None
    axis: Axis | None = None
    index: Any = None

    def __len__(self) -> int:
        return len(self.values)


def is_several(value: Any) -> bool:
    """Whether ``value`` are several series: a list of them, or an array (N, T, P)."""
    if isinstance(value, list | tuple):
        return any(np.ndim(each) > 0 if not hasattr(each, "ndim") else each.ndim > 0 for each in value)
    if library_of(value) == "pandas":
        return False
    array = value if isinstance(value, np.ndarray) else as_array("series", value)
    return array.ndim == 3 or (array.dtype.kind == "O" and array.ndim == 1 and any(np.ndim(each) for each in array))


SERIES = "a series (T,) or (T, P), or a list of them"


def read(name: str, value: Any, what: str = SERIES, *, bools: bool = False, axis: bool = True) -> list[Frame]:
    """The series of ``value``, with ``bools`` also 0 and 1 as bools.

    Without ``axis`` an index is only kept, to be compared with another one, so it needs no frequency: one that pandas
    has read from a file has none, and of one row or two none can be found.

    Raises TypeError and ValueError, which call it ``name``.
    """
    if library_of(value) == "pandas" and hasattr(type(value), "groups"):
        raise TypeError(f"{name}: expected {what}, got {type(value).__name__}; write [group for _, group in grouped]")
    if isinstance(value, str | bytes) or value is None:
        raise TypeError(f"{name}: expected {what}, got {type(value).__name__}")
    if not is_several(value):
        return [read_one(name, value, what, bools=bools, axis=axis)]
    if not len(value):
        raise ValueError(f"{name}: expected {what}, got none")
    return [read_one(f"{name}[{i}]", each, what, bools=bools, axis=axis) for i, each in enumerate(value)]


def read_one(name: str, value: Any, what: str, *, bools: bool, axis: bool) -> Frame:
    """A single series, see `read`."""
    pandas = library_of(value) == "pandas" and hasattr(value, "index")
    if pandas and value.index.nlevels > 1:
        hint = "[group.droplevel(0) for _, group in x.groupby(level=0)]"
        raise ValueError(f"{name}: expected {what}, got an index of {value.index.nlevels} levels; write {hint}")
    array = real_numbers(name, value)
    if (array.dtype.kind == "b" and not bools) or array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{name}: expected {what}, got {array.dtype} of shape {array.shape}")
    values = np.array(in_precision(name, array, "float64"), copy=True, order="C")
    if np.isinf(values).any():
        raise ValueError(f"{name}: expected finite numbers, or NaN for a gap, got infinity")
    flat = values.ndim == 1
    values = values[:, None] if flat else values
    if not pandas:
        return Frame(values, flat)
    columns = [value.name] if flat else value.columns.tolist()
    if not axis:
        return Frame(values, flat, columns, None, value.index)
    columns = [checked_label(name, "a name" if flat else "columns with names", each) for each in columns]
    return Frame(values, flat, columns, Axis.of(name, value.index), value.index)


def read_columns(
    name: str, value: Any, series: Sequence[Frame], several: bool, rows: Sequence[int]
) -> list[Frame] | None:
    """Other columns (T, E) of each series, of so many rows; None if there are none."""
    if value is None:
        return None
    what = "columns (T,) or (T, E)" + (", one array for each series" if several else "")
    frames = read(name, value, what, bools=True, axis=False)  # a holiday is or is not
    if len(frames) != len(series) or is_several(value) != several:
        raise ValueError(f"{name}: expected columns for each of {len(series)} series, got {len(frames)}")
    for i, (frame, n) in enumerate(zip(frames, rows, strict=True)):
        label = f"{name}[{i}]" if several else name
        if len(frame) != n:
            raise ValueError(f"{label}: expected {n} rows{_of(frame)}, got {len(frame)}")
        if frame.values.shape[1] != frames[0].values.shape[1]:
            raise ValueError(f"{label}: expected {frames[0].values.shape[1]} columns, got {frame.values.shape[1]}")
    return frames


def _of(frame: Frame) -> str:
    return "" if frame.columns is None else f" of columns {shown(frame.columns)}"


def check_index(name: str, frame: Frame, index: Any) -> None:
    """Raise ValueError unless the rows of a pandas object have this index, if it is known."""
    if frame.index is not None and index is not None and not frame.index.equals(index):
        raise ValueError(
            f"{name}: expected the index {shown(index[[0, -1]].tolist())} (first and last), got "
            f"{shown(frame.index[[0, -1]].tolist())}; write {name}.loc[index]"
        )


def in_order(name: str, frame: Frame, columns: list[Any] | None) -> Array:
    """Values of a frame, its columns in this order if both have names. Raises ValueError for other columns."""
    if frame.columns is None or columns is None:
        return frame.values
    names = [str(column) for column in frame.columns]
    if sorted(names) != sorted(columns) or len(set(names)) < len(names):
        if frame.flat and len(columns) == 1:  # the name of a single column does not matter
            return frame.values
        raise ValueError(f"{name}: expected the columns {shown(columns)}, got {shown(names)}")
    return frame.values[:, [names.index(column) for column in columns]]


def axis_to_dict(axis: Axis | None) -> dict[str, Any] | None:
    """A JSON object of an axis."""
    return None if axis is None else {**asdict(axis), "name": label_to_json(axis.name)}


def axis_from(value: Any) -> Axis | None:
    """The axis of a JSON object. Raises ValueError."""
    if value is None:
        return None
    names = ("kind", "last", "step", "tz", "name")
    if not isinstance(value, dict) or sorted(value) != sorted(names) or value["kind"] not in KINDS:
        raise ValueError(f"expected an index, got {value!r:.200}")
    numbers = int if value["kind"] == "range" else str
    types = {"last": (numbers,), "step": (numbers,), "tz": (str, type(None))}
    if any(type(value[name]) not in allowed for name, allowed in types.items()):
        raise ValueError(f"expected an index, got {value!r:.200}")
    return Axis(**(value | {"name": label_from_json(value["name"])}))


def as_given(values: Array, frame: Frame, axis: Axis | None, levels: Sequence[float] | None) -> Any:
    """A forecast (n, P), or with levels of quantiles (n, P, Q), in the container of the series.

    A series (T,) has a forecast (n,) or (n, Q). pandas objects have the continued index, and quantiles in columns.
    """
    if axis is None:
        return values[:, 0] if frame.flat else values
    import pandas as pd

    index, columns = axis.after(len(values)), frame.columns or list(range(values.shape[1]))
    if levels is None:
        if frame.flat:
            return pd.Series(values[:, 0], index, name=columns[0])
        return pd.DataFrame(values, index, columns=columns)
    if frame.flat:
        return pd.DataFrame(values[:, 0], index, columns=pd.Index(levels, name="quantile"))
    labels = pd.MultiIndex.from_product([columns, levels], names=[None, "quantile"])
    return pd.DataFrame(values.reshape(len(values), -1), index, columns=labels)
