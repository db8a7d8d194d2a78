# SPDX-License-Identifier: MIT
"""Initial weights by name of the rule, bit-identical on every machine.

Rules use uniform draws of PCG64 and exact arithmetic. Normal draws need a logarithm, and LAPACK's order of operations
differs between machines, so neither is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from crnn._core import cells, vecmath
from crnn.checks import Array, check_seed

Draw = Callable[[tuple[int, ...]], Array]  # from a shape to a fresh float64 array, uniform in [-1, 1)

MOST_DRAWS = 8  # of a matrix whose rows may be linearly dependent

UNINITIALISED: Any = object()  # in place of a seed: all weights stay zero, because the caller sets them afterwards


def uniform_draws(seed: int) -> Draw:
    """A function that draws float64 arrays uniform in [-1, 1). The seed determines the sequence on every machine."""
    raw = np.random.PCG64(check_seed("seed", seed))

    def draw(shape: tuple[int, ...]) -> Array:
        bits = raw.random_raw(math.prod(shape)) >> np.uint64(11)
        return (bits.astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)

    return draw


def glorot(draw: Draw, shape: tuple[int, int]) -> Array:
    """Uniform in +-sqrt(6 / (in + out)), which preserves the variance of activations and gradients.

    Glorot, Bengio 2010.
    """
    return draw(shape) * math.sqrt(6.0 / (shape[0] + shape[1]))


def uniform(draw: Draw, shape: tuple[int, int]) -> Array:
    """Uniform in +-1 / sqrt(out), the textbook rule and PyTorch's for recurrent layers."""
    return draw(shape) * (1.0 / math.sqrt(shape[1]))


def unit_variance(draw: Draw, shape: tuple[int, int]) -> Array:
    """Uniform with variance 1, for the rows that one-hot inputs select.

    A one-hot input activates a single row, so its contribution is as large as a weight. Glorot's rule assumes a sum
    over all rows, which makes this contribution so small that training is slow.
    """
    return draw(shape) * math.sqrt(3.0)


def orthogonal(draw: Draw, shape: tuple[int, int]) -> Array:
    """A square orthogonal matrix, which preserves the norm of the state. Saxe, McClelland, Ganguli 2014.

    Rows that are nearly linearly dependent are drawn again. Raises ArithmeticError if they always are.
    """
    for _ in range(MOST_DRAWS):
        square = draw(shape)
        failed = vecmath.orthonormalize(square)
        # One of 40,000 matrices of 11 units fails, and more of larger ones: the part of a row that does not depend on
        # those before it is less than 1e-5 of the row.
        if not failed:
            return square
    raise ArithmeticError(f"orthogonal: row {failed - 1} depends on those before it; try another seed")


def identity(draw: Draw, shape: tuple[int, int]) -> Array:
    """The identity matrix; with ReLU cells this is the IRNN. Le, Jaitly, Hinton 2015."""
    return np.eye(shape[0])


def zeros(draw: Draw, shape: tuple[int, int]) -> Array:
    """All zero."""
    return np.zeros(shape)


RULES: dict[str, Callable[[Draw, tuple[int, int]], Array]] = {
    "glorot": glorot,
    "uniform": uniform,
    "unit_variance": unit_variance,
    "orthogonal": orthogonal,
    "identity": identity,
    "zeros": zeros,
}


_UNIFORM = re.compile(r"uniform\((.*)\)")
# The parameters that a rule of `check_init` may name.
MATRICES = ("embedding", "W_xh", "W_hh", "W_hy", "W_hp", "W_py")
VECTORS = ("b_h", *(name for cell in cells.CELLS.values() for name in cell.vectors), "b_y", "h0", "c0")


def check_rule(name: str, rule: Any) -> str:
    """``rule`` if it is a name in RULES, with an optional gain as in ``0.5*identity``, or ``uniform(a)``: uniform in
    +-a. Errors call it ``name``."""
    if _range(name, rule) is None:
        _parse(name, rule)
    return str(rule)


