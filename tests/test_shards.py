# SPDX-License-Identifier: MIT
"""Batches that are cut into shards: the gradient is that of the whole batch; one number of shards gives one hash."""

import itertools

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import text
from rank_tools import CORPUS, KINDS, BufferComm, ThreadComm, fitted, on_ranks, weights_hash
from task_tools import CELLS

import crnn
from crnn._core import optim as kernels
from crnn.nn.state import state_arrays
from crnn.text.windows import contiguous_batches
from crnn.training import sparse
from crnn.training.shards import complete_nodes, sharded
from crnn.training.sparse import SelectedSums

# Of the weights of `fitted` in 3 shards. They change for the reasons that change those of test_bits.py, and no others.
PINNED = {
    "language": "5284e28225f610830cbad072506e5b2314fadb210fa06c0734db4d2ea5fe86ab",
    "tags": "0ebac2ee239e74fbe7db771ca3ede13e99ca4660f3078087419741eb526e8518",
    "sequences": "d75883c8da3821e166bd61dc946ab52af72bcb47168e53460405194d9fa2c926",
}
kinds = pytest.mark.parametrize("kind", KINDS)


# ---- the gradient --------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_training_in_shards_is_training_on_whole_batches_up_to_rounding(kind, reduction):
    """Of every kind of model, with weights of samples and classes, missing targets, and a last batch of few rows."""
    options = {"dtype": "float64", "dropout": 0.0, "reduction": reduction, "lr": 0.02}
    whole = fitted(kind, **options)
    for shards in 1, 3, 4:
        cut = fitted(kind, **options, shards=shards)
        np.testing.assert_allclose(cut.flat_params, whole.flat_params, rtol=1e-9, atol=1e-12)
        losses = [model.log.column("train_loss") for model in (cut, whole)]
        np.testing.assert_allclose(*losses, rtol=1e-9)
        assert cut.log.column("tokens", "train") == whole.log.column("tokens", "train")


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_the_gradient_of_a_window_is_the_sum_over_its_shards(shards):
    model = crnn.LanguageModel(CORPUS.vocab, "lstm", 7, 2, dtype="float64", trainable_initial_state=True, seed=3)
    windows = contiguous_batches(CORPUS.train, 5, 8)
    (x, targets), state = next(windows.epoch(1)), None
    cut, gradients = sharded(model, windows, shards)
    pieces = next(cut.epoch(1))
    for _ in range(2):  # from the initial state, and from the state after the window
        model.flat_grads[...] = 0
        loss, count, after = model.loss_and_gradients(x, targets, state)
        whole = model.flat_grads.copy()
        model.flat_grads[...] = 0
        found = gradients.loss_and_gradients(*pieces, state)
        assert found[0] == pytest.approx(loss, rel=1e-12)
        assert found[1] == count
        np.testing.assert_allclose(model.flat_grads, whole, rtol=1e-9, atol=1e-14)
        for mine, other in zip(found[2], after, strict=True):
            assert_same_bits(mine, other)
        state = after


def test_shards_are_contiguous_columns_of_the_windows():
    windows = contiguous_batches(np.arange(100), 7, 6)
    for (x, y), (xs, ys) in zip(windows.epoch(1), windows.sharded(3, 0, 3).epoch(1), strict=True):
        assert [piece.shape[1] for piece in xs] == [2, 2, 3]
        assert_same_bits(np.concatenate(xs, axis=1), x)
        assert_same_bits(np.concatenate(ys, axis=1), y)
    for (x, _), (xs, _) in zip(windows.epoch(1), windows.sharded(3, 1, 2).epoch(1), strict=True):
        assert len(xs) == 1
        assert_same_bits(np.ascontiguousarray(xs[0]), x[:, 2:4].copy())


