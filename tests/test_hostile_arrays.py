# SPDX-License-Identifier: MIT
"""Arguments that change while they are read, or while a call uses them: what selects memory is copied, the copy is
checked and used; what is borrowed cannot be resized; and nothing of the caller's runs between the checks and the use.

Without that most of these tests end in a segmentation fault, so each runs its calls in a separate process."""

import gc

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, network, run_python

import crnn
from crnn._core.arrays import checked_ids, pinned
from crnn._core.rows import Lengths
from crnn.stream.stream import StreamWeights

FAR = 2**30  # an id or row so far away that reading there is a segmentation fault

START = f"""
import threading, numpy as np, crnn
FAR = {FAR}

class Then:
    "An argument that does something when it is converted."
    def __init__(self, value, does):
        self.value, self.does = value, does
    def __array__(self, dtype=None, copy=None):
        self.does()
        return self.value

def outcome(call):
    try:
        call()
        return "done"
    except (ValueError, TypeError) as error:
        return type(error).__name__ + " " + str(error).partition("\\n")[0]
"""


def outcomes(code: str) -> list[str]:
    result = run_python(START + code)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.splitlines()


# ---- conversions that change other arguments -----------------------------------------------------------------------


def test_rows_that_change_the_ids_of_a_step_or_resize_its_output():
    code = """
net = crnn.RNN(5, 8, seed=0)
for _ in range(50):
    batch, alone = net.stream_batch(3), net.stream_batch(3)
    ids, out, rows = np.arange(3, dtype=np.int32), np.empty((3, 8), np.float32), np.arange(3, dtype=np.int32)
    print(outcome(lambda: batch.step(ids, rows=Then(rows, lambda: ids.fill(FAR)), out=out)))
    ids[:] = 1
    small = lambda: out.resize((1, 8), refcheck=False)
    print(outcome(lambda: batch.step(ids, rows=Then(rows, small), out=out)))
    x, out = np.ones((3, 5), np.float32), np.empty((3, 8), np.float32)
    print(outcome(lambda: batch.step(x, rows=Then(rows, lambda: x.resize((0, 5), refcheck=False)), out=out)))
    print(len(batch), (batch.step([1, 2, 3]) == alone.step([1, 2, 3])).all())
"""
    lines = outcomes(code)
    for step, shape, inputs, after in zip(*[iter(lines)] * 4, strict=True):
        assert step == f"ValueError x: expected ids from 0 to 4, got {FAR} at position 0"
        assert "ValueError out: expected writable C-contiguous float32 array of shape (3, 8), got float32" in shape
        assert inputs.startswith("ValueError x: expected 3 rows, one for each stream, got 0")
        assert after == "3 True"


def test_an_input_that_resizes_the_output_of_a_stream():
    code = """
net = crnn.RNN(5, 64, seed=0)
stream = net.stream()
for _ in range(50):
    out = np.empty((3, 64), np.float32)
    run = Then(np.arange(3), lambda: out.resize((0, 64), refcheck=False))
    print(outcome(lambda: stream.run(run, out=out)))
    row = Then(np.zeros(5, np.float32), lambda: out.resize((0, 64), refcheck=False))
    out = np.empty((3, 64), np.float32)
    print(outcome(lambda: stream.run([row, row, row], out=out)))
"""
    assert all(line.startswith("ValueError out: expected writable") for line in outcomes(code))


def test_arguments_of_a_network_that_change_each_other():
    code = """
net = crnn.RNN(5, 8, 2, "lstm", seed=0)
zeros = np.zeros((2, 4, 8), np.float32)
for size in (10, 400_000):
    x = np.ones((size, 4, 5), np.float32)[:6]
    owner = x.base
    shrink = lambda: owner.resize((0, 4, 5), refcheck=False)
    print(outcome(lambda: net(x, (Then(zeros, shrink), zeros))))
    print(outcome(lambda: net(x, lengths=Then(np.array([6, 1, 2, 3]), shrink))))
    ids, lengths = np.ones((6, 4), np.int32), np.array([6, 1, 2, 3], np.int32)
    print(outcome(lambda: net(ids, (Then(zeros, lambda: ids.fill(FAR)), zeros))))
    ids.fill(1)
    print(outcome(lambda: net(ids, (Then(zeros, lambda: lengths.fill(FAR)), zeros), lengths=lengths)))
    h, c = zeros.copy(), Then(zeros, lambda: h.resize((0, 4, 8), refcheck=False))
    print(outcome(lambda: net(np.ones((6, 4, 5), np.float32), (h, c))))
    y, _, tape = net.forward(np.ones((6, 4, 5), np.float32))
    dy = np.ones((6, 4, 8), np.float32)
    resize = Then(zeros, lambda: dy.resize((0, 4, 8), refcheck=False))
    print(outcome(lambda: net.backward(tape, dy, (resize, zeros))))
"""
    lines = outcomes(code)
    for line in (*lines[:2], *lines[6:8]):
        assert "cannot resize an array that" in line
    for line in (*lines[2:5], *lines[8:11]):
        assert line == "done"
    for line in (lines[5], lines[11]):
        assert line.startswith("ValueError dy: expected shape (6, 4, 8), got (0, 4, 8)")


