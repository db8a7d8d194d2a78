# SPDX-License-Identifier: MIT
"""StreamBatch: each row has the bits of a separate stream, whatever the others do; rows come and go."""

import gc
import re
import weakref

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from stream_tools import CELLS, DENSE, language_model, net_of, sequence, stepwise, whole

from crnn.nn.state import state_arrays

cells = pytest.mark.parametrize("cell", CELLS)


def same_state(one, other):
    for a, b in zip(state_arrays(one), state_arrays(other), strict=True):
        assert_same_bits(a, b)


@pytest.mark.thread_unsafe
@cells
@pytest.mark.parametrize(("D", "H", "options"), [(5, [7], {}), (17, [33, 16], {}), (17, [33, 16], DENSE)], ids=str)
@pytest.mark.parametrize("n", [1, 13, 300])  # 300: more than are worked on at a time
def test_rows_have_the_bits_of_streams(rng, isa, cell, D, H, options, n):
    net = net_of(cell, D, H, trainable_initial_state=True, **options)
    x = rng.normal(size=(6, n, D)).astype(np.float32)
    batch, (expected, after) = net.stream_batch(n), net(x)
    for x_t, y_t in zip(x, expected, strict=True):
        assert_same_bits(batch.step(x_t), y_t)
    single = net.stream()
    assert_same_bits(stepwise(single, x[:, n - 1]), expected[:, n - 1])
    same_state(batch.state(n - 1), single.state)
    same_state(batch.state(n - 1), after_of(after, n - 1))


def after_of(state, rows):
    """One row of a batch's state, or several."""
    chosen = [rows] if isinstance(rows, int) else rows
    if isinstance(state, tuple):
        return tuple(after_of(part, chosen) for part in state)
    if isinstance(state, list):
        return [part[chosen] for part in state]
    return state[:, chosen].copy()


@pytest.mark.parametrize("embedding", [{}, {"embedding_size": 9}, {"embedding_size": 21, "tie_weights": True}], ids=str)
@cells
def test_ids_have_the_bits_of_streams(rng, cell, embedding):
    model = language_model(cell, **embedding)
    ids = rng.integers(len(model.vocab), size=(9, 150))
    logits, _ = model.forward(ids)
    batch = model.stream_batch(150)
    for ids_t, expected in zip(ids, logits, strict=True):
        assert_same_bits(batch.step(ids_t), expected)


@pytest.mark.parametrize("options", [{}, DENSE], ids=str)
@cells
def test_any_rows_in_any_order_while_the_others_wait(rng, cell, options):
    """Random histories: each row sees its own inputs only."""
    net, n = net_of(cell, 5, [7, 18], trainable_initial_state=True, **options), 170
    xs = rng.normal(size=(n, 50, 5)).astype(np.float32)
    expected = net(np.ascontiguousarray(xs.transpose(1, 0, 2)))[0]
    batch, done = net.stream_batch(n), np.zeros(n, int)
    for size in [1, 2, 170, 7, 150, 3, 1, 16, 145, 144, 9, 33, 2, 160]:
        start = rng.integers(n - size + 1)
        nearly = np.arange(size)
        nearly[-1] = n - 1  # side by side, but for the last
        for rows in (rng.permutation(n)[:size], np.arange(start, start + size), nearly):
            y = batch.step(xs[rows, done[rows]], rows=rows)
            assert_same_bits(y, expected[done[rows], rows])
            done[rows] += 1
    for row in (0, 84, 169):
        alone = net.stream()
        stepwise(alone, xs[row, : done[row]]) if done[row] else None
        same_state(batch.state(row), alone.state)


def test_rows_come_and_go(rng):
    net = net_of("lstm", trainable_initial_state=True)
    batch = net.stream_batch(3)
    assert batch.active.tolist() == [0, 1, 2]
    assert len(batch) == 3
    x = sequence(rng, 3, 5)
    first = batch.step(x)
    batch.remove(1)
    assert batch.active.tolist() == [0, 2]
    assert len(batch) == 2
    second = batch.step(x[[0, 2]])
    assert batch.add().tolist() == [1]
    assert_same_bits(batch.step(x[1:2], rows=1), first[1:2])  # a fresh row starts at the start
    assert batch.add(40).tolist() == list(range(3, 43))  # more memory: the others stay where they were
    assert_same_bits(batch.step(x[[2]], rows=[2]), whole(net, x[[2, 2, 2]])[2:])
    assert_same_bits(second, np.stack([whole(net, x[[row, row]])[1] for row in (0, 2)]))
    batch.remove(np.array([7, 5, 6]))
    assert batch.add(2).tolist() == [5, 6]
    batch.remove([])
    assert len(batch.add(0)) == 0
    batch.remove(batch.active)
    assert len(batch) == 0
    assert batch.step(np.zeros((0, 5), "f4")).shape == (0, 7)


def test_an_empty_batch_can_be_filled(rng):
    net, xs = net_of("gru"), sequence(rng, 5, 5)
    batch = net.stream_batch()
    assert batch.step(np.zeros((0, 5), "f4")).shape == (0, 7)
    assert batch.add(5).tolist() == [0, 1, 2, 3, 4]
    assert_same_bits(batch.step(xs), net(xs[None])[0][0])