@pytest.mark.parametrize("shards", [1, 3, 8, 11])
def test_nodes_of_neighbouring_ranges_are_a_cover_of_the_tree(shards):
    """The sums of two ranges can be added to that of both without splitting one."""

    def halves(node):
        middle = sum(node) // 2
        return [node] if node[1] - node[0] == 1 else [node, *halves((node[0], middle)), *halves((middle, node[1]))]

    tree = set(halves((0, shards)))
    for first in range(shards):
        for stop in range(first + 1, shards + 1):
            nodes = complete_nodes(shards, first, stop)
            assert set(nodes) <= tree
            assert [shard for node in nodes for shard in range(*node)] == [*range(first, stop)]


CELL_OPTIONS = {
    "plain": {"hidden_size": [7, 9]},
    "dropout": {"hidden_size": 9, "num_layers": 2, "dropout": 0.2, "trainable_initial_state": True},
    "all rows alike": {"hidden_size": 9, "num_layers": 2, "dropout": 0.2, "variational_dropout": True},
    "recurrent dropout": {"hidden_size": 7, "recurrent_dropout": 0.2},
    "embedding": {"hidden_size": [7, 9], "embedding_size": 9, "tie_weights": True, "batch_size": 31},
    "embedding of few rows": {"hidden_size": 9, "num_layers": 2, "embedding_size": 4, "batch_size": 3, "dropout": 0.1},
    "penalties": {
        "hidden_size": [9, 7], "dropout": 0.1, "output_dropout": 0.3, "label_smoothing": 0.1,
        "activation_penalty": 2.0, "temporal_penalty": 1.0,
    },
    "weight dropout": {"hidden_size": 7, "weight_dropout": 0.2},
    "dense": {"hidden_size": [7, 9, 5], "dense_layers": True, "dropout": 0.1, "output_dropout": 0.3},
    "bf16": {"hidden_size": 9, "num_layers": 2, "precision": "bf16"},
}


