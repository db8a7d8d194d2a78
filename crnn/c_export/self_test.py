# SPDX-License-Identifier: MIT
"""The self-test of an exported file: stored inputs, and the bits that crnn's own stream gave for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crnn.c_export import numbers
from crnn.c_export.network import Network
from crnn.checks import Array
from crnn.stream import Stream, StreamWeights

MOST_NUMBERS = 1500  # that a test stores, unless two steps need more
LEAST_STEPS, MOST_STEPS = 2, 12


@dataclass(frozen=True)
class SelfTest:
    """Inputs x (T, D) or ids (T,), and the outputs y (T, V) of a stream."""

    x: Array
    y: Array

    def text(self, name: str, net: Network) -> list[str]:
        """The C text."""
        T, V = self.y.shape
        ids = self.x.ndim == 1
        real: Callable[[Array], Iterable[str]] = numbers.floats if net.x_type == "float" else numbers.doubles
        x_type = "int32_t" if ids else net.x_type
        x = numbers.array(f"{x_type} test_x", self.x.size, map(str, self.x.tolist()) if ids else real(self.x))
        word = "uint32_t" if net.y_type == "float" else "uint64_t"
        y = self.y.astype(np.float32 if net.y_type == "float" else np.float64)
        bits = y.view(np.uint32 if net.y_type == "float" else np.uint64).reshape(-1).tolist()
        form = "0x{:x}u" if word == "uint32_t" else "UINT64_C(0x{:x})"
        expected = numbers.array(f"{word} test_y", len(bits), map(form.format, bits))
        given = "test_x[t]" if ids else f"test_x + t * {net.parts.input_size}"
        return [
            f"#ifdef {name.upper()}_SELF_TEST",
            *x,
            *expected,
            "",
            f"int {name}_self_test(void)",
            "{",
            f"    static {name}_state state;",
            f"    static union {{ {net.y_type} value[{V}]; {word} bits[{V}]; }} y;",
            "    int t, i;",
            f"    {name}_init(&state);",
            f"    for (t = 0; t < {T}; ++t) {{",
            f"        if (!{name}_step(&state, {given}, y.value))",
            "            return t + 1;",
            f"        for (i = 0; i < {V}; ++i)",
            f"            if (y.bits[i] != test_y[t * {V} + i])",
            "                return t + 1;",
            "    }",
            "    return 0;",
            "}",
            "",
            "#if defined(__STDC_HOSTED__) && __STDC_HOSTED__",
            "#include <stdio.h>",
            "#endif",
            "",
            "int main(void)",
            "{",
            f"    const int step = {name}_self_test();",
            "#if defined(__STDC_HOSTED__) && __STDC_HOSTED__",
            "    if (step)",
            f'        printf("{name}: step %d differs from crnn\'s\\n", step);',
            "    else",
            f'        printf("{name}: {T} steps have the bits of crnn\'s\\n");',
            "#endif",
            "    return step != 0;",
            "}",
            "#endif",
        ]


def self_test_of(net: Network) -> SelfTest:
    """Inputs of every size, and what a stream gives for them."""
    D, rng = net.parts.input_size, np.random.Generator(np.random.PCG64(0))
    stream: Any = Stream(StreamWeights(net.parts))
    numbers_of_step = net.output_size + (1 if net.takes_ids else D)
    T = min(max(MOST_NUMBERS // numbers_of_step, LEAST_STEPS), MOST_STEPS)
    if net.takes_ids:
        x: Array = rng.integers(0, D, T).astype(np.int32)
        return SelfTest(x, np.stack([stream.step(int(id)) for id in x]))
    # Zeros, numbers so small that products with them underflow, and denormal ones, which count as zero.
    sizes = np.array([1, 1, 0, 1, 1e-24, 1, 1e-39, 1])
    x = rng.uniform(-2, 2, (T, D)) * np.resize(sizes, T)[:, None]
    if net.parts.x is not None:
        mean, std = net.parts.x
        x = x * std + mean
    x = x.astype(np.float32 if net.x_type == "float" else np.float64)
    return SelfTest(x, np.stack([stream.step(row) for row in x]))