def test_reset_of_some_rows_and_of_all(rng):
    net, xs = net_of("lstm", trainable_initial_state=True), sequence(rng, 4, 5)
    batch = net.stream_batch(4)
    first = batch.step(xs)
    second = batch.step(xs)
    batch.reset([3, 1])
    third = batch.step(xs)
    assert_same_bits(third[[1, 3]], first[[1, 3]])
    assert not (third[[0, 2]] == second[[0, 2]]).all()
    batch.reset()
    assert_same_bits(batch.step(xs), first)
    batch.reset(2)
    assert_same_bits(batch.step(xs[2:3], rows=2), first[2:3])


@pytest.mark.parametrize("H", [7, [7, 9]], ids=str)
@cells
def test_streams_become_rows_and_rows_streams(rng, cell, H):
    net, xs = net_of(cell, 5, H), sequence(rng, 12, 5)
    expected, stream = whole(net, xs), net.stream()
    stepwise(stream, xs[:4])
    batch = net.stream_batch(2)
    (row,) = batch.add(state=stream)
    batch.set_state(0, stream)
    batch.set_state(1, stream.state)
    assert_same_bits(batch.step(xs[[4, 4, 4]]), expected[[4, 4, 4]])
    fork = batch.stream(row)
    assert_same_bits(stepwise(fork, xs[5:]), expected[5:])
    assert_same_bits(batch.step(xs[5:6], rows=row), expected[5:6])  # undisturbed
    same_state(batch.state(0), batch.state(1))


# ---- many rows at once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("H", [7, [7, 9]], ids=str)
@cells
def test_rows_continue_from_selected_rows(rng, cell, H, dtype):
    """Fewer rows, more rows, each several times, in any order: as streams that are copied."""
    net = net_of(cell, 5, H, dtype=dtype, trainable_initial_state=True)
    batch, streams = net.stream_batch(4), [net.stream() for _ in range(4)]
    for rows in ([3, 0, 0, 2], [1, 2], [0, 1, 1, 0, 1, 1, 0], [6, 5, 4, 3, 2, 1, 0], list(range(7)) * 30, [200], []):
        x = rng.normal(size=(len(streams), 5)).astype(dtype)
        for y, stream, x_m in zip(batch.step(x), streams, x, strict=True):
            assert_same_bits(y, stream.step(x_m))
        batch.select(rows)
        streams = [streams[row].copy() for row in rows]
        assert batch.active.tolist() == list(range(len(rows)))
        for row, stream in enumerate(streams):
            same_state(batch.state(row), stream.state)