@pytest.mark.parametrize("options", CELL_OPTIONS.values(), ids=CELL_OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_passes_for_all_shards_at_once_give_the_bits_of_one_for_each(cell, options):
    """A language model has both: what `window_in_shards` returns, or `loss_and_gradients` for each shard."""
    network = {name: value for name, value in options.items() if name not in ("precision", "batch_size")}
    if cell == "min_gru":
        for name in "recurrent_dropout", "weight_dropout":
            network.pop(name, None)
    windows = contiguous_batches(CORPUS.train, options.get("batch_size", 5), 6)
    found = []
    for at_once in True, False:
        model = crnn.LanguageModel(CORPUS.vocab, cell, seed=3, **network)
        if not at_once:
            model.window_in_shards = lambda *arguments, **others: None
        cut, gradients = sharded(model, windows, 3)
        state, of_model = None, []
        for number, pieces in enumerate(itertools.islice(cut.epoch(1), 3)):
            model.flat_grads[...] = 0
            seeds = {"dropout_seed": [1, number], "threads": 2, "precision": options.get("precision")}
            loss, count, state = gradients.loss_and_gradients(*pieces, state, workspace=model.workspace(), **seeds)
            of_model += [np.array([loss, count]), model.flat_grads.copy()]
        found.append([*of_model, *(array.copy() for array in state_arrays(state))])
    for one, other in zip(*found, strict=True):
        assert_same_bits(one, other)


def test_a_window_of_a_language_model_is_computed_at_once():
    """Otherwise the test above compares the same with the same."""
    model = crnn.LanguageModel(CORPUS.vocab, hidden_size=5, embedding_size=4, dropout=0.1)
    xs, targets = next(contiguous_batches(CORPUS.train, 31, 6).sharded(3, 0, 3).epoch(1))
    assert model.window_in_shards(xs, targets, None, seeds=[[0]] * 3).gradients(1)[1] == 60
    model = crnn.LanguageModel(CORPUS.vocab, hidden_size=5, weight_dropout=0.1)
    assert model.window_in_shards(xs, targets, None, seeds=[[0]] * 3) is None


@pytest.mark.parametrize("embedding", [None, 3])
def test_rows_that_no_id_selects_are_left_out_of_sums_without_another_bit(embedding, monkeypatch):
    """Of one-hot ids and of an embedding, in models whose matrix has more rows than a shard has ids."""
    ids = np.random.default_rng(2).integers(200, size=700)
    vocab = crnn.Vocab([chr(300 + number) for number in range(200)])
    found = []
    for least in 1, 1 << 40:
        monkeypatch.setattr("crnn.training.sparse.LEAST_SUMMED", least)
        of = SelectedSums(crnn.LanguageModel(vocab, hidden_size=5, embedding_size=embedding)).selected(ids[:20])
        assert (of is None) == (least > 1)
        runs = []
        for comm in None, BufferComm, ThreadComm:

            def fit(comm=None):
                model = crnn.LanguageModel(vocab, hidden_size=5, num_layers=2, embedding_size=embedding, seed=3)
                return model.fit(ids, batch_size=8, bptt=3, shards=5, epochs=2, lr=0.1, comm=comm, progress=False)

            runs += [fit()] if comm is None else on_ranks(3, fit, comm)
        found += [run.flat_params for run in runs]
    for other in found[1:]:
        assert_same_bits(other, found[0])


def test_sums_of_selected_rows_are_those_of_all():
    class Model:
        def _selected_by_ids(self):
            return 3, sparse.LEAST_SUMMED // 4, 4

    sums, draws = SelectedSums(Model()), np.random.default_rng(2)
    n = sparse.LEAST_SUMMED + 8
    one, other = np.zeros((2, n), np.float32)
    ids = [np.array([0, 7, 100]), np.array([7, 9, 101])]
    for flat, rows in (one, ids[0]), (other, ids[1]):
        flat[:3], flat[-5:] = draws.normal(size=3), draws.normal(size=5)
        flat[3:-5].reshape(-1, 4)[rows] = draws.normal(size=(3, 4))
    expected, copy = one + other, np.zeros_like(one)
    first = one.copy()
    sums.move(one, ids[0], copy)
    assert_same_bits(copy, first)
    assert not one.any()
    one[...] = other
    (both,) = sums.add(one, ids[1], [(copy, ids[0])], last=True)
    assert both.tolist() == [0, 7, 9, 100, 101]
    for found in one, copy:
        assert_same_bits(found, expected)
    sums.scale(one, both, 0.3, 1)
    kernels.scale(expected, 0.3)
    assert_same_bits(one, expected)
    sums.clear_rows(copy, both)
    assert not copy[3:-5].any()
    assert copy[:3].any()
    third = np.zeros_like(other)
    assert len(sums.add(other, ids[1], [(copy, ids[0]), (third, ids[0])], last=False)) == 2
    assert not other.any()
    assert_same_bits(third, copy)
    assert sums.selected(np.zeros((2, sums._rows), np.int32)) is None


# ---- one hash --------------------------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("kind", PINNED)
def test_shards_give_the_pinned_bits(each_isa, kind):
    assert weights_hash(fitted(kind, shards=3)) == PINNED[kind]
    assert weights_hash(fitted(kind, shards=3, threads=3)) == PINNED[kind]


@kinds
def test_the_number_of_threads_changes_no_bit(kind):
    assert_same_bits(*(fitted(kind, shards=4, threads=threads).flat_params for threads in (1, 2)))


def test_bits_depend_on_the_number_of_shards_only_by_rounding_and_masks():
    hashes = {weights_hash(fitted("language", dropout=0.0, shards=shards)) for shards in (2, 3, 4)}
    assert len(hashes) == 3


def test_shards_have_different_dropout_masks():
    """Equal sequences in four shards have four losses."""
    x = np.tile(np.linspace(0.1, 1, 5)[:, None], (4, 1, 1))
    model = crnn.SequenceRegressor(1, 1, hidden_size=5, num_layers=2, dropout=0.5, scale=False, seed=1)
    data = model.data(x, np.ones(4))
    cut, gradients = sharded(model, model.windows(data, 4, 1), 4)
    xs, ys = next(cut.epoch(1))
    losses = [model.loss_and_gradients(xs[i], ys[i], dropout_seed=[0, 7, i])[0] for i in range(4)]
    assert len(set(losses)) == 4
    assert gradients.loss_and_gradients(xs, ys, dropout_seed=[0, 7])[0] == pytest.approx(sum(losses), rel=1e-6)


def test_bf16_in_shards_does_not_depend_on_threads():
    hashes = {weights_hash(fitted("language", shards=4, precision="bf16", threads=threads)) for threads in (1, 2)}
    assert len(hashes) == 1
    assert hashes != {weights_hash(fitted("language", shards=4))}


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["language", "tied", "classes"])
def test_a_run_that_is_stopped_within_an_epoch_and_resumed_gives_the_same_bits(kind, tmp_path):
    file = tmp_path / "c"
    whole = fitted(kind, shards=3)
    fitted(kind, shards=3, checkpoint=file, on_update=lambda progress: progress.update == 4)
    resumed = fitted(kind, shards=3, checkpoint=file, resume=True)
    assert_same_bits(resumed.flat_params, whole.flat_params)


