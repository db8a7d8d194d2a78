# SPDX-License-Identifier: MIT
"""Kernel calls that are recorded once and repeated: results are those of a network that computes for the first time."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from model_tools import network, stir

import crnn
from crnn._core.arrays import add_rows, copy_rows, largest_of_rows
from crnn._core.dispatch import use_isa
from crnn._core.program import Program
from crnn.nn.cells import CELLS
from crnn.nn.tape import COPIED_BYTES, Tape
from crnn.text.windows import IGNORE_INDEX

OPTIONS = {
    "one layer": {},
    "three layers": {"L": 3},
    "both directions": {"L": 2, "bidirectional": True},
    "dropout between layers": {"L": 2, "dropout": 0.5},
    "an initial state": {"trainable_initial_state": True},
    "sizes that differ": {"H": (7, 3), "L": None},
    "dense layers": {"H": (7, 3, 5), "L": None, "dense_layers": True},
    "dense layers, both directions": {"L": 3, "dense_layers": True, "bidirectional": True},
    "float64": {"dtype": "float64"},
    "ids": {"ids": True},
    "few ids of an embedding": {"ids": True, "E": 3},
}


def made(cell, options):
    """A network, and a function that draws another x (3, 2, ...) for it."""
    options = dict(options)
    ids, rng = options.pop("ids", False), np.random.default_rng(0)
    net = network(cell=cell, **options)

    def draw(T=3):
        return rng.integers(0, 5, (T, 2)) if ids else rng.normal(size=(T, 2, 5)).astype(net.dtype)

    return net, draw


def same(a, b):
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return np.array_equal(a, b)


def fresh(net):
    """A network with the same weights that has computed nothing."""
    return net.astype(net.dtype)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_later_calls_see_another_x_and_changed_weights(cell, options, threads):
    net, draw = made(cell, options)
    results = []
    for repetition in range(4):
        x = draw()
        results.append((net(x, threads=threads), fresh(net)(x)))
        if repetition:
            stir(net.flat_params, repetition)
    for found, expected in results:  # at the end: results belong to the caller
        assert same(found, expected)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_later_windows_train_as_first_ones_do(cell, options):
    net, draw = made(cell, options)
    tape, state = None, None
    for repetition in range(4):
        x, other = draw(), fresh(net)
        net.flat_grads.fill(0)
        expected_y, expected_after, other_tape = other.forward(x, state)
        _, after, tape = net.forward(x, state, tape=tape)  # last, since the state may be the tape's
        assert same(tape.y, expected_y)
        assert same(after, expected_after)
        dy = np.ones_like(expected_y)
        net.backward(tape, dy)
        other.backward(other_tape, dy)
        assert np.array_equal(net.flat_grads, other.flat_grads)
        state = after if repetition % 2 else None
        stir(net.flat_params, repetition)


LANGUAGE = {
    "plain": {},
    "layers": {"num_layers": 2},
    "dense layers": {"num_layers": 3, "dense_layers": True, "embedding_size": 21, "tie_weights": True},
    "embedding": {"embedding_size": 3},
    "tied": {"embedding_size": 7, "tie_weights": True},
    "dropout": {"dropout": 0.5, "num_layers": 2},
    "initial state": {"trainable_initial_state": True},
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", LANGUAGE.values(), ids=LANGUAGE)
@pytest.mark.parametrize("cell", CELLS)
def test_later_updates_are_those_of_a_new_workspace(cell, options, threads):
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcde"), cell, 7, seed=1, **options)
    rng, workspace, state = np.random.default_rng(0), model.workspace(), None
    for update in range(8):
        ids = rng.integers(0, 5, (4, 2), np.int32)
        if update == 5:
            ids[2] = IGNORE_INDEX  # another number of targets
        inputs, targets = np.abs(ids[:-1]), ids[1:]
        arguments = {"threads": threads, "dropout_seed": [7, update]}
        model.flat_grads.fill(0)
        expected = model.loss_and_gradients(inputs, targets, state, **arguments)
        gradient, expected_state = model.flat_grads.copy(), np.array(expected[2])
        model.flat_grads.fill(0)
        loss, count, state = model.loss_and_gradients(inputs, targets, state, workspace=workspace, **arguments)
        assert (loss, count) == expected[:2]
        assert np.array_equal(np.array(state), expected_state)
        assert np.array_equal(model.flat_grads, gradient)
        stir(model.flat_params, update)


def repeating(**options):
    """A language model whose next update in the workspace repeats the last: model, ids, workspace, state."""
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcde"), "lstm", 7, seed=1, **options)
    ids, workspace, state = np.random.default_rng(0).integers(0, 5, (4, 2), np.int32), model.workspace(), None
    for _ in range(3):
        _, _, state = model.loss_and_gradients(ids[:-1], ids[1:], state, workspace=workspace)
    assert workspace.repetition is not None
    model.flat_grads.fill(0)
    return model, ids, workspace, state


def test_a_repeated_update_does_not_take_the_general_path(monkeypatch):
    model, ids, workspace, state = repeating()
    monkeypatch.setattr(crnn.LanguageModel, "_check_ids", None)  # of the general path
    model.loss_and_gradients(ids[:-1], ids[1:], state, workspace=workspace)


OTHERS = {  # updates that differ from the last one
    "another type of ids": lambda model, ids, state: (ids[:-1].astype(np.int64), ids[1:], state, {}),
    "ids in another order": lambda model, ids, state: (np.asfortranarray(ids[:-1]), ids[1:], state, {}),
    "a list of targets": lambda model, ids, state: (ids[:-1], np.array(ids[1:].tolist()), state, {}),
    "fewer steps": lambda model, ids, state: (ids[:-2], ids[1:-1], state, {}),
    "fewer rows": lambda model, ids, state: (ids[:-1, :1], ids[1:, :1], None, {}),
    "no state": lambda model, ids, state: (ids[:-1], ids[1:], None, {}),
    "a copy of the state": lambda model, ids, state: (ids[:-1], ids[1:], tuple(map(np.copy, state)), {}),
    "another state": lambda model, ids, state: (ids[:-1], ids[1:], tuple(s + 1 for s in state), {}),
    "another reduction": lambda model, ids, state: (ids[:-1], ids[1:], state, {"reduction": "sum"}),
    "another number of threads": lambda model, ids, state: (ids[:-1], ids[1:], state, {"threads": 2}),
    "another precision": lambda model, ids, state: (ids[:-1], ids[1:], state, {"precision": "bf16"}),
    "another parameter": lambda model, ids, state: (replace_w_hh(model), ids[1:], state, {}),
}


def replace_w_hh(model):
    model.net.params["layer0.W_hh"] = 2 * model.net.params["layer0.W_hh"]
    return np.ones((3, 2), np.int32)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_an_update_that_differs_from_the_last_is_not_its_repetition(other):
    model, ids, workspace, state = repeating()
    x, targets, state, options = other(model, ids, state)
    expected = model.loss_and_gradients(x, targets, state, **options)
    gradient = model.flat_grads.copy()
    model.flat_grads.fill(0)
    found = model.loss_and_gradients(x, targets, state, workspace=workspace, **options)
    assert found[:2] == expected[:2]
    assert same(found[2], expected[2])
    assert np.array_equal(model.flat_grads, gradient)


WRONG = {
    "^ids: expected": {"ids": np.full((3, 2), 5, np.int32)},
    "^ids: expected .*-1": {"ids": np.full((3, 2), -1, np.int32)},
    "targets: expected": {"targets": np.full((3, 2), 5, np.int32)},
    "state: .*finite": {"nan": True},
    "reduction: expected": {"reduction": "max"},
    "threads: expected": {"threads": True},
    "dropout_seed: expected": {"dropout_seed": -1},
    "dropout_seed.*": {"dropout_seed": [1, "2"]},
    "workspace: expected": {"workspace": 3},
}


@pytest.mark.parametrize(("message", "wrong"), WRONG.items())
def test_a_wrong_argument_of_a_repeated_update_is_refused_as_one_of_the_first(message, wrong):
    model, ids, workspace, state = repeating()
    arguments = {"ids": ids[:-1], "targets": ids[1:], "workspace": workspace} | wrong
    if arguments.pop("nan", False):
        state[1][0, 1, 2] = np.nan
    with pytest.raises((TypeError, ValueError), match=message):
        model.loss_and_gradients(state=state, **arguments)
    assert not model.flat_grads.any()
    state[1][0, 1, 2] = 0  # and the next one is right
    expected = model.loss_and_gradients(ids[:-1], ids[1:], tuple(map(np.copy, state)))[0]
    assert model.loss_and_gradients(ids[:-1], ids[1:], state, workspace=workspace)[0] == expected


def test_a_repeated_update_of_another_model_is_refused():
    _, ids, workspace, state = repeating()
    other = crnn.LanguageModel(crnn.Vocab.from_text("abcde"), "lstm", 7, seed=2)
    with pytest.raises(ValueError, match="another has used"):
        other.loss_and_gradients(ids[:-1], ids[1:], state, workspace=workspace)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "flatten"])
def test_later_batches_of_sequences_train_as_first_ones_do(pooling, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 5, 3)).astype(np.float32), rng.integers(0, 2, 24)

    def weights():
        options = {"steps": 5} if pooling == "flatten" else {}
        model = crnn.SequenceClassifier(
            hidden_size=7, pooling=pooling, bidirectional=True, seed=1, epochs=3, batch_size=4, **options
        )
        return model.fit(X, y).flat_params.copy()

    repeating = weights()
    monkeypatch.setattr(Tape, "repeatable", False)
    assert np.array_equal(repeating, weights())


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_later_predictions_see_another_x_and_changed_weights(pooling):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 5, 3)).astype(np.float32), rng.integers(0, 2, 8)
    model = crnn.SequenceClassifier(hidden_size=7, pooling=pooling, seed=1, epochs=1).fit(X, y)
    for repetition in range(4):
        x = rng.normal(size=(1 + repetition // 3, 5, 3)).astype(np.float32)
        assert np.array_equal(model.predict_proba(x), model.astype("float32").predict_proba(x))
        stir(model.flat_params, repetition)


def test_a_call_for_another_length_follows_one_for_this():
    net = network(cell="lstm", L=2)
    rng = np.random.default_rng(0)
    for T, B in ((3, 2), (5, 2), (5, 1), (3, 2), (1, 1), (5, 2)):
        x = rng.normal(size=(T, B, 5)).astype(np.float32)
        assert same(net(x), fresh(net)(x))


def test_large_outputs_belong_to_the_caller():
    net = network(D=2, H=64)
    x = np.random.default_rng(0).normal(size=(600, 2, 2)).astype(np.float32)
    first, _ = net(x)
    assert first.nbytes > COPIED_BYTES
    kept = first.copy()
    second, _ = net(2 * x)
    assert np.array_equal(first, kept)
    assert np.array_equal(second, fresh(net)(2 * x)[0])
    first.fill(np.nan)  # the network does not read it any more
    assert np.array_equal(net(x)[0], kept)


@pytest.mark.parametrize("size", [3, 40_000])
def test_a_call_keeps_no_array_of_the_caller(size):
    net = network(D=size)
    x = np.ones((3, 2, size), np.float32)
    net(x)
    reference = weakref.ref(x)
    del x
    gc.collect()
    assert reference() is None


def test_a_parameter_that_is_replaced_is_used():
    net = network()
    x = np.ones((3, 2, 5), np.float32)
    before, _ = net(x)
    net.params["layer0.W_hh"] = 2 * net.params["layer0.W_hh"]
    assert not np.array_equal(net(x)[0], before)


def test_threads_may_call_one_network():
    net = network(cell="gru", L=2)
    xs = [np.random.default_rng(i).normal(size=(3 + i % 2, 2, 5)).astype(np.float32) for i in range(8)]
    expected = [fresh(net)(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            assert same(list(pool.map(net, xs)), expected)


def test_calls_on_another_instruction_set_follow_it():
    net = network(cell="lstm")
    x = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    expected, in_use = net(x), crnn.isa()
    try:
        for isa in crnn.available_isas():
            use_isa(isa)
            assert same(net(x), expected)
    finally:
        use_isa(in_use)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_frozen_network_computes_the_same(cell, options):
    net, draw = made(cell, options)
    frozen, other = net.frozen(), fresh(net)
    stir(net.flat_params)
    for T in (3, 3, 4, 4, 3):
        x = draw(T)
        assert same(frozen(x), other(x))


def test_a_frozen_network_packs_its_weights_once(monkeypatch):
    frozen, packed = network(L=2).frozen(), []
    pack = frozen.stack.pack_forward
    monkeypatch.setattr(frozen.stack, "pack_forward", lambda tape: (packed.append(tape), pack(tape)))
    for T in (3, 3, 4, 4):
        frozen(np.ones((T, 2, 5), np.float32))
    assert len(packed) == 1


def test_parameters_of_a_frozen_network_are_read_only():
    net = network()
    frozen = net.frozen()
    for array in (frozen.flat_params, frozen.params["layer0.W_hh"], frozen.flat_params[3:]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    net.flat_params[...] = 0  # the original is not


# ---- the calls themselves ---------------------------------------------------------------------------------------


def test_a_program_repeats_calls_in_their_order():
    a, b, program = np.ones((1, 1, 3)), np.ones((1, 1, 3)), Program()

    def calls():
        add_rows(a, b, 0, 1)  # a += b
        copy_rows(b, a, 0, 1)  # b = a

    program.record(calls)
    assert a.tolist() == b.tolist() == [[[2, 2, 2]]]
    for _ in range(2):
        program.run()
    assert a.tolist() == b.tolist() == [[[8, 8, 8]]]


def test_a_program_keeps_its_arrays_alive():
    program = Program()
    program.record(copy_rows, np.zeros((2, 3, 4)), np.ones((2, 3, 4)), 0, 3)
    gc.collect()
    program.run()


def test_calls_of_an_interrupted_recording_are_not_recorded_elsewhere():
    a, program = np.ones((1, 1, 1)), Program()

    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program.record(fails)
    add_rows(a, np.ones((1, 1, 1)), 0, 1)
    program.run()
    assert a.item() == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_and_columns_are_copied_and_added_as_by_numpy(dtype):
    rng = np.random.default_rng(0)
    to, values = rng.normal(size=(3, 5, 7)).astype(dtype), rng.normal(size=(3, 5, 4)).astype(dtype)
    to[0, 1, 2:5] = values[0, 1, 1:] = np.finfo(dtype).tiny / 4  # denormal, and its sum is
    expected = to.copy()
    copy_rows(to, values, 1, 4, 2, 1)
    expected[:, 1:4, 2:5] = values[:, 1:4, 1:]
    assert np.array_equal(to, expected)
    add_rows(to, values, 0, 2, 2, 1)
    expected[:, :2, 2:5] += values[:, :2, 1:]
    assert np.array_equal(to, expected)
    copy_rows(to, None, 0, 5, 3, 0, 2)
    expected[:, :, 3:5] = 0
    assert np.array_equal(to, expected)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((np.zeros((2, 3)), np.zeros((2, 3)), 0, 1), "to: expected"),
        ((np.zeros((2, 3, 4)), np.zeros((1, 3, 4)), 0, 1), "values: expected"),
        ((np.zeros((2, 3, 4)), np.zeros((2, 3, 4), "f4"), 0, 1), "values: expected"),
        ((np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), 0, 4), "b0, b1: expected"),
        ((np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), 0, 3, 1, 0, 4), "columns: expected"),
        ((np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), 0, 3, 5), "columns: expected"),
    ],
)
def test_rows_that_are_not_there_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        copy_rows(*arguments)


@pytest.mark.parametrize("name", ["reduction", "precision"])
def test_an_option_that_is_an_array_is_refused_by_name_where_an_update_could_be_repeated(name):
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcd"), "gru", 6, seed=0)
    ids, workspace, state = np.zeros((3, 2), np.int32), model.workspace(), None
    for _ in range(4):
        _, _, state = model.loss_and_gradients(ids, ids, state, workspace=workspace)
    assert workspace.repetition is not None
    with pytest.raises(ValueError, match=f"{name}: expected .* got array"):
        model.loss_and_gradients(ids, ids, state, workspace=workspace, **{name: np.array(["mean", "bf16"])})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_of_each_row_is_numpys(dtype):
    rng = np.random.default_rng(3)
    values = rng.integers(-3, 4, size=(5, 4, 11)).astype(dtype)
    values[0, 1, 5] = values[0, 1, 8] = values[4, 3, 0] = np.nan
    values[1, 2] = -np.inf
    out = np.full((5, 4), -7, np.int32)
    largest_of_rows(out, values, 1, 4)
    expected = values.argmax(axis=2)
    np.testing.assert_array_equal(out[:, 1:], expected[:, 1:])
    np.testing.assert_array_equal(out[:, 0], -7)
    assert len(set(expected[:, 1:].ravel())) > 3
    with pytest.raises(ValueError, match="out: expected"):
        largest_of_rows(out[:, :3].copy(), values, 0, 3)
    with pytest.raises(ValueError, match="at least one column"):
        largest_of_rows(out, values[:, :, :0].copy(), 0, 4)
