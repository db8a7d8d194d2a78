# SPDX-License-Identifier: MIT
"""Initial weights, by name. The same bits everywhere: uniform draws from PCG64 and exact arithmetic, no normal draws
(they need a logarithm) and no LAPACK (whose order of operations is the machine's own)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from crnn._core import gemm
from crnn.checks import Array, check_seed

Draw = Callable[[tuple[int, ...]], Array]


UNDRAWN: Any = object()  # in place of a seed: all weights stay zero, for those who fill them in


def uniform_draws(seed: int) -> Draw:
    """A source of float64 arrays, uniform in [-1, 1), that is the same for the same seed on every machine."""
    raw = np.random.PCG64(check_seed("seed", seed))

    def draw(shape: tuple[int, ...]) -> Array:
        bits = raw.random_raw(math.prod(shape)) >> np.uint64(11)
        return (bits.astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)

    return draw


def glorot(draw: Draw, shape: tuple[int, int]) -> Array:
    """Uniform within sqrt(6 / (in + out)): activations and gradients keep their size. Glorot, Bengio 2010."""
    return draw(shape) * math.sqrt(6.0 / (shape[0] + shape[1]))


def uniform(draw: Draw, shape: tuple[int, int]) -> Array:
    """Uniform within 1 / sqrt(out), the textbook's rule; for recurrent layers also PyTorch's."""
    return draw(shape) * (1.0 / math.sqrt(shape[1]))


def unit_variance(draw: Draw, shape: tuple[int, int]) -> Array:
    """Uniform with variance 1: for rows that are looked up, not summed over. Of a one-hot input one row is active, so
    what it adds has the size of its weights; Glorot's rule, made for sums, leaves it too faint to learn quickly."""
    return draw(shape) * math.sqrt(3.0)


def orthogonal(draw: Draw, shape: tuple[int, int]) -> Array:
    """An orthogonal matrix: the state is turned, neither stretched nor shrunk. Saxe, McClelland, Ganguli 2014."""
    square = draw(shape)
    failed = gemm.orthonormalize(square)
    if failed:  # for random rows a matter of 1 in 10^10; not silently passed over all the same
        raise ArithmeticError(f"orthogonal: row {failed - 1} depends on those before it; try another seed")
    return square


def identity(draw: Draw, shape: tuple[int, int]) -> Array:
    """The identity, for ReLU layers that remember (IRNN). Le, Jaitly, Hinton 2015."""
    return np.eye(shape[0])


def zeros(draw: Draw, shape: tuple[int, int]) -> Array:
    return np.zeros(shape)


RULES: dict[str, Callable[[Draw, tuple[int, int]], Array]] = {
    "glorot": glorot,
    "uniform": uniform,
    "unit_variance": unit_variance,
    "orthogonal": orthogonal,
    "identity": identity,
    "zeros": zeros,
}


def check_rule(name: str, rule: Any) -> str:
    """The name of a rule in RULES, perhaps with a gain in front, as in ``0.5*identity``."""
    _parse(name, rule)
    return str(rule)


def _parse(name: str, rule: Any) -> tuple[float, str]:
    """The gain, and the name in RULES."""
    gain, kind = 1.0, rule
    if isinstance(rule, str) and "*" in rule:
        factor, kind = (part.strip() for part in rule.split("*", 1))
        try:
            gain = float(factor)
        except ValueError:
            kind = ""
    if not isinstance(kind, str) or kind not in RULES or not math.isfinite(gain):
        raise ValueError(
            f"{name}: expected one of {', '.join(RULES)}, with a gain in front if wanted (0.5*identity), got {rule!r}"
        )
    return gain, kind


def initial_matrix(rule: str, draw: Draw, shape: tuple[int, ...], argument: str) -> Array:
    """A matrix made by ``rule``; errors call it ``argument``."""
    gain, kind = _parse(argument, rule)
    matrix = RULES[kind](draw, shape)  # type: ignore[arg-type]  # two sizes
    return matrix if gain == 1.0 else matrix * gain