def test_a_run_is_not_resumed_with_another_number_of_shards(tmp_path):
    file = tmp_path / "c"
    fitted("language", shards=3, checkpoint=file)
    for shards in None, 4:
        with pytest.raises(crnn.ModelFileError, match=f"shards: expected 3, as in .*, got {shards}"):
            fitted("language", shards=shards, checkpoint=file, resume=True, epochs=3)


def test_the_record_of_a_run_has_its_shards_and_others_have_none():
    assert fitted("values", shards=2).training_runs[-1]["settings"]["shards"] == 2
    assert "shards" not in fitted("values").training_runs[-1]["settings"]


def test_more_shards_than_rows_are_refused():
    with pytest.raises(ValueError, match="shards: expected at most 4, the rows of a batch, got 5"):
        fitted("language", shards=5)
    with pytest.raises(ValueError, match="shards: expected at most 11, the rows of a batch, got 12"):
        fitted("classes", shards=12, batch_size=32)
    with pytest.raises(ValueError, match="shards: expected an integer of at least 1, got 0"):
        fitted("language", shards=0)


def test_a_model_whose_windows_cannot_be_cut_is_refused():
    class Whole(crnn.LanguageModel):
        def windows(self, ids, batch_size, bptt):
            windows = contiguous_batches(ids, batch_size, bptt)

            class Uncut:
                carries_state = True
                epoch = windows.epoch

                def __len__(self):
                    return len(windows)

            return Uncut()

    model = Whole(CORPUS.vocab, hidden_size=5)
    model.fit(CORPUS, max_updates=1)
    with pytest.raises(ValueError, match=r"shards: expected None, or a model whose windows can be cut, .* got Uncut"):
        model.fit(CORPUS, shards=2)


def test_gradients_that_an_object_computes_in_another_way_are_those_of_its_shards():
    model = crnn.LanguageModel(CORPUS.vocab, hidden_size=5)
    rows, original = [], model.loss_and_gradients

    def recorded(ids, *arguments, **options):
        rows.append(ids.shape[1])
        return original(ids, *arguments, **options)

    model.loss_and_gradients = recorded
    model.fit(CORPUS, shards=2, batch_size=6, max_updates=2)
    assert rows == [3, 3, 3, 3]


def test_crnn_train_has_shards(run, tmp_path):
    (tmp_path / "t.txt").write_text(text(900))
    options = ["--hidden", 7, "--epochs", 1, "--batch", 6, "--seed", 3, "-q"]
    hashes = []
    for name, more in ("a", ["--shards", 4]), ("b", ["--shards", 4, "--threads", 3]), ("c", []):
        run("train", tmp_path / "t.txt", "-o", tmp_path / name, *options, *more)
        hashes.append(weights_hash(crnn.load(tmp_path / name)))
    assert hashes[0] == hashes[1] != hashes[2]


def test_windows_without_a_batch_size_are_refused_too():
    class Whole(crnn.LanguageModel):
        def windows(self, ids, batch_size, bptt):
            windows = contiguous_batches(ids, batch_size, bptt)
            del windows.batch_size
            return windows

    with pytest.raises(ValueError, match=r"shards: expected None, or .* batch_size, got BPTTWindows without it"):
        Whole(CORPUS.vocab, hidden_size=5).fit(CORPUS, shards=2, max_updates=1)