def check_init(name: str, value: Any) -> str:
    """``value`` if it is a rule for all parameters, ``uniform(0.1)``, or rules by name, ``embedding=uniform(0.1),
    W_hy=zeros``. Errors call it ``name``."""
    rules_by_parameter(name, value)
    return str(value)


def rules_by_parameter(name: str, value: Any) -> dict[str, str]:
    """The rules that an option ``init`` gives, by the last part of the parameters' names. Raises ValueError."""
    if value is None:
        return {}
    expected = f"{name}: expected uniform(a), or rules by name such as embedding=uniform(0.1), W_hy=glorot"
    if not isinstance(value, str):
        raise ValueError(f"{expected}, got {value!r:.200}")
    if "=" not in value:
        if _range(name, value) is None:
            raise ValueError(f"{expected}, got {value!r:.200}")
        return dict.fromkeys((*MATRICES, *VECTORS), value.strip())
    rules: dict[str, str] = {}
    for part in value.split(","):
        parameter, _, rule = (each.strip() for each in part.partition("="))
        if parameter not in MATRICES + VECTORS or parameter in rules:
            raise ValueError(f"{expected}, each of {', '.join(MATRICES + VECTORS)} at most once, got {value!r:.200}")
        if parameter in VECTORS and rule != "zeros" and _range(name, rule) is None:
            raise ValueError(f"{name}: expected uniform(a) or zeros for {parameter}, got {rule!r:.200}")
        rules[parameter] = check_rule(name, rule)
    return rules


def check_has_parameters(name: str, value: Any, parameters: Iterable[str]) -> None:
    """Raise ValueError if an option ``init`` has a rule for a parameter that is not among those of a model."""
    if value is None or "=" not in value:
        return
    names = {each.rpartition(".")[2] for each in parameters}
    known = [each for each in MATRICES + VECTORS if each in names]
    for parameter in rules_by_parameter(name, value):
        if parameter not in names:
            raise ValueError(
                f"{name}: expected rules for parameters of this model, {', '.join(known)}, got one for {parameter}"
            )


def _range(name: str, rule: Any) -> float | None:
    """a, if a rule is ``uniform(a)``; None if it is another one. Raises ValueError for a wrong a."""
    found = _UNIFORM.fullmatch(rule.strip()) if isinstance(rule, str) else None
    if found is None:
        return None
    try:
        a = float(found[1])
    except ValueError:
        a = math.nan
    if not 0 <= a < math.inf:
        raise ValueError(f"{name}: expected a number of at least 0 in uniform(a), such as uniform(0.1), got {rule!r}")
    return a


def _parse(name: str, rule: Any) -> tuple[float, str]:
    """The gain and the name in RULES."""
    gain, kind = 1.0, rule
    if isinstance(rule, str) and "*" in rule:
        factor, kind = (part.strip() for part in rule.split("*", 1))
        try:
            gain = float(factor)
        except ValueError:
            kind = ""
    if not isinstance(kind, str) or kind not in RULES or not math.isfinite(gain):
        raise ValueError(
            f"{name}: expected one of {', '.join(RULES)}, with a gain in front if wanted (0.5*identity), or "
            f"uniform(a), got {rule!r}"
        )
    return gain, kind


def initial_matrix(rule: str, draw: Draw, shape: tuple[int, ...], argument: str) -> Array:
    """A fresh float64 matrix of this shape, by ``rule`` (see `check_rule`). Errors call the rule ``argument``.

    ``uniform(a)`` and zeros also make vectors.
    """
    a = _range(argument, rule)
    if a is not None:
        return draw(shape) * a
    if len(shape) == 1 and rule == "zeros":
        return np.zeros(shape)
    gain, kind = _parse(argument, rule)
    rows, columns = shape
    matrix = RULES[kind](draw, (rows, columns))
    return matrix if gain == 1.0 else matrix * gain
