# SPDX-License-Identifier: MIT
"""Parameters: a flat buffer, a second one of the same size for the gradients, and named views into both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Self

from crnn._core.gemm import aligned_zeros
from crnn._options import did_you_mean
from crnn.array_input import in_precision, real_numbers
from crnn.checks import Array
from crnn.nn.precision import Precision, check_names, precision_of, rounded, terms_axis

Shapes = Mapping[str, tuple[int, ...]]


class Changes:
    """What crnn knows of changes of a flat buffer; shared by all `Parameters` that have a part of it."""

    version: object  # another one after each change by crnn itself. Not a count, of which two threads can lose a change
    public: bool  # a user has got writable arrays, and may write into them at any time

    def __init__(self) -> None:
        self.version, self.public = object(), False


class NamedArrays(dict[str, Array]):
    """Views into a flat buffer by name, for users: to set one copies the values into the buffer.

    A dict would keep the array that it is given, of which the buffer, and so the optimizer, would know nothing. Names
    are neither added nor removed.
    """

    def __setitem__(self, name: str, values: Any) -> None:
        view = self.get(name)
        if view is None:
            raise KeyError(f"{name}: there is no parameter of this name{did_you_mean(str(name), list(self))}")
        if values is view:  # after an operation in place, such as params[name] *= 2
            return
        given = real_numbers(name, values)
        if given.shape != view.shape:
            raise ValueError(f"{name}: expected shape {view.shape}, got {given.shape}")
        if not view.flags.writeable:
            raise ValueError(f"{name}: expected a model whose weights can change, got one in int8, int4 or bf16")
        view[...] = in_precision(name, given, view.dtype.name)

    def update(self, other: Any = (), /, **values: Any) -> None:
        """Set several."""
        for name, array in dict(other, **values).items():
            self[name] = array

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # copies are a dict of arrays that belong to no model

    def _refuse(self) -> NoReturn:
        raise TypeError("params: expected the names to stay as they are, got a call that would remove or add one")

    def __delitem__(self, name: str, /) -> NoReturn:
        self._refuse()

    def clear(self) -> NoReturn:
        """Refused, as the names are fixed; so are the next ones."""
        self._refuse()

    def pop(self, *_: Any) -> NoReturn:
        """Refused."""
        self._refuse()

    def popitem(self) -> NoReturn:
        """Refused."""
        self._refuse()

    def setdefault(self, *_: Any) -> NoReturn:
        """Refused."""
        self._refuse()


class Parameters:
    """Named arrays that are consecutive views into a flat buffer, and their gradients in a second one.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of each array by name, in the order of the buffer.
    dtype : str
        float32 or float64.
    buffers : (flat, flat_grads), optional
        1-d arrays of the right size, borrowed; fresh zeros if not given.
    changes : Changes, optional
        That of the ``buffers``.

    Code of crnn that changes the values of a model that may have been used says so with `changed`.
    """

    shapes: dict[str, tuple[int, ...]]
    size: int  # n, elements of all arrays together
    flat: Array  # (n,)
    flat_grads: Array  # (n,)
    values: dict[str, Array]  # views into `flat`
    grads: dict[str, Array]  # views into `flat_grads`
    changes: Changes
    _parts: list[Parameters]  # those that `part` has made

    def __init__(
        self,
        shapes: Shapes,
        dtype: str,
        buffers: tuple[Array, Array] | None = None,
        changes: Changes | None = None,
    ) -> None:
        self.shapes, self._parts, self.changes = dict(shapes), [], changes or Changes()
        self.size = self.count(self.shapes)
        if buffers is None:
            buffers = aligned_zeros((self.size,), dtype), aligned_zeros((self.size,), dtype)
        self.flat, self.flat_grads = buffers
        self.values = self._views(self.flat)
        self.grads = self._views(self.flat_grads)

    def settle(self, precision: Precision) -> None:
        """Round the matrices to the grid of ``precision``, and make all arrays read-only, unless it is None.

        Raises ValueError if it names a matrix that is not among the parameters.
        """
        if precision is None:
            return
        check_names(precision, self.shapes)
        for name, values in self.values.items():
            values[...] = rounded(values, precision_of(precision, name), terms_axis(name))
        self.make_read_only()

    def part(self, prefix: str, shapes: Shapes) -> Parameters:
        """The arrays named ``prefix`` + name for each name in ``shapes``, under their names without the prefix.

        They must be consecutive in the buffer. The result borrows this object's buffers.
        """
        names = list(self.shapes)
        first = names.index(prefix + next(iter(shapes)))
        start = self.count({name: self.shapes[name] for name in names[:first]})
        chosen = slice(start, start + self.count(shapes))
        buffers = self.flat[chosen], self.flat_grads[chosen]
        part = Parameters(shapes, self.flat.dtype.name, buffers, self.changes)
        self._parts.append(part)
        return part

    @property
    def version(self) -> object | None:
        """An object that is another one after the values have changed; None if they may change at any time.

        Packed weights can be kept while it stays the same: a program without writable arrays cannot change the values.
        Read it before the values.
        """
        return None if self.changes.public else self.changes.version

    def changed(self) -> None:
        """Must be called after each change of the values by crnn itself."""
        self.changes.version = object()

    def read_only(self) -> dict[str, Array]:
        """Read-only views of the values by name, for what reads them and must not hand out writable ones."""
        views = {name: values.view() for name, values in self.values.items()}
        for view in views.values():
            view.flags.writeable = False
        return views

    def hand_out(self) -> Parameters:
        """These parameters, for a user: unless they are read-only there is no `version` from now on."""
        if self.flat.flags.writeable:
            self.changes.public = True
        return self

    def make_read_only(self) -> None:
        """Refuse changes of the parameters from now on, also through views that are made later."""
        owner = self.flat.base
        for array in (owner, self.flat, *self.values.values()):
            if array is not None:
                array.flags.writeable = False
        for part in self._parts:
            part.make_read_only()

    @staticmethod
    def count(shapes: Shapes) -> int:
        """Number of elements of arrays of these shapes."""
        return sum(math.prod(shape) for shape in shapes.values())

    def _views(self, flat: Array) -> dict[str, Array]:
        """Consecutive views of the shapes into ``flat`` (n,), by name."""
        views: dict[str, Array] = {}
        start = 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            views[name] = flat[start:stop].reshape(shape)
            start = stop
        return views