def test_targets_that_change_while_the_state_is_read():
    code = """
model = crnn.LanguageModel(crnn.Vocab.from_text("abcde"), "tanh", hidden_size=8, seed=0)
zeros = np.zeros((1, 4, 8), np.float32)
for call in (model.losses, model.loss_and_gradients):
    ids, targets = np.ones((6, 4), np.int32), np.ones((6, 4), np.int32)
    change = lambda: (ids.fill(FAR), targets.fill(FAR))
    print(outcome(lambda: call(ids, targets, Then(zeros, change))))
    ids = np.ones((6, 4), np.int32)
    print(outcome(lambda: call(ids, Then(np.ones((6, 4), np.int32), lambda: ids.fill(FAR)))))
"""
    lines = outcomes(code)
    assert all(line == "done" or line.startswith("ValueError targets: expected ids from 0 to") for line in lines)
    assert lines.count("done") >= 2


def test_a_text_stream_whose_arguments_change_each_other():
    code = """
model = crnn.LanguageModel(crnn.Vocab.from_text("abcde"), hidden_size=8, seed=0)
stream = model.stream()

class Out(np.ndarray):
    def __getitem__(self, key):
        raise TypeError("never asked")

out = np.empty((3, 5), np.float32).view(Out)
print(outcome(lambda: stream.run([0, 1, 2], out=out)))
print((stream.next_probabilities() == model.stream().feed([0, 1, 2]).next_probabilities()).all())
small = np.empty((3, 5), np.float32)
print(outcome(lambda: stream.run(Then(np.arange(3), lambda: small.resize((0, 5), refcheck=False)), out=small)))
"""
    done, same, refused = outcomes(code)
    assert (done, same) == ("done", "True")
    assert refused.startswith("ValueError out: ")


def test_integers_that_compare_otherwise_than_they_count():
    code = """
class Liar(int):
    def __lt__(self, other): return False
    def __le__(self, other): return True
    def __gt__(self, other): return True
    def __ge__(self, other): return True
    def __eq__(self, other): return True
    def __hash__(self): return 0
    def __index__(self): return 1
    def __int__(self): return 1

net = crnn.RNN(5, 8, seed=0)
batch = net.stream_batch(2)
for value in (Liar(FAR), Liar(-1), Liar(2**70)):
    for call in (batch.add, batch.reset, batch.remove, batch.state, batch.stream, net.stream_batch, net.stream().step,
                 lambda row: batch.set_state(row, net.stream()), lambda row: batch.step([0], rows=[row]),
                 lambda id: batch.step([id, 0]), lambda id: net([[id]]),
                 lambda n: net(np.ones((2, 2, 5), np.float32), lengths=[n, 1]),
                 lambda n: net(np.ones((2, 2, 5), np.float32), threads=n)):
        print(outcome(lambda: call(value)))
print(len(batch.active) == len(batch), batch.step(np.zeros((len(batch), 5), np.float32)).shape == (len(batch), 8))
"""
    lines = outcomes(code)
    assert lines[-1] == "True True"
    for line in lines[:-1]:
        assert line == "done" or line.startswith(("ValueError", "TypeError")), line


