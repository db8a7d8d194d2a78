# SPDX-License-Identifier: MIT
"""Fixtures shared by the tests: every instruction set, both precisions, arrays with guards around them, PyTorch."""

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_tools import Guarded
from model_tools import language_model, text

from crnn import cli
from crnn._core import dispatch


def pytest_configure(config: pytest.Config) -> None:
    # Shells and nohup start background jobs with these signals ignored; the processes of the tests would inherit that.
    defaults = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    for name, handler in defaults.items():
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
            signal.signal(getattr(signal, name), handler)
    # pytest-run-parallel's own, known here too so that the tests run without it.
    config.addinivalue_line("markers", "thread_unsafe: switches the instruction set, so runs on one thread")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need PyTorch, and those that choose instruction sets themselves, so that -m selects them."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "torch" in fixtures:
            item.add_marker("torch")
        if "any_isa" in fixtures:  # isa, isas and each_isa use it
            item.add_marker("every_isa")


def pytest_report_header() -> str:
    built, available = (", ".join(isas()) for isas in (dispatch.built_isas, dispatch.available_isas))
    return f"crnn: built for {built}; this CPU runs {available}"


@pytest.fixture
def any_isa() -> Iterator[None]:
    """For tests that switch instruction sets themselves: the one in use comes back."""
    before = dispatch.isa()
    yield
    dispatch.use_isa(before)


# Those that differ in more than the products with quantised weights: avx512, but not avx512_vnni.
ISAS = [isa for isa in dispatch.available_isas() if "_" not in isa]


@pytest.fixture
def isas(any_isa: None) -> list[str]:
    """The instruction sets of this machine, for tests that compare their results."""
    if len(ISAS) < 2:
        pytest.skip("this machine has a single instruction set: nothing to compare")
    return ISAS.copy()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, any_isa: None) -> str:
    """Run the test once on each instruction set that this machine has."""
    dispatch.use_isa(request.param)
    return request.param


@pytest.fixture(params=dispatch.available_isas())
def each_isa(request: pytest.FixtureRequest, any_isa: None) -> str:
    """The same for those that differ in the products with quantised weights only, too."""
    dispatch.use_isa(request.param)
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def arrays(dtype: np.dtype) -> Iterator[Guarded]:
    """Makes arrays of the test's precision; checks in the end that nothing was written outside them."""
    guarded = Guarded(dtype)
    yield guarded
    guarded.check()


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch, on one thread: more threads only get in each other's way at the tests' sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
        torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Standard output and standard error of a command that succeeds, or with ``status`` of one that fails."""

    def command(*arguments: Any, status: int = 0) -> tuple[str, str]:
        found = cli.main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        assert found == status, err
        return out, err

    return command


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(text(1200), encoding="utf-8", newline="")
    return path


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A file of a small language model."""
    path = tmp_path / "m.safetensors"
    language_model("hello, new world!\n", H=19).save(path)
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260)


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keras on PyTorch."""
    pytest.importorskip("torch")
    before = {name: os.environ.get(name) for name in ("KERAS_BACKEND", "KERAS_HOME")}
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own
        module = pytest.importorskip("keras")
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    module.utils.set_random_seed(0)
    return module
