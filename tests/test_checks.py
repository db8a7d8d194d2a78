# SPDX-License-Identifier: MIT
"""Checks of arguments: what they accept, what they return, and that every message names the argument."""

import math

import numpy as np
import pytest

from crnn import checks


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (checks.check_size, [1, np.int8(3)], [0, -1, True, 1.0, "1", None]),
        (checks.check_positive, [1, np.int8(3)], [0, -1, True, 1.0, "1", None]),
        (checks.check_seed, [0, 2**70, np.uint64(3)], [-1, True, 1.0, None]),
        (checks.check_flag, [True, False, np.bool_(True)], [1, 0, None, "yes"]),
        (checks.check_probability, [0, 0.5], [1, 1.5, -0.1, math.nan, True, "0.5", None]),
        (checks.check_finite, [0, -1.5], [math.inf, math.nan, "1", None]),
        (checks.check_limit, [0.5, 3], [0, -1, math.nan, "1"]),
        (checks.check_dtype, ["float32", np.float64, "f4"], [None, "float16", int, "x", 3]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_checks_accept_and_name_what_they_refuse(check, good, bad):
    for value in good:
        assert check("a_name", value) in (value, np.dtype(value).name if check is checks.check_dtype else value)
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=r"^a_name: expected .*, got "):
            check("a_name", value)


def test_numpys_numbers_become_pythons():
    assert type(checks.check_size("n", np.int32(3))) is int
    assert type(checks.check_flag("n", np.bool_(True))) is bool
    assert type(checks.check_probability("n", 0)) is float


def test_a_number_in_a_range():
    assert checks.check_number("x", 1, 0.0, 2.0) == 1.0
    with pytest.raises(ValueError, match=r"^x: expected a number of at least 0 and below 2, got 2$"):
        checks.check_number("x", 2, 0.0, 2.0)
    with pytest.raises(ValueError, match=r"^x: expected a number of at least 0, got -1$"):
        checks.check_number("x", -1, 0.0)


def test_no_limit_is_none():
    assert checks.check_limit("x", None) is None