def test_objects_that_claim_to_be_of_another_class():
    code = """
class Claims:
    def __init__(self, kind):
        self.kind = kind
    @property
    def __class__(self):
        return self.kind
    shape, dtype, ndim = (24,), np.dtype("f4"), 1

x = np.ones((2, 2, 3), np.float32)
for name in crnn.RNN(3, 8, cell="gru").params:
    for wrong in (Claims(np.ndarray), np.zeros((), np.float32), np.zeros((1, 1), np.float32), None):
        net = crnn.RNN(3, 8, cell="gru")
        net._parameters.values[name] = wrong
        try:
            net.stream()
        except (ValueError, TypeError, AttributeError) as error:
            print(type(error).__name__, error)
net = crnn.RNN(3, embedding_size=4, hidden_size=8)
net._parameters.values["embedding"] = np.zeros(3, np.float32)
print(outcome(net.stream))
print(outcome(lambda: crnn.optim.SGD().update(Claims(np.ndarray), x[0, 0])))
print(outcome(lambda: net([[1, 1]], threads=Claims(int))))
"""
    *lines, embedding, optimizer, threads = outcomes(code)
    assert len(lines) == 16
    assert lines[0] == "TypeError W_xh: expected float32 or float64 array, got Claims"
    assert "ValueError b_h: expected C-contiguous float32 array of shape (24,), got float32 array of shape ()" in lines
    assert embedding.startswith("ValueError embedding: expected C-contiguous float32 array of shape (3, 1), got")
    assert optimizer == "TypeError params: expected an array, got Claims"
    assert threads.startswith("ValueError threads: expected an integer of at least 1")


# ---- other threads ---------------------------------------------------------------------------------------------------

RACES = {
    "ids of a network": """
    ids = np.ones((60, 20), np.int32)
    victims, call = [ids], lambda: net(ids)""",
    "ids and targets of a language model": """
    ids, targets = np.ones((60, 20), np.int32), np.ones((60, 20), np.int32)
    victims, call = [ids, targets], lambda: model.loss_and_gradients(ids, targets, threads=2)""",
    "int64 ids": """
    ids = np.ones((60, 20), np.int64)
    victims, call = [ids], lambda: net(ids)""",
    "lengths": """
    lengths, ids = np.full(20, 60), np.ones((60, 20), np.int32)
    victims, call = [lengths], lambda: net(ids, lengths=lengths)""",
    "lengths whose own conversion claims to be a copy": """
    lengths, ids = np.full(20, 60), np.ones((60, 20), np.int32)
    victims, call = [lengths], lambda: net(ids, lengths=Then(lengths, lambda: None))""",
    "ids and rows of a batch": """
    ids, rows = np.arange(500, dtype=np.int32) % 5, np.arange(500, dtype=np.int32)
    victims, call = [ids, rows], lambda: batch.step(ids, rows=rows)""",
    "ids of a run": """
    ids = np.ones(2000, np.int32)
    victims, call = [ids], lambda: stream.run(ids)""",
    "ids of a text stream": """
    ids = np.ones(2000, np.int32)
    victims, call = [ids], lambda: text.feed(ids)""",
}


@pytest.mark.parametrize("name", RACES)
def test_another_thread_that_writes_into_integers_changes_at_most_what_is_refused(name):
    code = f"""
import sys, time
sys.setswitchinterval(1e-5)
net = crnn.RNN(5, 96, seed=0)
model = crnn.LanguageModel(crnn.Vocab.from_text("abcde"), hidden_size=96, seed=0)
batch, stream, text = net.stream_batch(500), net.stream(), model.stream()

def main():
{RACES[name]}
    good = [array.copy() for array in victims]
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for array, values in zip(victims, good):
                array.fill(FAR)
                array[...] = values

    writer = threading.Thread(target=write)
    writer.start()
    counts, end = {{}}, time.monotonic() + 0.5
    while time.monotonic() < end:
        came = outcome(call).split(" ")[0]
        counts[came] = counts.get(came, 0) + 1
    stop.set()
    writer.join()
    print(sorted(counts))
    call()

main()
"""
    [line] = outcomes(code)
    assert line in ("['ValueError', 'done']", "['ValueError']", "['done']")


def test_no_thread_resizes_what_a_call_borrows():
    code = """
import sys, time
sys.setswitchinterval(1e-5)
net = crnn.RNN(256, 256, seed=0)
batch, stream = net.stream_batch(8), net.stream()
calls = [
    ((64, 8, 256), (0,), lambda x, out: net(x, threads=2)),
    ((64, 8, 256), (64, 8, 256), lambda x, out: net.backward(net.forward(x)[2], out)),
    ((8, 256), (8, 256), lambda x, out: batch.step(x, out=out)),
    ((64, 256), (64, 256), lambda x, out: stream.run(x, out=out)),
    ((256,), (256,), lambda x, out: stream.step(x, out=out)),
    ((2_000_000,), (2_000_000,), lambda x, out: crnn.optim.SGD(momentum=0.9).update(x, out)),
    ((2_000_000,), (0,), lambda x, out: crnn.optim.global_norm(x)),
]
for x_shape, out_shape, call in calls:
    held, stop, resized = [], threading.Event(), 0

    def resize():
        global resized
        while not stop.is_set():
            for array in list(held):
                try:
                    array.resize(array.size + 1000, refcheck=False)
                    array.resize(1, refcheck=False)
                    resized += 1
                except ValueError:
                    pass

    thread = threading.Thread(target=resize)
    thread.start()
    came, end = [], time.monotonic() + 0.4
    while time.monotonic() < end:
        x, out = np.ones(x_shape, np.float32), np.empty(out_shape, np.float32)
        held[:] = x, out
        came.append(outcome(lambda: call(x, out)).split(" ")[0])
        held[:] = []
    stop.set()
    thread.join()
    print(*sorted(set(came)), resized > 0)
"""
    for line in outcomes(code):
        assert set(line.split()) <= {"ValueError", "TypeError", "done", "True"}  # and no crash
        assert line.endswith("True")


