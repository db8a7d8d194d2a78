# SPDX-License-Identifier: MIT
"""Training that is interrupted at random instants loses nothing. ``tests/soak.py --interruptions`` tries many more."""

import os

import numpy as np
import pytest
from interruption_tools import Whole, trial

pytestmark = [
    pytest.mark.thread_unsafe,  # forks
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork, and no such signals"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Whole(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("seed", range(10))
def test_an_interrupted_run_loses_no_model_and_ends_with_the_bits_of_a_whole_one(tmp_path, whole, seed):
    assert trial(whole, tmp_path / "run", np.random.default_rng([7, seed]), times=2) == []
