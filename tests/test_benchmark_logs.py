# SPDX-License-Identifier: MIT
"""benchmarks.logs: the log that it draws, its labels and its drift, and the area under the ROC curve."""

import numpy as np
import pytest

logs = pytest.importorskip("benchmarks.logs", reason="benchmarks are in a clone, not in a wheel")


def test_a_log_is_lines_of_which_about_one_in_a_hundred_is_an_anomaly():
    lines, labels = logs.Log(3).lines(3000, drifted=False)
    assert len(lines) == len(labels) == 3000
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    assert 10 < labels.sum() < 60
    assert lines == logs.Log(3).lines(3000, drifted=False)[0] != logs.Log(4).lines(3000, drifted=False)[0]
    usual = "".join(line for line, anomalous in zip(lines, labels, strict=True) if not anomalous)
    assert "\x00" not in usual
    assert "PANIC" not in usual
    assert "{" not in usual


def test_after_the_drift_hosts_dates_and_a_template_are_new():
    log = logs.Log(5)
    before, after = (log.lines(1500, drifted=drifted)[0] for drifted in (False, True))
    for word, old, new in (("Mar 14", 1500, 0), ("Apr 02", 0, 1500)):
        assert [sum(line.startswith(word) for line in lines) for lines in (before, after)] == [old, new]
    hosts = [{line.split()[3] for line in lines} for lines in (before, after)]
    assert not hosts[0] & hosts[1]
    assert sum("upstream" in line for line in before) == 0
    assert sum("upstream" in line for line in after) > 100


def test_the_area_under_roc_is_the_share_of_pairs_in_the_right_order(rng):
    scores, labels = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.3
    pairs = [(high > low) + (high == low) / 2 for high in scores[labels] for low in scores[~labels]]
    assert logs.area_under_roc(scores.tolist(), labels) == pytest.approx(np.mean(pairs), rel=1e-12)