# ---- the helpers --------------------------------------------------------------------------------------------------


def test_a_pinned_array_is_resized_by_nobody_until_it_is_released():
    owner = np.ones((10, 3))
    view = owner[2:].reshape(-1)
    pin = pinned(view)
    with pytest.raises(ValueError, match="cannot resize"):
        owner.resize((1, 3), refcheck=False)
    del pin
    gc.collect()
    owner.resize((1, 3), refcheck=False)
    assert owner.shape == (1, 3)


INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8", "<i2"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_ids_are_copied_from_every_type_and_layout(dtype):
    base = (np.arange(24).reshape(4, 6) % 7).astype(dtype)
    for ids in (base, base.T, base[::-1, ::2], base[:, 0], base[:0], np.broadcast_to(base[0], (3, 6)), base[0, 0]):
        ids = np.asarray(ids)
        copy = checked_ids("ids", ids, 7)
        assert_same_bits(copy, ids.astype(np.int32))
        assert copy.flags.c_contiguous
        assert copy.flags.writeable
        assert not np.shares_memory(copy, ids)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_ids_out_of_range_are_refused_in_every_type(dtype):
    limits = np.iinfo(dtype)
    for wrong in {7, limits.max, limits.min} - set(range(7)):
        ids = np.array([0, wrong, 3], dtype)
        with pytest.raises(ValueError, match="ids: expected ids from 0 to 6"):
            checked_ids("ids", ids, 7)
    assert checked_ids("ids", np.array([3, 2], dtype), 7).tolist() == [3, 2]
    if limits.min < 0:
        assert checked_ids("ids", np.array([3, -1], dtype), 7, -1).tolist() == [3, -1]
        with pytest.raises(ValueError, match="ids: expected ids from 0 to 6"):
            checked_ids("ids", np.array([3, -2], dtype), 7, -1)


# ---- arrays of unusual kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_unusual_layouts_of_inputs_have_the_same_results(dtype, rng):
    net = network(D=5, H=7, cell="lstm", L=2, dtype=np.dtype(dtype).name)
    values = rng.normal(size=(6, 4, 5)).astype(dtype)
    expected, (h, c) = net(values)
    ramp = np.broadcast_to(values[:1], values.shape)
    reversed_, fortran = values[::-1][::-1], np.asfortranarray(values)
    padded = np.zeros((6, 4, 9), dtype)[:, :, 2:7]
    padded[...] = values
    unaligned = np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(dtype).reshape(values.shape)
    assert not unaligned.flags.aligned
    frozen = values.copy()
    frozen.flags.writeable = False

    class Sub(np.ndarray):
        def __array_finalize__(self, other):
            pass

        def __getitem__(self, key):
            raise TypeError("never asked")

    for x in (reversed_, fortran, padded, unaligned, frozen, values.view(Sub)):
        assert_same_bits(net(x)[0], expected)
        stream, batch = net.stream(), net.stream_batch(4)
        for t in range(6):
            row = np.asarray(x)[t]
            assert_same_bits(batch.step(row), expected[t])
            assert_same_bits(stream.step(row[1]), expected[t, 1])
        y, _, tape = net.forward(x)
        net.backward(tape, x[..., :1].repeat(7, 2) if type(x) is np.ndarray else np.ones_like(y))
    assert_same_bits(net(ramp)[0], net(ramp.copy())[0])
    for state in ((h, c), (np.asfortranarray(h), c[:, ::-1][:, ::-1])):
        assert_same_bits(net(values, state)[0], net(values, (h.copy(), c.copy()))[0])
        batch = net.stream_batch(4)
        batch.set_states(state)
        assert_same_bits(batch.states()[0], h)
        assert_same_bits(batch.states()[1], c)


