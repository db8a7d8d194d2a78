# SPDX-License-Identifier: MIT
"""The choice of instruction set: visible, and refused where it cannot be had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import crnn
from crnn._core import dispatch


def test_generic_is_always_there_and_the_best_comes_last():
    available = dispatch.available_isas()
    assert available[0] == "generic"
    assert set(available) <= set(dispatch.built_isas())
    assert len(set(available)) == len(available)
    assert dispatch.isa() in available


@pytest.mark.thread_unsafe
@pytest.mark.usefixtures("any_isa")
def test_use_isa_switches():
    for name in dispatch.available_isas():
        dispatch.use_isa(name)
        assert dispatch.isa() == name


@pytest.mark.parametrize("name", ["nonsense", "", "AVX2", "generic "])
def test_an_unknown_one_is_refused_and_nothing_changes(name):
    before = dispatch.isa()
    with pytest.raises(ValueError, match=rf"expected one of generic.*, got '{name}'"):
        dispatch.use_isa(name)
    assert dispatch.isa() == before


def test_one_that_is_built_but_that_the_cpu_lacks_says_so():
    missing = set(dispatch.built_isas()) - set(dispatch.available_isas())
    if not missing:
        pytest.skip("this CPU runs everything that is built")
    with pytest.raises(ValueError, match="built in, but this CPU does not run it"):
        dispatch.use_isa(missing.pop())


def run_with(choice: str | None, code: str = "from crnn._core import dispatch; print(dispatch.isa())"):
    env = {name: value for name, value in os.environ.items() if name != "CRNN_ISA"}
    env["PYTHONPATH"] = str(Path(crnn.__file__).parents[1])
    if choice is not None:
        env["CRNN_ISA"] = choice
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("choice", dispatch.available_isas())
def test_the_environment_chooses(choice):
    assert run_with(choice).stdout.strip() == choice


@pytest.mark.parametrize("choice", [None, ""])
def test_the_best_is_used_where_the_environment_does_not_choose(choice):
    available = list(dispatch.available_isas())
    if "avx512_bf16" in available:
        if sys.platform != "linux":
            pytest.skip("whether this is an Intel CPU is not known")
        if "GenuineIntel" in Path("/proc/cpuinfo").read_text("utf-8"):
            available.remove("avx512_bf16")  # slower there
    assert run_with(choice).stdout.strip() == available[-1]


def test_a_wrong_choice_in_the_environment_is_an_import_error_that_names_the_right_ones():
    result = run_with("nonsense", "import crnn._core.dispatch")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: CRNN_ISA in the environment: ")
    assert last.endswith(f"expected one of {', '.join(dispatch.available_isas())}, got 'nonsense'")
