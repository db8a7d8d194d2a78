# SPDX-License-Identifier: MIT
"""Bad arguments: every message names the argument, what was expected and what came; nothing crashes or changes."""

import math

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model, network

import crnn

F32 = np.float32
NET, IDS_NET, EMBEDDED = network(L=2), network(D=5, L=2), network(D=5, E=3)
LM = language_model()
_, _, TAPE = NET.forward(np.ones((3, 2, 5), F32))
DY = np.ones((3, 2, 7), F32)
IDS = np.ones((3, 2), np.int32)
STREAM = np.arange(100) % 12


def x(*shape):
    return np.ones(shape, F32)


def ids(*values):
    return np.array([values])


def fit(**options):
    return crnn.fit(LM, STREAM, **options)


CASES = {
    # ---- networks
    "input_size 0": (lambda: crnn.RNN(0, 3), ValueError, "input_size: expected an integer of at least 1, got 0"),
    "hidden_size negative": (lambda: crnn.RNN(3, -1), ValueError, "hidden_size: expected .* got -1"),
    "hidden_size a float": (lambda: crnn.RNN(3, 2.0), ValueError, r"hidden_size: expected .* got 2\.0"),
    "hidden_size a text": (lambda: crnn.RNN(3, "4"), ValueError, "hidden_size: expected .* got '4'"),
    "hidden_size none": (lambda: crnn.RNN(3, None), ValueError, "hidden_size: expected .* got None"),
    "num_layers 0": (lambda: crnn.RNN(3, 4, 0), ValueError, "num_layers: expected .* got 0"),
    "num_layers true": (lambda: crnn.RNN(3, 4, True), ValueError, "num_layers: expected .* got True"),
    "cell unknown": (lambda: crnn.RNN(3, 4, cell="LSTM"), ValueError, "cell: expected one of tanh, .*'LSTM'"),
    "cell none": (lambda: crnn.RNN(3, 4, cell=None), ValueError, "cell: expected .* got None"),
    "cell a list": (lambda: crnn.RNN(3, 4, cell=["tanh"]), ValueError, "cell: expected .* got"),
    "embedding_size 0": (lambda: crnn.RNN(3, 4, embedding_size=0), ValueError, "embedding_size: expected .* got 0"),
    "dtype half": (lambda: crnn.RNN(3, 4, dtype="float16"), ValueError, "dtype: expected .* got 'float16'"),
    "dtype integer": (lambda: crnn.RNN(3, 4, dtype=int), ValueError, "dtype: expected .* got .*int"),
    "dtype unknown": (lambda: crnn.RNN(3, 4, dtype="real"), ValueError, "dtype: expected .* got 'real'"),
    "dtype none": (lambda: crnn.RNN(3, 4, dtype=None), ValueError, "dtype: expected .* got None"),
    "seed negative": (lambda: crnn.RNN(3, 4, seed=-1), ValueError, "seed: expected an integer of at least 0, got -1"),
    "seed none": (lambda: crnn.RNN(3, 4, seed=None), ValueError, "seed: expected .* got None"),
    "seed a float": (lambda: crnn.RNN(3, 4, seed=1.5), ValueError, r"seed: expected .* got 1\.5"),
    # ---- forward
    "x too flat": (lambda: NET(x(3, 5)), ValueError, r"x: expected shape \(T, B, 5\), got \(3, 5\)"),
    "x of four axes": (lambda: NET(x(1, 3, 2, 5)), ValueError, r"x: expected shape \(T, B, 5\), got \(1, 3, 2, 5\)"),
    "x of another D": (lambda: NET(x(20, 8, 12)), ValueError, r"x: expected shape \(T, B, 5\), got \(20, 8, 12\)"),
    "x batch first": (lambda: NET(x(5, 2, 3)), ValueError, r"x: expected shape \(T, B, 5\), got \(5, 2, 3\)"),
    "x without steps": (lambda: NET(x(0, 2, 5)), ValueError, r"x: expected .* got \(0, 2, 5\)"),
    "x without rows": (lambda: NET(x(3, 0, 5)), ValueError, r"x: expected .* got \(3, 0, 5\)"),
    "x too large": (lambda: NET(np.full((3, 2, 5), -1e39)), ValueError, r"x: .* float32 can hold, got -1e\+39 at"),
    "NaN as padding": (
        lambda: crnn.SequenceClassifier().fit([[1.0, 2.0], [3.0, np.nan]], ["a", "b"]),
        ValueError,
        r"X\[1\]: expected finite numbers, got nan at \(1, 0\); .*: x\[:1\] is the sequence without padding",
    ),
    "NaN as a gap": (
        lambda: crnn.SequenceClassifier().fit([[1.0, 2.0], [np.nan, 3.0]], ["a", "b"]),
        ValueError,
        r"X\[1\]: expected finite numbers, got nan at \(0, 0\); .*: fill gaps, or skip these steps by mask=",
    ),
    "x NaN": (lambda: NET(x(3, 2, 5) * np.nan), ValueError, r"x: expected finite numbers, got nan at \(0, 0, 0\)"),
    "x infinite": (lambda: NET.forward(x(3, 2, 5) * np.inf), ValueError, r"x: expected finite numbers, got -?inf at"),
    "x complex": (lambda: NET(x(3, 2, 5) * 1j), ValueError, "x: expected numbers, got complex64"),
    "x dates": (lambda: NET(np.zeros((3, 2, 5), "M8[s]")), TypeError, "x: expected numbers, got dates or times .*time"),
    "x none": (lambda: NET(None), (TypeError, ValueError), "x: expected"),
    "x text": (lambda: NET("hello"), (TypeError, ValueError), "x: expected"),
    "x missing": (lambda: NET(np.full((3, 2, 5), None)), ValueError, "x: expected finite numbers, got nan"),
    "x objects": (lambda: NET(np.full((3, 2, 5), object())), TypeError, "x: expected numbers, got object"),
    "x ragged": (lambda: NET([[1, 2], [3]]), ValueError, None),  # NumPy's own
    "x ids of three axes": (lambda: NET(np.ones((3, 2, 5), int)), ValueError, r"x: expected ids of shape \(T, B\)"),
    "x flat ids": (lambda: NET(np.ones(3, int)), ValueError, r"x: expected ids of shape \(T, B\).* got shape \(3,\)"),
    "x no ids": (lambda: NET(np.ones((3, 0), int)), ValueError, r"x: expected ids .* got shape \(3, 0\)"),
    "x id too large": (lambda: IDS_NET(ids(1, 5)), ValueError, "x: expected ids from 0 to 4, got "),
    "x id negative": (lambda: IDS_NET(ids(-1, 2)), ValueError, "x: expected ids from 0 to 4, got -1 to 2"),
    "x id int32": (lambda: IDS_NET(ids(1, 5).astype(np.int32)), ValueError, "x: expected ids from 0 to 4, got "),
    "x id int64": (lambda: IDS_NET(ids(1, 2**32)), ValueError, "x: expected ids from 0 to 4, got 1 to 4294967296"),
    "x id uint64": (lambda: IDS_NET(np.full((1, 1), 2**64 - 1, np.uint64)), ValueError, "x: expected ids from 0 to 4"),
    "x id for threads": (lambda: IDS_NET(ids(1, 1, 1, 5), threads=2), ValueError, "x: expected ids from 0 to 4"),
    "ids of a language model": (lambda: LM.forward(ids(1, 99)), ValueError, "^ids: expected ids from 0 to "),
    "ids of three axes": (lambda: LM.forward(np.ones((3, 2, 5), int)), ValueError, "^ids: expected ids of shape"),
    "x id for an embedding": (lambda: EMBEDDED(ids(1, 5)), ValueError, "x: expected ids from 0 to 4, got "),
    "x real for an embedding": (lambda: EMBEDDED(x(3, 2, 5)), TypeError, "x: expected integer ids .* got float32"),
    "state too small": (lambda: NET(x(3, 2, 5), x(1, 2, 7)), ValueError, r"state: expected .*\(2, 2, 7\), got \(1"),
    "state of another batch": (lambda: NET(x(3, 2, 5), x(2, 3, 7)), ValueError, r"state: expected .* got \(2, 3, 7\)"),
    "state NaN": (lambda: NET(x(3, 2, 5), x(2, 2, 7) * np.nan), ValueError, "state: expected finite numbers, got nan"),
    "state text": (lambda: NET(x(3, 2, 5), "zero"), TypeError, "state: expected numbers, got <U4"),
    "state a number": (lambda: NET(x(3, 2, 5), 0), ValueError, r"state: expected shape \(2, 2, 7\), got \(\)"),
    "threads 0": (lambda: NET(x(3, 2, 5), threads=0), ValueError, "threads: expected an integer of at least 1, got 0"),
    # ---- backward
    "dy of another shape": (lambda: NET.backward(TAPE, x(3, 2, 5)), ValueError, r"dy: expected .*\(3, 2, 7\), got \("),
    "dy a number": (lambda: NET.backward(TAPE, 1.0), ValueError, r"dy: expected shape \(3, 2, 7\), got \(\)"),
    "dy complex": (lambda: NET.backward(TAPE, DY * 1j), ValueError, "dy: expected numbers, got complex64"),
    "dy none": (lambda: NET.backward(TAPE, None), (ValueError, TypeError), "dy: expected"),
    "dstate too flat": (lambda: NET.backward(TAPE, DY, x(2, 7)), ValueError, r"dstate: expected shape \(2, 2, 7\)"),
    "dstate text": (lambda: NET.backward(TAPE, DY, [["a"]]), TypeError, "dstate: expected numbers, got <U1"),
    "backward threads": (lambda: NET.backward(TAPE, DY, threads=-1), ValueError, "threads: expected .* got -1"),
    # ---- language models
    "vocab a corpus": (
        lambda: crnn.LanguageModel(crnn.TextCorpus.from_text("abc" * 9)), TypeError, "got TextCorpus; .*: corpus.vocab"
    ),
    "vocab a text": (lambda: crnn.LanguageModel("abc"), TypeError, "vocab: expected a Vocab, got str"),
    "model's hidden_size": (lambda: crnn.LanguageModel(LM.vocab, hidden_size=0), ValueError, "hidden_size: expected"),
    "model's embedding_size": (
        lambda: crnn.LanguageModel(LM.vocab, embedding_size=2.5), ValueError, r"embedding_size: expected .* got 2\.5",
    ),
    "model's seed": (lambda: crnn.LanguageModel(LM.vocab, seed=None), ValueError, "seed: expected .* got None"),
    "ids real": (lambda: LM.forward(x(3, 2)), TypeError, r"ids: expected an integer array \(T, B\), got float32"),
    "ids none": (lambda: LM.forward(None), TypeError, "ids: expected an integer array"),
    "ids text": (lambda: LM.losses("hello", "hello"), TypeError, "ids: expected an integer array"),
    "ids flat": (lambda: LM.forward([1, 2]), ValueError, r"expected ids of shape \(T, B\)"),
    "ids too large": (lambda: LM.losses(ids(1, 12), ids(1, 2)), ValueError, "ids from 0 to 11, got 1 to 12"),
    "model's state": (lambda: LM.forward(IDS, x(1, 3, 7)), ValueError, r"state: expected .*\(1, 2, 7\), got \(1"),
    "targets of another shape": (
        lambda: LM.losses(IDS, IDS[:2]), ValueError, r"targets: expected .* \(3, 2\), got .*\(2, 2\)",
    ),
    "targets real": (lambda: LM.losses(IDS, x(3, 2)), ValueError, "targets: expected integers .* got float32"),
    "targets none": (lambda: LM.losses(IDS, None), ValueError, "targets: expected integers"),
    "targets too large": (lambda: LM.losses(IDS, IDS * 12), ValueError, "targets: expected .*0 to 11.*12"),
    "targets negative": (lambda: LM.losses(IDS, IDS * -2), ValueError, "targets: expected .*0 to 11.*-2"),
    "targets int64": (lambda: LM.losses(IDS, IDS.astype(np.int64) << 32), ValueError, "targets: expected .*0 to 11"),
    "targets uint32": (
        lambda: LM.loss_and_gradients(IDS, np.full((3, 2), 2**32 - 1, np.uint32)), ValueError, "targets: expected",
    ),
    "reduction unknown": (
        lambda: LM.loss_and_gradients(IDS, IDS, reduction="max"), ValueError, "reduction: expected .* got 'max'",
    ),
    "model's threads": (lambda: LM.loss_and_gradients(IDS, IDS, threads=0), ValueError, "threads: expected"),
    "evaluate ids too large": (lambda: LM.evaluate([1, 2, 12]), ValueError, "expected .*0 to 11"),
    "evaluate real ids": (lambda: LM.evaluate([1.0, 2.0, 3.0]), TypeError, "ids: expected integers, got float64"),
    "evaluate two axes": (lambda: LM.evaluate(IDS), ValueError, r"text: expected .* got int32 of shape \(3, 2\)"),
    "evaluate none": (lambda: LM.evaluate(None), ValueError, "text: expected .* got object"),
    "evaluate unknown": (lambda: LM.evaluate("hello?"), crnn.VocabError, r"'\?' at position 5"),
    "evaluate batch_size": (lambda: LM.evaluate("hello", batch_size=0), ValueError, "batch_size: expected .* got 0"),
    "evaluate threads": (lambda: LM.evaluate("hello", threads=0), ValueError, "threads: expected .* got 0"),
    "score numbers": (lambda: LM.score([3]), TypeError, "expected str for unit 'char', got int"),
    "astype": (lambda: LM.astype("float16"), ValueError, "dtype: expected float32 or float64, got 'float16'"),
    # ---- fit
    "fit nothing": (lambda: crnn.fit(LM, []), crnn.TextError, "ids: expected at least 33 tokens .* got 0"),
    "fit too little": (lambda: crnn.fit(LM, [1] * 32), crnn.TextError, "ids: expected at least 33 tokens .* got 32"),
    "fit a text": (lambda: crnn.fit(LM, "hello"), (TypeError, ValueError), "expected"),
    "fit real ids": (lambda: crnn.fit(LM, STREAM * 1.0), TypeError, "ids: expected integers, got float64"),
    "fit ids too large": (lambda: crnn.fit(LM, STREAM + 1), ValueError, "expected .*from 0 to 11"),
    "fit two axes": (lambda: crnn.fit(LM, IDS), ValueError, r"ids: expected shape \(N,\), got \(3, 2\)"),
    "epochs 0": (lambda: fit(epochs=0), ValueError, "epochs: expected .* got 0"),
    "epochs a float": (lambda: fit(epochs=1.5), ValueError, r"epochs: expected .* got 1\.5"),
    "batch_size 0": (lambda: fit(batch_size=0), ValueError, "batch_size: expected .* got 0"),
    "bptt 0": (lambda: fit(bptt=0), ValueError, "bptt: expected .* got 0"),
    "bptt 0 with carry": (lambda: fit(bptt=0, carry=4), ValueError, "bptt: expected .* got 0"),
    "bptt a text": (lambda: fit(bptt="8", carry=4), ValueError, "bptt: expected .* got '8'"),
    "max_updates 0": (lambda: fit(max_updates=0), ValueError, "max_updates: expected .* got 0"),
    "patience 0": (lambda: fit(valid=STREAM, patience=0), ValueError, "patience: expected .* got 0"),
    "patience alone": (lambda: fit(patience=1), ValueError, "patience: expected validation data with it"),
    "log_every 0": (lambda: fit(log_every=0), ValueError, "log_every: expected .* got 0"),
    "clip_norm 0": (lambda: fit(clip_norm=0), ValueError, "clip_norm: expected a number above 0, or None, got 0"),
    "clip_norm NaN": (lambda: fit(clip_norm=math.nan), ValueError, "clip_norm: expected .* got nan"),
    "clip_norm a text": (lambda: fit(clip_norm="5"), ValueError, "clip_norm: expected .* got '5'"),
    "carry a float": (lambda: fit(bptt=4, carry=8.0), ValueError, r"carry: expected .* got 8\.0"),
    "clip_value negative": (lambda: fit(clip_value=-1), ValueError, "clip_value: expected .* got -1"),
    "fit's threads": (lambda: fit(threads=0), ValueError, "threads: expected .* got 0"),
    "fit's reduction": (lambda: fit(batch_size=4, reduction="max"), ValueError, "reduction: expected mean or sum"),
    "a text in place of ids": (
        lambda: crnn.fit(language_model(), "a text"), TypeError, "data: expected a TextCorpus, .*, got str"
    ),
    "valid is a share": (lambda: fit(batch_size=4, valid=0.1), TypeError, "valid: expected ids of another text"),
    "valid too short": (lambda: fit(batch_size=4, valid=[1]), ValueError, "valid: expected at least 2 ids"),
    # ---- diagnostics
    "check too flat": (lambda: crnn.gradient_check(NET, x(3, 5)), (ValueError, IndexError), "x: expected shape"),
    "flow text": (lambda: crnn.gradient_flow(NET, [[["a"] * 5]]), TypeError, "x: expected numbers, got <U1"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_message_names_the_argument_what_was_expected_and_what_came(case):
    call, error, message = CASES[case]
    before = [each.flat_params.copy() for each in (NET, IDS_NET, EMBEDDED, LM)]
    with pytest.raises(error, match=message):
        call()
    for each, kept in zip((NET, IDS_NET, EMBEDDED, LM), before, strict=True):
        assert_same_bits(each.flat_params, kept)


def test_a_refused_call_leaves_a_reused_tape_usable(rng):
    net = network(L=2)
    first = rng.normal(size=(3, 2, 5)).astype(F32)
    _, _, tape = net.forward(first)
    for bad in ({"state": x(1, 1, 1)}, {"threads": 0}):
        with pytest.raises(ValueError, match="expected"):
            net.forward(first + 1, tape=tape, **bad)
    dx, dh0 = net.backward(tape, DY)
    _, _, fresh = net.forward(first)
    expected_dx, expected_dh0 = net.backward(fresh, DY)
    assert_same_bits(dx, expected_dx)
    assert_same_bits(dh0, expected_dh0)


def test_infinite_gradients_and_extreme_x_go_through_without_a_crash():
    for extreme in (1e38, -1e38, 1e-42):
        for bad in (np.nan, np.inf, -np.inf):
            for cell in ("tanh", "relu"):
                net = network(L=2, cell=cell)
                values = x(3, 2, 5)
                values[1, 0, 2] = extreme
                y, _, tape = net.forward(values, threads=2)
                net.backward(tape, np.full_like(y, bad), threads=2)
                assert np.isfinite(y[0]).all()
                assert np.isfinite(y[:, 1]).all()


def test_nan_weights_give_nan_losses_not_a_crash():
    model = language_model()
    model.params["layer0.W_hh"][...] = np.nan
    losses, _ = model.losses(IDS, IDS)
    assert np.isnan(losses[1:]).all()
    result = model.evaluate("hello")
    assert math.isnan(result.nats)
    with pytest.raises(ValueError, match="logits: expected finite numbers"):
        model.generate("hello")