def test_selection_is_of_active_rows_and_free_numbers_are_forgotten(rng):
    batch = net_of("gru").stream_batch(5)
    xs = sequence(rng, 5, 5)
    batch.step(xs)
    batch.remove([0, 2])
    with pytest.raises(ValueError, match="rows: expected active rows, got 2 at position 1"):
        batch.select(np.array([1, 2], "i4"))
    expected = [batch.state(row) for row in (4, 1)]
    batch.select([4, 1])
    assert batch.active.tolist() == [0, 1]
    same_state(batch.state(0), expected[0])
    same_state(batch.state(1), expected[1])
    assert batch.add(2).tolist() == [2, 3]
    assert not np.any(state_arrays(batch.state(2))[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("H", [7, [7, 9]], ids=str)
@cells
def test_states_of_many_rows_are_those_of_a_batch(rng, cell, H, dtype):
    net = net_of(cell, 5, H, dtype=dtype)
    _, after = net(rng.normal(size=(3, 6, 5)).astype(dtype))
    batch = net.stream_batch(6)
    batch.set_states(after)
    same_state(batch.states(), after)
    same_state(batch.states([2, 0, 2]), after_of(after, [2, 0, 2]))
    x = rng.normal(size=(6, 5)).astype(dtype)
    assert_same_bits(batch.step(x), net(x[None], after)[0][0])
    batch.set_states(after_of(after, [1, 3]), rows=[5, 0])
    same_state(batch.states([5, 0]), after_of(after, [1, 3]))
    with pytest.raises(ValueError, match=r"states.*: expected"):
        batch.set_states(after, rows=[0, 1])
    with pytest.raises(ValueError, match="rows: expected each row once, got 0 again at position 1"):
        batch.set_states(after_of(after, [1, 3]), rows=[0, 0])


def test_out_is_written_and_returned(rng):
    net, xs = net_of("gru"), sequence(rng, 4, 5)
    batch, out = net.stream_batch(4), np.full((4, 7), np.nan, "f4")
    assert batch.step(xs, out=out) is out
    assert_same_bits(out, net(xs[None])[0][0])


WRONG = [
    ({"x": np.zeros((3, 5), "f4")}, ValueError, "x: expected 4 rows, one for each stream, got 3"),
    ({"x": np.zeros((4, 6), "f4")}, ValueError, "x: expected float32 of shape (M, 5), got float32 of shape (4, 6)"),
    ({"x": np.full((4, 5), np.inf)}, ValueError, "x: expected finite numbers, got inf at (0, 0)"),
    ({"x": [0, 1, 2, 5]}, ValueError, "x: expected ids from 0 to 4, got 0 to 5"),
    ({"x": [0, 1], "rows": [1, 1]}, ValueError, "rows: expected each row once, got 1 again at position 1"),
    ({"x": [0, 1], "rows": [1, 5]}, ValueError, "rows: expected active rows, got 5 at position 1"),
    ({"x": [0, 1], "rows": [1, -1]}, ValueError, "rows: expected active rows, got -1 at position 1"),
    ({"x": [0, 1], "rows": np.array([1, 2], "i4")}, ValueError, "rows: expected active rows, got 2 at position 1"),
    ({"x": [0, 1], "rows": np.array([9, 1], "i4")}, ValueError, "rows: expected active rows, got 9 at position 0"),
    ({"x": [0, 1], "rows": [2**40, 1]}, ValueError, "rows: expected active rows, got 1 to 1099511627776"),
    ({"x": [0, 1], "rows": [0.0, 1.0]}, TypeError, "rows: expected integers (M,), got list [0.0, 1.0]"),
    ({"x": [0, 1], "rows": [[0, 1]]}, TypeError, "rows: expected integers (M,), got list [[0, 1]]"),
    ({"x": [0, 1], "rows": [True, False]}, TypeError, "rows: expected integers (M,), got list [True, False]"),
    ({"x": [0, 1], "rows": [0]}, ValueError, "x: expected 1 rows, one for each stream, got 2"),
    ({"x": [0, 1], "rows": "no"}, TypeError, "rows: expected integers (M,), got str 'no'"),
    ({"x": [0] * 4, "out": np.zeros((4, 7))}, ValueError, "out: expected writable C-contiguous float32 array"),
    ({"x": [0] * 4, "out": np.zeros((3, 7), "f4")}, ValueError, "out: expected writable C-contiguous float32 array"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), WRONG, ids=lambda value: f"{value!r:.30}")
def test_step_refuses_what_does_not_fit_and_stays_where_it_is(arguments, error, text):
    batch = net_of("lstm").stream_batch(5)
    batch.remove(2)
    with pytest.raises(error, match=re.escape(text)):
        batch.step(**arguments)
    assert all(not array.any() for row in batch.active.tolist() for array in state_arrays(batch.state(row)))


@pytest.mark.parametrize("row", [2, 5, -1, 10**20])
@pytest.mark.parametrize("use", ["state", "stream", "set_state", "remove", "reset"])
def test_a_row_that_is_not_there_is_refused(use, row):
    batch = net_of("gru").stream_batch(5)
    batch.remove(2)
    more = [net_of("gru").stream()] * (use == "set_state")
    with pytest.raises((ValueError, TypeError), match="row"):
        getattr(batch, use)(row, *more)
    assert batch.active.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("row", [1.0, None, "1", True, [1]])
def test_a_row_that_is_no_number_is_refused(row):
    with pytest.raises(TypeError, match="row: expected an integer, got"):
        net_of("gru").stream_batch(5).state(row)


@pytest.mark.parametrize("count", [-1, 1.0, None, True, 2**40])
def test_a_count_that_is_none_is_refused(count):
    net = net_of("gru")
    with pytest.raises(ValueError, match="n: expected an integer of at least 0 and below 268435456, got"):
        net.stream_batch(count)
    with pytest.raises(ValueError, match="count: expected an integer of at least 0 and below 268435456, got"):
        net.stream_batch(1).add(count)


def test_more_rows_than_memory_can_hold_leave_the_batch_as_it_was():
    batch = net_of("gru").stream_batch(3)
    batch.remove(1)
    with pytest.raises(MemoryError):
        batch.add(2**28 - 1)
    assert batch.active.tolist() == [0, 2]
    assert batch.add().tolist() == [1]


def test_a_state_from_another_model_is_refused():
    batch = net_of("gru").stream_batch(2)
    with pytest.raises(ValueError, match="state: expected shape"):
        batch.set_state(0, net_of("gru", 5, 8).stream())
    with pytest.raises(ValueError, match="state: expected shape"):
        batch.add(state=net_of("gru", 5, 8).stream())
    assert len(batch) == 2


def test_what_a_batch_says_of_itself():
    batch = language_model("gru").stream_batch(3)
    assert (batch.input_size, batch.output_size) == (12, 12)
    assert repr(batch).startswith("StreamBatch(3 streams of LanguageModel, input_size=12")


@pytest.mark.parametrize("kind", ["stream", "batch", "text", "weights", "learner"])
def test_streams_and_learners_can_be_referenced_weakly(kind):
    """As a table of sessions does, which keeps no stream that nobody uses any more."""
    net, model = net_of("lstm", 3, [4]), language_model("gru")
    makers = {
        "stream": net.stream, "batch": net.stream_batch, "text": model.stream, "weights": lambda: net.stream().weights,
        "learner": model.learner,
    }  # fmt: skip
    one, sessions = makers[kind](), weakref.WeakValueDictionary()
    sessions["one"] = one
    assert sessions["one"] is one
    del one
    gc.collect()
    assert not sessions
