# SPDX-License-Identifier: MIT
"""Sequences before a model sees them: scaling, batches, what is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from kernel_tools import assert_same_bits

from crnn._core import dispatch
from crnn.models.inputs.standardizer import Standardizer

# ---- scaling -------------------------------------------------------------------------------------------------------


def learned(*arrays):
    scaling = Standardizer(arrays[0].shape[1])
    scaling.learn("X", arrays)
    return scaling


def test_scaling_is_by_mean_and_deviation_of_all_steps(rng):
    arrays = [rng.normal([3, -50, 1e-6], [0.1, 20, 1e-7], size=(n, 3)) for n in (4, 1, 9)]
    together = np.concatenate(arrays)
    scaling = learned(*arrays)
    np.testing.assert_allclose(scaling.mean, together.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaling.std, together.std(axis=0), rtol=1e-9)
    scaled = scaling.apply(together, "float64")
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-9)
    np.testing.assert_allclose(scaling.undo(scaled), together, rtol=1e-12)


def test_what_is_unknown_counts_for_nothing(rng):
    values = rng.normal(5, 2, size=(9, 2))
    holes = values.copy()
    holes[[1, 4], 0] = np.nan
    holes[:, 1] = np.nan
    scaling = learned(holes[:5], holes[5:])
    known = np.delete(values[:, 0], [1, 4])
    np.testing.assert_allclose(scaling.mean, [known.mean(), 0], rtol=1e-12)
    np.testing.assert_allclose(scaling.std, [known.std(), 1], rtol=1e-12)
    assert np.isnan(scaling.apply(holes, "float32")[[1, 4], 0]).all()


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e150, 1e150), st.integers(1, 200))
def test_a_column_that_never_changes_is_only_shifted(value, n):
    """Though the mean of n times 0.1 is, in floating point, not always 0.1."""
    column = np.full((n, 2), value)
    column[0, 1] = np.nan
    scaling = learned(column, column)
    assert_same_bits(scaling.std, np.ones(2))
    assert not scaling.apply(column[1:], "float32").any()


@pytest.mark.thread_unsafe
def test_scaling_has_the_same_bits_on_every_instruction_set(rng, isas):
    arrays = [rng.normal(size=(n, 7)) for n in (5, 33, 1)]
    results = []
    for isa in isas:
        dispatch.use_isa(isa)
        scaling = learned(*arrays)
        results.append(np.stack([scaling.mean, scaling.std]))
    for result in results:
        assert_same_bits(result, results[0])


def test_numbers_too_large_to_scale_are_refused_and_change_nothing():
    scaling = learned(np.array([[1.0], [3.0]]))
    with pytest.raises(ValueError, match=r"X: expected numbers whose variance float64 can hold, got 1e\+200"):
        scaling.learn("X", [np.array([[-1e200], [1.0]])])
    assert (scaling.mean, scaling.std) == (2, 1)
