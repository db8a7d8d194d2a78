# SPDX-License-Identifier: MIT
"""Fixtures shared by the tests: every instruction set, both precisions, arrays with guards around them."""

from collections.abc import Iterator

import numpy as np
import pytest
from kernel_tools import Guarded

from crnn._core import dispatch


def pytest_configure(config: pytest.Config) -> None:
    # pytest-run-parallel's own, known here too so that the tests run without it.
    config.addinivalue_line("markers", "thread_unsafe: switches the instruction set, so runs on one thread")


def pytest_report_header() -> str:
    built, available = (", ".join(isas()) for isas in (dispatch.built_isas, dispatch.available_isas))
    return f"crnn: built for {built}; this CPU runs {available}"


@pytest.fixture
def any_isa() -> Iterator[None]:
    """For tests that switch instruction sets themselves: the one in use comes back."""
    before = dispatch.isa()
    yield
    dispatch.use_isa(before)


@pytest.fixture
def isas(any_isa: None) -> list[str]:
    """The instruction sets of this machine, for tests that compare their results."""
    available = dispatch.available_isas()
    if len(available) < 2:
        pytest.skip("this machine has a single instruction set: nothing to compare")
    return list(available)


@pytest.fixture(params=dispatch.available_isas())
def isa(request: pytest.FixtureRequest, any_isa: None) -> str:
    """Run the test once on each instruction set that this machine has."""
    dispatch.use_isa(request.param)
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def arrays(dtype: np.dtype) -> Iterator[Guarded]:
    """Makes arrays of the test's precision; checks in the end that nothing was written beside them."""
    guarded = Guarded(dtype)
    yield guarded
    guarded.check()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260)
