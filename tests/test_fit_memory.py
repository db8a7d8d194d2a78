# SPDX-License-Identifier: MIT
"""What ``fit`` of a large language model keeps: each copy of its weights is one more time their memory."""

import pickle
import tracemalloc

import numpy as np
import pytest
from kernel_tools import assert_same_bits

import crnn
from crnn.models.fitting import starting_weights
from crnn.models.outputs import blocks, panels

VOCAB = crnn.Vocab(tuple(map(str, range(4000))), unit="word")
IDS = np.random.default_rng(0).integers(0, len(VOCAB), 1300)
OPTIONS = {"epochs": 2, "batch_size": 8, "bptt": 20, "progress": False}


def new_model(**options):
    return crnn.LanguageModel(VOCAB, "lstm", 32, embedding_size=32, **{"seed": 3} | options)


@pytest.fixture
def large(monkeypatch):
    """Weights of this size are large, and so are the outputs of a window."""
    monkeypatch.setattr(starting_weights, "LARGE", 1 << 16)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(blocks, "LEAST_ROWS", 16)
    monkeypatch.setattr(panels, "PANEL_BYTES", 1 << 14)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("optimizer", "arrays"), [("sgd", 0), ("adam", 2)])
def test_fit_keeps_the_arrays_of_the_optimizer_and_the_best_weights_alone(optimizer, arrays):
    """Besides the weights and gradients of the model: neither packed weights nor those that it began from."""
    model = new_model()
    size, block = model.flat_params.nbytes, 64 * len(VOCAB) * 4
    held = []

    def on_update(progress):
        held.append(tracemalloc.get_traced_memory()[0])

    model.fit(IDS[:400], valid=IDS[:200], optimizer=optimizer, **OPTIONS)
    fresh = new_model()
    tracemalloc.start()
    fresh.fit(IDS, valid=IDS[:600], optimizer=optimizer, on_update=on_update, **OPTIONS)
    after_last, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) > 10
    assert max(held) < (arrays + 1) * size + block + size / 2
    assert after_last < size / 2  # nothing is left but the log


@pytest.mark.usefixtures("large")
def test_weights_that_can_be_drawn_again_are_drawn_for_the_second_fit():
    model = new_model()
    start = model.flat_params.copy()
    first = model.fit(IDS, **OPTIONS).flat_params.copy()
    assert not isinstance(model._starting.snapshot.weights, np.ndarray)
    model = pickle.loads(pickle.dumps(model))
    assert_same_bits(model.flat_params, first)
    assert_same_bits(model.fit(IDS, **OPTIONS).flat_params, first)
    with pytest.raises(ValueError, match="optimizer"):
        model.fit(IDS, optimizer="none", **OPTIONS)
    assert_same_bits(model.flat_params, first)
    model.fit(IDS, warm_start=True, **OPTIONS)
    assert not np.array_equal(model.flat_params, first)
    assert_same_bits(model._starting.snapshot.weights.weights(), start)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("change", [1e-3, np.nextafter(np.float32(0), 1)])
def test_weights_that_the_user_has_changed_are_kept(change):
    model, other = new_model(), new_model()
    for each in model, other:
        each.params["b_y"][7] += np.float32(change)
    first = model.fit(IDS, **OPTIONS).flat_params.copy()
    assert isinstance(model._starting.snapshot.weights, np.ndarray)
    assert_same_bits(model.fit(IDS, **OPTIONS).flat_params, first)
    assert_same_bits(other.fit(IDS, **OPTIONS).flat_params, first)


@pytest.mark.usefixtures("large")
def test_a_fit_that_is_refused_before_its_first_update_leaves_drawn_weights():
    model = new_model()
    start = model.flat_params.copy()

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="valid"):
        model.fit(IDS, valid=IDS[:1], **OPTIONS)
    assert_same_bits(model.flat_params, start)
    with pytest.raises(KeyboardInterrupt):
        model.fit(IDS, on_update=interrupt, **OPTIONS)
    left = model.flat_params.copy()
    assert not np.array_equal(left, start)
    assert_same_bits(model.fit(IDS, **OPTIONS).flat_params, new_model().fit(IDS, **OPTIONS).flat_params)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("options", [{}, {"tie_weights": True}, {"adaptive_softmax": [500, 1500]}])
def test_the_memory_of_a_block_is_freed_while_the_model_is_evaluated(options):
    """And training continues as if the model had not been evaluated."""
    counts = {token: 1 + number for number, token in enumerate(VOCAB.tokens)}
    vocab = crnn.Vocab.from_counts(counts, "word", order="frequency")
    made = [crnn.LanguageModel(vocab, "gru", 16, embedding_size=16, **options) for _ in range(2)]
    made[0].fit(IDS, valid=IDS[:300], **OPTIONS | {"epochs": 1})
    made[1].fit(IDS, **OPTIONS | {"epochs": 1})
    assert_same_bits(made[0].flat_params, made[1].flat_params)
    space = made[0].workspace()
    x, y = IDS[:320].reshape(20, 16), IDS[1:321].reshape(20, 16)
    first = made[0].loss_and_gradients(x, y, workspace=space)[0]
    assert space.head is not None
    space.release_block()
    assert space.head is None
    assert made[0].loss_and_gradients(x, y, workspace=space)[0] == first