WRONG_ARRAYS = {
    "structured": lambda a: np.zeros(a.shape, [("a", "f4")]),
    "complex": lambda a: a.astype(np.complex64),
    "text": lambda a: a.astype("U8"),
    "dates": lambda a: np.zeros(a.shape, "M8[s]"),
    "bytes": lambda a: np.zeros(a.shape, "V4"),
    "empty": lambda a: a[:0],
    "one axis more": lambda a: a[None],
    "huge by strides": lambda a: np.broadcast_to(np.float32(1), (2**40, *a.shape[1:])),
}


@pytest.mark.parametrize("kind", WRONG_ARRAYS)
def test_arrays_of_wrong_kinds_are_refused_at_every_door_and_change_nothing(kind, rng):
    net = network(D=5, H=5, cell="gru")
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    make = WRONG_ARRAYS[kind]
    stream, batch = net.stream(), net.stream_batch(4)
    y, state, tape = net.forward(x)
    before = net.flat_params.copy()
    calls = [
        lambda: net(make(x)),
        lambda: net(x, make(state)),
        lambda: net(x, lengths=make(np.ones(4, np.float32))),
        lambda: net.backward(tape, make(y)),
        lambda: net.backward(tape, y, make(state)),
        lambda: stream.step(make(x[0, 0])),
        lambda: stream.step(x[0, 0], out=make(y[0, 0])),
        lambda: stream.run(make(x[:, 0]), out=np.empty((6, 5), np.float32)),
        lambda: stream.run(x[:, 0], out=make(y[:, 0])),
        lambda: batch.step(make(x[0]), rows=[0, 1, 2, 3]),
        lambda: batch.step(x[0], rows=make(np.zeros(4, np.float32))),
        lambda: batch.step(x[0], out=make(y[0])),
        lambda: batch.set_states(make(batch.states())),
        lambda: setattr(stream, "state", make(stream.state)),
    ]
    for call in calls:
        with pytest.raises((ValueError, TypeError, MemoryError)):
            call()
    assert_same_bits(net.flat_params, before)
    assert_same_bits(batch.step(x[0]), y[0])
    assert_same_bits(stream.step(x[0, 1]), y[0, 1])


@pytest.mark.parametrize("dtype", [">f4", "O", "?", "g", "i2"])
def test_numbers_of_other_types_are_converted_but_not_written_into(dtype, rng):
    net = network(D=5, H=5, cell="gru")
    x = rng.integers(0, 2, size=(6, 4, 5)).astype(dtype)
    zeros = np.zeros((1, 4, 5), dtype)
    y = net(x.astype(np.float32))[0]
    if dtype != "i2":  # integers are ids
        assert_same_bits(net(x, zeros)[0], y)
        assert_same_bits(net.stream().run(x[:, 0]), y[:, 0])
    assert_same_bits(net.stream_batch(4).step(x[0]), y[0])
    stream, batch = net.stream(), net.stream_batch(4)
    batch.set_states(zeros)
    stream.state = zeros[:, :1]
    for call in (
        lambda: stream.step(x[0, 0], out=np.zeros(5, dtype)),
        lambda: stream.run(x[:, 0], out=np.zeros((6, 5), dtype)),
        lambda: batch.step(x[0], out=np.zeros((4, 5), dtype)),
    ):
        with pytest.raises(ValueError, match="out: expected writable C-contiguous float32 array"):
            call()
    assert_same_bits(batch.step(x[0]), y[0])
    assert_same_bits(stream.step(x[0, 0]), y[0, 0])


def test_outputs_that_are_read_only_or_overlap_are_refused(rng):
    net = network(D=5, H=5)
    stream, batch = net.stream(), net.stream_batch(4)
    x = rng.normal(size=(8, 5)).astype(np.float32)
    frozen = np.zeros((4, 5), np.float32)
    frozen.flags.writeable = False
    strided = np.zeros((4, 10), np.float32)[:, ::2]
    backward = np.zeros((4, 5), np.float32)[::-1]
    broadcast = np.lib.stride_tricks.as_strided(np.zeros(5, np.float32), (4, 5), (0, 4))
    for out in (frozen, strided, backward, broadcast, frozen.tolist(), 3, "out"):
        for call in (lambda out=out: stream.run(x[:4], out=out), lambda out=out: batch.step(x[:4], out=out)):
            with pytest.raises((ValueError, TypeError), match="out: expected writable"):
                call()
    for shift in (0, 1, 3):
        with pytest.raises(ValueError, match="out: expected an array that does not overlap"):
            stream.run(x[:4], out=x[shift : shift + 4])
        with pytest.raises(ValueError, match="out: expected an array that does not overlap"):
            batch.step(x[:4], out=x[shift : shift + 4])
    assert_same_bits(batch.step(x[:4], out=x[4:]), network(D=5, H=5)(x[None, :4])[0][0])


