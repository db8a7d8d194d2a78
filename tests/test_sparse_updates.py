# SPDX-License-Identifier: MIT
"""Updates that leave out the rows that no id selects: bit-identical to those of all rows, or not done."""

import numpy as np
import pytest
from model_tools import language_model

import crnn
from crnn._core import optim as kernels
from crnn.training import sparse
from crnn.training.config import TrainingConfig
from crnn.training.sparse import SelectedRows

pytestmark = pytest.mark.thread_unsafe  # the instruction set, and what is left out, are the process's

VOCAB = crnn.Vocab(tuple(f"w{i}" for i in range(157)), unit="word")
IDS = np.random.default_rng(3).integers(0, len(VOCAB), 400)


def trained(threads, of_model, of_fit):
    model = crnn.LanguageModel(VOCAB, "lstm", 11, 2, seed=4, **of_model)
    settings = {"epochs": 2, "batch_size": 3, "bptt": 9, "optimizer": crnn.optim.SGD(lr=2.0), "log_every": 1}
    log = crnn.fit(model, IDS, threads=threads, **(settings | of_fit))
    return model.flat_params.tobytes(), log.column("grad_norm"), log.column("train_loss")


CASES = {
    "embedding": ({"embedding_size": 21}, {}),
    "one-hot": ({}, {}),
    "float64": ({"embedding_size": 9, "dtype": "float64"}, {}),
    "clipped": ({"embedding_size": 5}, {"clip_norm": 0.1}),
    "bf16": ({"embedding_size": 32}, {"precision": "bf16"}),
    "schedule, validation": ({"embedding_size": 21}, {"schedule": crnn.optim.linear(0.5), "valid": IDS[:50]}),
    "some windows have more ids than there are rows": ({"embedding_size": 21}, {"bptt": 60, "epochs": 3}),
    "dropout": ({"embedding_size": 21, "dropout": 0.3}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_updates_of_selected_rows_have_the_bits_of_all(each_isa, monkeypatch, name):
    expected = trained(1, *CASES[name])
    monkeypatch.setattr(sparse, "LEAST", 0)
    calls = []
    take = SelectedRows.take
    monkeypatch.setattr(SelectedRows, "take", lambda self, ids: calls.append(len(ids)) or take(self, ids))
    for threads in 1, 3:
        assert trained(threads, *CASES[name]) == expected
    assert calls


@pytest.mark.parametrize(
    ("before", "rows", "width", "after"), [(0, 9000, 200, 77), (13, 70_001, 17, 600_003), (5, 40, 3, 0)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_norm_of_selected_rows_is_summed_in_the_order_of_all(isa, dtype, before, rows, width, after, threads):
    rng = np.random.default_rng(1)
    grads = np.zeros(before + rows * width + after, dtype)
    ids = rng.integers(0, rows, 30)
    grads[:before], grads[before + rows * width :] = rng.standard_normal(before), rng.standard_normal(after)
    grads[before : before + rows * width].reshape(rows, width)[ids] = rng.standard_normal((30, width))
    selected = SelectedRows(crnn.optim.SGD(), before, rows, width)
    selected.take(ids)
    assert selected.sum_of_squares(grads, threads) == kernels.sum_of_squares(grads)
    expected = grads.copy()
    selected.clear(grads, threads)
    assert not grads.any()
    assert expected.any()


def test_only_plain_sgd_leaves_rows_out(monkeypatch):
    monkeypatch.setattr(sparse, "LEAST", 0)
    model = crnn.LanguageModel(VOCAB, "gru", 5, embedding_size=5)

    def applies(model=model, optimizer=None, **options):
        return SelectedRows.of(model, optimizer or crnn.optim.SGD(), TrainingConfig(**options)) is not None

    class Own(crnn.LanguageModel):
        def loss_and_gradients(self, *args, **options):
            found = super().loss_and_gradients(*args, **options)
            self.flat_grads += 1e-3 * self.flat_params
            return found

    changed = crnn.optim.SGD()
    changed.update = changed.update
    assert applies()
    assert not applies(optimizer=changed)
    assert not applies(optimizer=crnn.optim.SGD(momentum=0.9))
    assert not applies(optimizer=crnn.optim.SGD(weight_decay=0.1))
    assert not applies(optimizer=crnn.optim.Adam())
    assert not applies(clip_value=1.0)
    assert not applies(on_update=print)
    assert not applies(model=Own(VOCAB, "gru", 5))
    assert not applies(model=crnn.LanguageModel(VOCAB, "gru", 5, tie_weights=True))
    monkeypatch.undo()
    assert not applies(model=language_model())


def test_denormal_weights_are_flushed_as_by_an_update_of_all(monkeypatch):
    """Also in rows that nothing selects: the first update is one of all rows."""
    found = []
    for least in 1 << 60, 0:
        monkeypatch.setattr(sparse, "LEAST", least)
        model = crnn.LanguageModel(VOCAB, "gru", 5, embedding_size=5)
        model.params["embedding"][7] = np.float32(1e-40)
        crnn.fit(model, np.arange(8, 30), epochs=1, batch_size=1, bptt=5, optimizer=crnn.optim.SGD(lr=0.1))
        found.append(model.flat_params.tobytes())
        assert not model.params["embedding"][7].any()
    assert found[0] == found[1]
