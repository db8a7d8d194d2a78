# SPDX-License-Identifier: MIT
"""Copies and pickles of networks, models and streams: by values, through the file format, into other processes too."""

import copy
import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from stream_tools import CELLS, language_model, net_of, sequence, stepwise, whole

import crnn
from crnn import ModelFileError
from crnn.models.files import from_bytes, to_bytes

MODELS = {
    "network": lambda: net_of("gru", 5, [7, 9], bidirectional=True, dropout=0.25),
    "float64": lambda: net_of("lstm", dtype="float64", trainable_initial_state=True),
    "language model": lambda: language_model("lstm", embedding_size=21, tie_weights=True),
    "classifier": lambda: crnn.SequenceClassifier(3, classes=["a", "b"], pooling="mean", seed=4),
    "tagger": lambda: crnn.SequenceTagger(3, 2, multilabel=True, seed=4),
    "regressor": lambda: crnn.SequenceRegressor(3, 2, loss="quantile", seed=4),
    "translator": lambda: crnn.SequenceToSequence(3, 4, seed=4),
}
WAYS = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "old pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "bytes": lambda model: from_bytes(to_bytes(model)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_has_the_values_and_shares_none(kind, way):
    model = MODELS[kind]()
    for scaling in getattr(model, "scalings", {}).values():
        scaling.mean += 0.5
    other = WAYS[way](model)
    assert repr(other) == repr(model)
    (mine, header), (theirs, other_header) = model.contents(), other.contents()
    assert header == other_header
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert_same_bits(mine[name], theirs[name])
        assert not np.shares_memory(mine[name], theirs[name])
    other.params["layer0.b_h" if hasattr(other, "hidden_sizes") else next(iter(other.params))][...] = 9
    assert np.shares_memory(other.flat_params, next(iter(other.params.values())))
    assert 9 in other.flat_params
    assert 9 not in model.flat_params
    if way != "bytes":
        assert getattr(other, "seed", None) == getattr(model, "seed", None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_diverged_model_is_not_copied(kind, way):
    model = MODELS[kind]()
    name = list(model.params)[-1]
    model.params[name][-1] = np.nan
    with pytest.raises(ValueError, match=f"^{name}: expected finite values, got NaN or infinity$"):
        WAYS[way](model)


class OwnNetwork(crnn.RNN):
    """A class that no file can name."""


def test_a_class_of_ones_own_is_pickled_by_its_name_but_not_saved(tmp_path):
    net = OwnNetwork(3, 4)
    stream = net.stream()
    assert stream.step(1).shape == (4,)
    other = pickle.loads(pickle.dumps(net))  # a pickle finds the class, crnn.load does not
    assert type(other) is OwnNetwork
    assert_same_bits(other.flat_params, net.flat_params)
    for refused in (net.save, crnn.models.files.to_bytes):
        with pytest.raises(TypeError, match=r"model: expected one of .*LanguageModel.*, got OwnNetwork"):
            refused(tmp_path / "m.safetensors") if refused == net.save else refused(net)
    assert_same_bits(pickle.loads(pickle.dumps(stream)).step(2), stream.step(2))  # by their values


def test_bytes_are_those_of_the_file(tmp_path):
    model = language_model("gru")
    model.save(tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == to_bytes(model)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95" * 100, b"\xff" * 64, to_bytes(net_of("gru"))[:-1]])
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(ModelFileError, match="content: expected a safetensors file written by crnn"):
        from_bytes(content)


@pytest.mark.parametrize("content", [None, "text", 3])
def test_what_is_no_bytes_is_refused(content):
    with pytest.raises(TypeError, match="content: expected bytes, got"):
        from_bytes(content)


# ---- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_copied_stream_goes_on_from_where_it_stands(rng, cell, way):
    net, xs = net_of(cell, 5, [7, 9]), sequence(rng, 12, 5)
    stream = net.stream()
    stepwise(stream, xs[:5])
    other = WAYS[way](stream)
    for _ in range(2):
        assert_same_bits(stepwise(stream, xs[5:]), whole(net, xs)[5:])
        stream = other


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("E", [None, 9, 33])
@pytest.mark.parametrize("cell", CELLS)
def test_a_pickle_holds_the_weights_bit_for_bit(cell, dtype, E):
    """Unpacked and packed again: at, under and over the width of a panel, and transposed."""
    model = language_model(
        cell, hidden_size=[16, 33], embedding_size=E, tie_weights=E == 33, trainable_initial_state=True, dtype=dtype
    )
    stream = model.stream()
    weights = pickle.loads(pickle.dumps(stream)).weights
    assert weights is not stream.weights
    assert weights.dtype == dtype
    assert repr(weights) == repr(stream.weights)
    ids = [3, 1, 4, 1, 5]
    assert_same_bits(crnn.Stream(weights).run(ids), crnn.Stream(stream.weights).run(ids))
    again = weights.__reduce__()[1][0]
    assert weights.holds(again)
    assert stream.weights.holds(again)
    again.layers[1]["W_hh" if "W_hh" in again.layers[1] else "W_xh"][15, 5] += 1
    assert not weights.holds(again)


def test_a_regressors_statistics_are_in_its_streams_pickle(rng):
    model = crnn.SequenceRegressor(3, 2, loss="quantile", pooling=None, seed=4)
    X = [rng.normal(7, 3, (9, 3)).astype("f4") for _ in range(4)]
    model.fit(X, [x[:, :2] * 5 for x in X], epochs=1)
    stream = model.stream()
    other = pickle.loads(pickle.dumps(stream))
    assert_same_bits(other.run(X[0]), stream.run(X[0]))


def test_streams_in_one_pickle_share_one_copy_of_the_weights(rng):
    net, xs = net_of("lstm", 16, 64), sequence(rng, 8, 16)
    streams = [net.stream() for _ in range(20)]
    for number, stream in enumerate(streams):
        stepwise(stream, xs[: number % 8 + 1])
    alone, together = pickle.dumps(streams[0]), pickle.dumps([streams, net.stream_batch(2)])
    assert len(together) < len(alone) + 20 * 2 * 64 * 4 * 2
    others, batch = pickle.loads(together)
    assert len({id(stream.weights) for stream in others}) == 1
    assert batch.weights is others[0].weights
    for one, other in zip(streams, others, strict=True):
        assert_same_bits(one.step(xs[0]), other.step(xs[0]))


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_a_copied_batch_has_the_same_rows(rng, way):
    net = net_of("lstm", 5, [7, 9])
    batch = net.stream_batch(6)
    batch.step(sequence(rng, 6, 5))
    batch.remove([1, 4])
    other = WAYS[way](batch)
    assert other.active.tolist() == batch.active.tolist() == [0, 2, 3, 5]
    xs = sequence(rng, 4, 5)
    assert_same_bits(other.step(xs), batch.step(xs))
    assert other.add(3).tolist() == batch.add(3).tolist() == [1, 4, 6]
    xs = sequence(rng, 7, 5)
    assert_same_bits(other.step(xs), batch.step(xs))


# ---- other processes ---------------------------------------------------------------------------------------------


def outputs(thing, xs):
    """In another process: what a model or a stream says."""
    stream = thing if isinstance(thing, crnn.Stream) else thing.stream()
    return stream.run(xs)


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork, in a process with threads
def test_models_and_streams_go_to_other_processes(rng, method):
    net, xs = net_of("lstm", trainable_initial_state=True), sequence(rng, 12, 5)
    stream = net.stream()
    stepwise(stream, xs[:5])
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert_same_bits(pool.submit(outputs, net, xs).result(60), whole(net, xs))
        assert_same_bits(pool.submit(outputs, stream, xs[5:]).result(60), whole(net, xs)[5:])
    assert_same_bits(stepwise(stream, xs[5:]), whole(net, xs)[5:])


@pytest.mark.thread_unsafe
@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_stream_works_on_in_a_forked_child(rng):
    """As a server does that loads its model and then forks: nothing is pickled."""
    net, xs = net_of("gru"), sequence(rng, 12, 5)
    stream = net.stream()
    stepwise(stream, xs[:5])
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(stepwise(stream, xs[5:])))
    child.start()
    assert ours.poll(60)
    assert_same_bits(ours.recv(), whole(net, xs)[5:])
    child.join()
    assert_same_bits(stepwise(stream, xs[5:]), whole(net, xs)[5:])
