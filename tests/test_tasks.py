# SPDX-License-Identifier: MIT
"""What all task models promise: of scaling, copies, validation, checkpoints, and what an error leaves behind."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from task_tools import classifier, everything, labels, reals, regressor, values

# ---- scaling belongs to the model -----------------------------------------------------------------------------------


def test_training_a_copy_leaves_the_model_alone(rng):
    model = regressor()
    X = reals(rng)
    y = values(rng, [(2,)] * len(X))
    model.fit(X, y, epochs=1)
    before = everything(model)
    copy = model.astype("float64")
    assert copy.seed == model.seed
    copy.fit([x * 9 + 5 for x in X], y, epochs=1)
    assert_same_bits(everything(model), before)
    assert copy.scalings["x"].mean[0] != model.scalings["x"].mean[0]


BAD_TRAINING = {
    "epochs": {"epochs": 0},
    "threads": {"threads": -1},
    "unknown": {"nonsense": 1},
    "resume": {"resume": True},
    "no such folder": {"log_file": "/no/such/folder/log.jsonl"},
    "a share that is none": {"valid": 0.01},
}


@pytest.mark.parametrize("options", BAD_TRAINING.values(), ids=BAD_TRAINING)
def test_a_refused_fit_leaves_weights_and_scaling_as_they_were(rng, options):
    model, X, y = classifier(), reals(rng), labels(rng)
    model.fit(X, y, epochs=1)
    before = everything(model)
    with pytest.raises((ValueError, TypeError, OSError)):
        model.fit([x + 100 for x in X], y, **options)
    assert_same_bits(everything(model), before)


def test_training_that_breaks_off_keeps_the_scaling_its_weights_were_made_for(rng):
    model, X = classifier(scale=True), reals(rng)

    def stop(log):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        model.fit(X, labels(rng), epochs=3, on_epoch=stop)
    np.testing.assert_allclose(model.scalings["x"].mean, np.concatenate(X).mean(axis=0))