def test_shapes_beyond_all_memory_are_refused_without_memory():
    net = network(D=5, H=7)
    endless = np.broadcast_to(np.float32(0), (2**45, 1, 5))
    with pytest.raises((ValueError, MemoryError)):
        net(endless)
    with pytest.raises((ValueError, MemoryError)):
        net.stream_batch(2**28)
    with pytest.raises(ValueError, match="n: expected an integer of at least 0"):
        net.stream_batch(2**40)
    with pytest.raises((ValueError, MemoryError)):
        crnn.RNN(2**20, 2**30)


def test_a_batch_from_a_wrong_pickle_is_refused():
    from crnn.stream.stream_batch import _batch_from

    batch = network(D=5, H=7).stream_batch(3)
    batch.remove(1)
    make, (weights, length, rows, states) = batch.__reduce__()
    assert make is _batch_from
    assert make(weights, length, rows, states).active.tolist() == [0, 2]
    wrong = [
        (weights, length, [0, 0], states), (weights, length, [2, 0], states), (weights, length, [0, 3], states),
        (weights, length, [-1, 2], states), (weights, length, [0], states), (weights, length, [0, 1, 2], states),
        (weights, 0, rows, states), (weights, -1, [], states), (weights, length, rows, states[:, :, :3]),
        (None, length, rows, states), (weights, None, rows, states), (weights, length, ["a"], states),
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises((ValueError, TypeError)):
            _batch_from(*arguments)


def test_a_text_stream_from_a_wrong_pickle_is_refused():
    stream = language_model().stream().feed("hello")
    make, (weights, vocab, state, logits, last, ending) = stream.__reduce__()
    restored = make(weights, vocab, state, logits, last, ending)
    assert_same_bits(restored.next_probabilities(), stream.next_probabilities())
    for wrong in ((logits[:1], last, ending), (logits, -5, ending), (logits, 99, ending), (logits, last, 7)):
        with pytest.raises(ValueError, match="logits: expected those after a token"):
            make(weights, vocab, state, *wrong)


def test_weights_are_packed_from_memory_that_stays(rng):
    """StreamParts whose mapping makes each array when it is asked."""
    from dataclasses import replace

    from crnn.stream.stream import Stream, StreamWeights

    net = network(D=5, H=40, cell="lstm")

    class Fresh(dict):
        def __getitem__(self, name):
            return np.array(super().__getitem__(name))

    parts = net._stream_parts()
    fresh = replace(parts, layers=[Fresh(layer) for layer in parts.layers])
    junk = [np.full(5 * 160, 9, np.float32) for _ in range(50)]
    stream = Stream(StreamWeights(fresh))
    x = rng.normal(size=5).astype(np.float32)
    assert_same_bits(stream.step(x), net.stream().step(x))
    assert len(junk) == 50


def test_rows_come_and_go_as_before():
    """The bookkeeping of a batch compared with a plain one: the smallest free numbers first."""
    rng = np.random.default_rng(5)
    batch = network(D=5, H=2).stream_batch(3)
    active, used = {0, 1, 2}, 3
    for _ in range(300):
        if rng.random() < 0.5 and active:
            gone = rng.choice(sorted(active), rng.integers(1, len(active) + 1), replace=False)
            batch.remove(gone)
            active -= set(gone.tolist())
        else:
            count = int(rng.integers(0, 4))
            free = [row for row in range(used + count) if row not in active][:count]
            assert batch.add(count).tolist() == free
            active |= set(free)
            used = max([used, *(row + 1 for row in free)])
        assert batch.active.tolist() == sorted(active)
        assert len(batch) == len(active)


# ---- methods of compiled classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [crnn.Stream, crnn.StreamBatch, crnn.TextStream, StreamWeights, Lengths])
def test_a_method_refuses_a_self_of_another_class(owner):
    own = [name for name in vars(owner) if callable(getattr(owner, name))]
    assert own
    for name in own:
        with pytest.raises(TypeError):
            getattr(owner, name)(5, np.ones(3, np.float32))
