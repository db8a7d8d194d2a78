# SPDX-License-Identifier: MIT
"""Results that do not depend on the floating-point mode of the host.

Another library in the process may have set another rounding mode, flush-to-zero, or traps. The kernels set the mode
they need; `in_ieee_mode` does it for functions that compute with NumPy or Python numbers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from crnn._core.dispatch import call_in_host_mode, call_in_ieee_mode

__all__ = ["in_host_mode", "in_ieee_mode", "public_methods_in_ieee_mode"]

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")


def in_ieee_mode(function: F) -> F:
    """Decorator of a function whose results must not depend on the host's mode. Not for generators, which run later."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call_in_ieee_mode(function, args, kwargs)

    return cast(F, wrapper)


def in_host_mode(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function of the host, such as a callback, in the host's mode."""
    return cast(R, call_in_host_mode(function, args, kwargs))


def public_methods_in_ieee_mode(cls: type) -> None:
    """Apply `in_ieee_mode` to the public methods that a class defines itself, to ``__init__`` and ``__call__``."""
    for name, value in list(vars(cls).items()):
        public = not name.startswith("_") or name in ("__init__", "__call__")
        if public and inspect.isfunction(value) and not inspect.isgeneratorfunction(value):
            setattr(cls, name, in_ieee_mode(value))
