# SPDX-License-Identifier: MIT
"""Adaptive softmax: an exact distribution, its gradients, the same bits everywhere, and what refuses it."""

import hashlib
import pickle
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from c_export_tools import CModel, needs_compiler
from kernel_tools import assert_same_bits
from model_tools import stir, text

import crnn
from crnn.cli import main
from crnn.interop import onnx
from crnn.interop import torch as pytorch
from crnn.models.outputs.clusters import suggested_cutoffs
from crnn.text import TextError, VocabError

CUTOFFS = [5, 13]
PINNED = "e772f6b49107d5f7c2d8c5b88f64c3ba96250ee488824a4646b378680912fc53"  # of the weights after `trained`


def corpus(length=2000):
    return crnn.TextCorpus.from_text(text(length), unit="word", order="frequency", valid=0.1, test=0)


def model_of(vocab, H=19, cutoffs=CUTOFFS, **options):
    model = crnn.LanguageModel(vocab, "gru", H, adaptive_softmax=cutoffs, seed=3, **options)
    stir(model.flat_params)
    return model


@pytest.fixture
def model():
    return model_of(corpus().vocab)


def window(model, T=7, B=3):
    """Ids and targets, one of which is missing."""
    rng = np.random.default_rng(2)
    ids, targets = (rng.integers(len(model.vocab), size=(T, B), dtype=np.int32) for _ in range(2))
    targets[2, 1] = -1
    return ids, targets


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def oracle(model, h):
    """The log-probabilities (T, B, V) from the equations, in float64."""
    params = {name: values.astype("f8") for name, values in model.params.items()}
    cutoffs = model.adaptive_softmax
    scores = log_softmax(h.astype("f8") @ params["W_hy"] + params["b_y"])
    parts = [scores[..., : cutoffs[0]]]
    for i, (first, stop) in enumerate(pairwise([*cutoffs, len(model.vocab)])):
        of_tail = log_softmax(h.astype("f8") @ params[f"tail{i}.W_hp"] @ params[f"tail{i}.W_py"])
        assert of_tail.shape[-1] == stop - first
        parts.append(scores[..., cutoffs[0] + i, None] + of_tail)
    return np.concatenate(parts, axis=-1)


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cutoffs", [[1], [5, 13], [2, 4, 30]])
def test_outputs_are_the_log_probabilities_of_the_equations(dtype, cutoffs):
    model = model_of(corpus().vocab, 67, cutoffs, dtype=dtype)
    ids, _ = window(model)
    found, _ = model.forward(ids)
    h, _ = model.net(ids)
    np.testing.assert_allclose(found, oracle(model, h), atol=2e-6 if dtype == "float32" else 1e-13)
    np.testing.assert_allclose(np.exp(found.astype("f8")).sum(axis=2), 1, rtol=1e-5 if dtype == "float32" else 1e-13)


def test_losses_are_the_log_probabilities_of_the_targets_bit_for_bit(model):
    ids, targets = window(model)
    outputs, state = model.forward(ids)
    losses, after = model.losses(ids, targets)
    expected = np.where(targets < 0, 0, -np.take_along_axis(outputs, np.maximum(targets, 0)[..., None], 2)[..., 0])
    np.testing.assert_array_equal(losses, expected)
    assert_same_bits(after, state)
    total, count, _ = model.loss_and_gradients(ids, targets)
    assert count == targets.size - 1
    assert total == pytest.approx(losses.astype("f8").sum(), rel=1e-6)


@pytest.mark.parametrize("cutoffs", [[1], [5, 13]])
def test_every_gradient_is_that_of_differences(cutoffs):
    model = model_of(corpus().vocab, cutoffs=cutoffs)
    check = crnn.gradient_check(model, window(model))
    assert set(model.params) <= set(check.errors)
    assert check.largest < 1e-6


def test_gradients_are_accumulated(model):
    ids, targets = window(model)
    model.loss_and_gradients(ids, targets)
    once = model.flat_grads.copy()
    assert all(grad.any() for grad in model.grads.values())
    model.loss_and_gradients(ids, targets)
    np.testing.assert_allclose(model.flat_grads, 2 * once, rtol=1e-5, atol=1e-9)


def test_a_window_without_rare_targets_leaves_the_tails_alone(model):
    ids, targets = window(model)
    model.loss_and_gradients(ids, targets % CUTOFFS[0])
    assert model.grads["W_hy"].any()
    assert not any(grad.any() for name, grad in model.grads.items() if name.startswith("tail"))


def test_windows_of_other_targets_reuse_a_workspace(model):
    ids, targets = window(model)
    space = model.workspace()
    rarest, missing = np.full_like(targets, len(model.vocab) - 1), np.full_like(targets, -1)
    for wanted in (targets % 5, targets, rarest, missing, targets):
        for workspace in (space, None):
            model.flat_grads[...] = 0
            result = model.loss_and_gradients(ids, wanted, workspace=workspace)[:2], model.flat_grads.copy()
            if workspace is not None:
                first = result
        assert first[0] == result[0]
        assert_same_bits(first[1], result[1])


def test_it_agrees_with_pytorch(torch):
    """Outputs, loss and gradients of torch.nn.AdaptiveLogSoftmaxWithLoss with the same weights, in float64."""
    model = model_of(corpus().vocab, 67, dtype="float64")
    V, H = len(model.vocab), 67
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(H, V, CUTOFFS, div_value=4.0, head_bias=True).double()
    names = ["W_hy", "b_y", *(name for name in model.params if name.startswith("tail"))]
    for name, parameter in zip(names, theirs.parameters(), strict=True):
        parameter.data[...] = torch.tensor(model.params[name].T)
    ids, targets = window(model)
    targets[2, 1] = 7
    h = torch.tensor(model.net(ids)[0].reshape(-1, H), requires_grad=True)
    found, _ = model.forward(ids)
    np.testing.assert_allclose(found.reshape(-1, V), theirs.log_prob(h).detach().numpy(), atol=1e-12)
    result = theirs(h, torch.tensor(targets.reshape(-1).astype("i8")))
    result.loss.backward()
    total, count, _ = model.loss_and_gradients(ids, targets)
    assert total / count == pytest.approx(result.loss.item(), rel=1e-12)
    for name, parameter in zip(names, theirs.parameters(), strict=True):
        np.testing.assert_allclose(model.grads[name], parameter.grad.numpy().T, atol=1e-13)


# ---- bits ------------------------------------------------------------------------------------------------------------


def trained(threads=1, **options):
    data = corpus()
    model = crnn.LanguageModel(
        data.vocab, "lstm", 37, 2, adaptive_softmax=CUTOFFS, seed=5, recurrent_init="orthogonal", input_init="glorot"
    )
    crnn.fit(
        model, data, max_updates=30, batch_size=5, bptt=11, clip_norm=0.5, threads=threads, progress=False,
        optimizer=crnn.optim.AdamW(lr=1e-2), **options,
    )  # fmt: skip
    return model


@pytest.mark.thread_unsafe
def test_training_gives_the_pinned_bits_on_each_instruction_set(each_isa):
    weights = trained().flat_params
    assert np.isfinite(weights).all()
    little_endian = weights.astype(weights.dtype.newbyteorder("<")).tobytes()
    assert hashlib.sha256(little_endian).hexdigest() == PINNED


def test_blocks_of_rows_have_the_bits_of_all_rows_at_once(monkeypatch):
    """Those of large windows, which do not keep the scores of all their rows."""
    expected = trained()
    monkeypatch.setattr("crnn.models.outputs.blocks.BLOCK_BYTES", 1)
    monkeypatch.setattr("crnn.models.outputs.blocks.LEAST_ROWS", 16)
    assert_same_bits(trained().flat_params, expected.flat_params)
    assert_same_bits(trained(3).flat_params, expected.flat_params)


def test_shards_are_added_in_their_tree():
    models = [model_of(corpus().vocab) for _ in range(3)]
    for model, threads in zip(models, (1, 2, 3), strict=True):
        crnn.fit(model, corpus(), max_updates=9, batch_size=6, bptt=11, shards=4, threads=threads, progress=False)
    assert_same_bits(models[1].flat_params, models[0].flat_params)
    assert_same_bits(models[2].flat_params, models[0].flat_params)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_do_not_change_bits(threads):
    model = trained(threads)
    assert_same_bits(model.flat_params, trained().flat_params)
    ids, targets = window(model, 9, 5)
    for method, *more in ((model.forward,), (model.losses, targets)):
        assert_same_bits(method(ids, *more, threads=threads)[0], method(ids, *more)[0])
    sequences = [ids[:, b] for b in range(5)] + [ids[:4, 0]]
    for found, alone in zip(model.surprisals(sequences, threads=threads), sequences, strict=True):
        assert_same_bits(found, model.losses(alone[:-1, None], alone[1:, None])[0][:, 0])


def test_places_in_the_batch_do_not_change_bits(model):
    ids, targets = window(model, 9, 5)
    order = [3, 0, 4, 1, 2]
    assert_same_bits(model.forward(ids[:, order])[0], model.forward(ids)[0][:, order])
    assert_same_bits(model.losses(ids[:, order], targets[:, order])[0], model.losses(ids, targets)[0][:, order])


def test_a_resumed_run_has_the_bits_of_one_that_was_not_interrupted(tmp_path):
    data = corpus()
    first, resumed, whole = (model_of(data.vocab) for _ in range(3))
    options = {"batch_size": 5, "bptt": 11, "epochs": 2, "progress": False}
    crnn.fit(whole, data, **options)
    files = {"checkpoint": tmp_path / "run.safetensors"}
    crnn.fit(first, data, on_update=lambda progress: progress.update == 9, **files, **options)
    crnn.fit(resumed, data, resume=True, **files, **options)
    assert_same_bits(resumed.flat_params, whole.flat_params)


@pytest.mark.parametrize("dropout", [{"dropout": 0.5}, {"dropout": 0.5, "variational_dropout": True}])
def test_dropout_drops_the_inputs_of_all_clusters(dropout):
    model = model_of(corpus().vocab, 8, [5], **dropout)
    ids, targets = window(model)
    results = []
    for threads in (1, 2):
        model.flat_grads[...] = 0
        total, _, _ = model.loss_and_gradients(ids, targets, dropout_seed=4, threads=threads)
        results.append((total, model.flat_grads.copy()))
    assert results[0][0] == results[1][0] != model.loss_and_gradients(ids, targets)[0]
    assert_same_bits(results[0][1], results[1][1])


def test_a_penalty_of_the_outputs_is_added_to_the_gradient():
    """As with a full softmax: it concerns what the head reads."""
    ids, targets = window(model_of(corpus().vocab))
    grads = []
    for penalty in (0.0, 2.0):
        model = model_of(corpus().vocab, activation_penalty=penalty)
        model.loss_and_gradients(ids, targets, dropout_seed=4)
        grads.append({name: grad.copy() for name, grad in model.grads.items()})
    assert (grads[0]["layer0.W_hh"] != grads[1]["layer0.W_hh"]).any()
    for name in ("W_hy", "b_y", "tail0.W_hp", "tail1.W_py"):
        assert_same_bits(grads[1][name], grads[0][name])


def test_bf16_training_follows_float32():
    model, rounded = trained(), trained(precision="bf16")
    ids, targets = window(model)
    assert (model.flat_params != rounded.flat_params).any()
    np.testing.assert_allclose(rounded.losses(ids, targets)[0], model.losses(ids, targets)[0], atol=0.3)


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("precision", [None, "int8", "bf16", "int4", {"tail0.W_py": "int8", "W_hy": "bf16"}])
def test_streams_have_the_bits_of_whole_windows(each_isa, precision):
    model = model_of(corpus().vocab, 35)
    model = model if precision is None else model.quantize(precision)
    ids, _ = window(model, 9, 3)
    expected, _ = model.forward(ids)
    stream, batch = model.stream(), model.stream_batch(3)
    for t in range(len(ids)):
        assert_same_bits(stream.step(ids[t, 1]), expected[t, 1])
        assert_same_bits(batch.step(ids[t]), expected[t])
    run = crnn.Stream(model.stream().weights).run(ids[:, 2])
    assert_same_bits(run, expected[:, 2])


def test_text_streams_read_score_and_generate(model):
    words = text(200)
    ids = model.vocab.encode(words)
    stream = model.stream()
    stream.feed(ids[:1])
    assert_same_bits(stream.surprisal(ids[1:]), model.surprisals([ids])[0])
    np.testing.assert_allclose(stream.next_probabilities().sum(), 1, rtol=1e-5)
    assert model.score([words]) == [pytest.approx(model.surprisals([ids])[0].mean(), rel=1e-5)]
    options = {"length": 30, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 1}
    generated = model.generate("the", **options)
    assert generated == model.generate("the", **options)
    assert len(generated.split()) > 10


@pytest.mark.thread_unsafe  # memory is the process's
def test_a_stream_that_has_read_a_text_keeps_little_memory():
    words = crnn.Vocab([f"w{i}" for i in range(50_000)][::-1], "word")
    model = crnn.LanguageModel(words, "tanh", 4, adaptive_softmax=[10], embedding_size=2)
    streams = [model.stream() for _ in range(3)]
    ids = np.arange(40)
    tracemalloc.start()
    try:
        for stream in streams:
            stream.feed(ids)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3 * 5 * 4 * len(words)  # the scores of 32 steps are 32 * 4 * len(words) bytes
    assert_same_bits(streams[0].copy().step(0), model.forward(np.append(ids, 0)[:, None])[0][-1, 0])


def test_a_pickled_stream_continues(model):
    stream = model.stream()
    stream.feed("the of")
    copy = pickle.loads(pickle.dumps(stream))
    assert_same_bits(copy.step(3), stream.step(3))


def test_evaluation_is_exact(model):
    ids = corpus().valid
    evaluation = model.evaluate(ids)
    outputs, _ = model.forward(ids[:-1, None].astype(np.int32))
    picked = np.take_along_axis(outputs[:, 0].astype("f8"), ids[1:, None].astype("i8"), 1)
    assert evaluation.nats == pytest.approx(-picked.mean(), rel=1e-6)
    assert evaluation.accuracy == pytest.approx((outputs[:, 0].argmax(axis=1) == ids[1:]).mean())
    assert evaluation.count == len(ids) - 1


# ---- files, copies, other vocabularies -------------------------------------------------------------------------------


def test_files_and_copies_are_the_same_model(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    ids, _ = window(model)
    loaded = crnn.load(tmp_path / "m.safetensors")
    assert loaded.adaptive_softmax == CUTOFFS
    assert repr(loaded) == repr(model)
    assert "adaptive_softmax=[5, 13]" in repr(model)
    assert_same_bits(loaded.forward(ids)[0], model.forward(ids)[0])
    double = model.astype("float64")
    np.testing.assert_allclose(double.forward(ids)[0], model.forward(ids)[0], atol=2e-6)


def test_other_models_have_the_files_that_they_had():
    """So that earlier releases read them."""
    assert "adaptive_softmax" not in crnn.LanguageModel(crnn.Vocab.from_text("ab"), hidden_size=2).config()


@pytest.mark.parametrize("cutoffs", [[5, 12], [5], "5", [5, "13"], [], None])
def test_a_file_whose_cutoffs_do_not_fit_is_refused(model, cutoffs):
    tensors, header = model.contents()
    header["config"]["adaptive_softmax"] = cutoffs
    with pytest.raises(ValueError, match="expected"):
        type(model).from_contents(header, tensors)


def test_a_larger_vocabulary_keeps_all_probabilities_of_known_tokens_in_proportion(model):
    larger = model.extended(model.vocab.extended(["zebra", "yak"]))
    V, last = len(model.vocab), CUTOFFS[-1]
    assert larger.vocab.tokens[-2:] == ("zebra", "yak")
    ids, _ = window(model)
    before, after = model.forward(ids)[0], larger.forward(ids)[0]
    assert_same_bits(after[..., :last], before[..., :last])
    np.testing.assert_array_equal(after[..., V:], np.repeat(after[..., V - 1, None], 2, axis=2))
    difference = after[..., last:V] - before[..., last:]
    np.testing.assert_allclose(difference, np.broadcast_to(difference[..., :1], difference.shape), atol=1e-5)


def test_a_larger_vocabulary_in_another_order_is_refused(model):
    tokens = [*model.vocab.tokens, "zebra"]
    tokens[2], tokens[-1] = tokens[-1], tokens[2]
    with pytest.raises(VocabError, match="vocab: expected new tokens after those of a model with adaptive_softmax"):
        model.extended(crnn.Vocab(tokens, "word"))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cutoffs", "error", "match"),
    [
        ([], ValueError, r"rising integers from 1 to \d+, the vocabulary having \d+ tokens, got \[\]"),
        ([0, 5], ValueError, "rising"),
        ([5, 5], ValueError, "rising"),
        ([13, 5], ValueError, "rising"),
        ([5, 10_000], ValueError, "rising"),
        ([5.5], ValueError, "rising"),
        ([True, 5], ValueError, "rising"),
        (["5"], ValueError, "rising"),
        ([1, 2, 3], ValueError, "at most 2 cutoffs for 19 units"),
        ("2000", TypeError, "cutoffs such as"),
        (2000, TypeError, "cutoffs such as"),
        (b"\x05\x0d", TypeError, "cutoffs such as"),
        (True, ValueError, "at least 1000 tokens for the rule of thumb"),
    ],
)
def test_wrong_cutoffs_are_refused(cutoffs, error, match):
    with pytest.raises(error, match=f"^adaptive_softmax: expected .*{match}"):
        model_of(corpus().vocab, cutoffs=cutoffs)


@pytest.mark.parametrize("cutoffs", [(5, 13), np.array([5, 13]), [np.int64(5), 13]])
def test_cutoffs_may_be_any_sequence_of_integers(cutoffs):
    assert model_of(corpus().vocab, cutoffs=cutoffs).config()["adaptive_softmax"] == CUTOFFS


@pytest.mark.parametrize("off", [None, False])
def test_without_cutoffs_the_softmax_is_full(off):
    assert model_of(corpus().vocab, cutoffs=off).adaptive_softmax is None


def test_a_rule_of_thumb_fits_the_vocabulary():
    words = crnn.Vocab([f"w{i}" for i in range(3000)][::-1], "word")
    model = crnn.LanguageModel(words, hidden_size=16, adaptive_softmax=True)
    assert model.adaptive_softmax == suggested_cutoffs(3000, 16)
    assert model.config()["adaptive_softmax"] == suggested_cutoffs(3000, 16)
    for V in (1000, 5001, 10_000, 100_000):
        for H in (4, 16, 650):
            cutoffs = suggested_cutoffs(V, H)
            assert all(a < b for a, b in pairwise([0, *cutoffs, V]))
            assert 4 ** len(cutoffs) <= H


@pytest.mark.parametrize("cutoffs", [True, [1000]])
def test_a_top_layer_that_no_projection_is_smaller_than_is_refused(cutoffs):
    words = crnn.Vocab([f"w{i}" for i in range(3000)][::-1], "word")
    with pytest.raises(ValueError, match=r"^adaptive_softmax: expected at least 4 units in the top layer, got 3"):
        crnn.LanguageModel(words, hidden_size=[8, 3], adaptive_softmax=cutoffs)


def test_tied_weights_are_refused():
    with pytest.raises(ValueError, match="tie_weights: expected False with adaptive_softmax"):
        model_of(corpus().vocab, tie_weights=True)


def test_a_sorted_vocabulary_that_was_made_by_hand_is_refused_by_what_to_call():
    words = [f"w{number:04}" for number in range(30)]
    with pytest.raises(ValueError, match=r"Vocab\.from_counts\(counts, unit='word', order='frequency'\)"):
        model_of(crnn.Vocab(words, "word"))
    counts = {word: 100 - number for number, word in enumerate(words)}
    vocab = crnn.Vocab.from_counts(counts, unit="word", order="frequency")
    assert list(vocab.tokens[-30:]) == words
    model_of(vocab)


@pytest.mark.parametrize("unit", ["char", "word", "byte"])
def test_a_vocabulary_that_is_sorted_is_refused(unit):
    vocab = crnn.TextCorpus.from_text(text(500), unit=unit).vocab
    with pytest.raises(ValueError, match="adaptive_softmax: expected a vocabulary whose most frequent tokens come"):
        model_of(vocab)


def test_a_vocabulary_by_frequency_may_happen_to_be_sorted(tmp_path):
    ranked = " ".join(f"w{rank:02d} " * (90 // (rank + 1)) for rank in range(30))
    vocab = crnn.TextCorpus.from_text(ranked, unit="word", order="frequency").vocab
    assert list(vocab.tokens[1:]) == sorted(vocab.tokens[1:])
    model = model_of(vocab)
    assert model.extended(vocab.extended(["x"])).adaptive_softmax == CUTOFFS
    assert pickle.loads(pickle.dumps(vocab)).is_sorted is False
    model.save(tmp_path / "m.st")  # whose vocabulary has no order
    assert_same_bits(crnn.load(tmp_path / "m.st").flat_params, model.flat_params)


def test_the_most_frequent_tokens_come_first():
    vocab = crnn.Vocab.from_text("b a b c c b d <unk>", unit="word", order="frequency")
    assert vocab.tokens == ("<unk>", "b", "c", "a", "d")
    assert not vocab.is_sorted
    assert crnn.Vocab.from_text("b a b c", unit="word").is_sorted
    assert crnn.Vocab.from_text("b a b c c b d", order="frequency", max_size=3).tokens == (" ", "b", "c")
    assert crnn.Vocab.from_dict(vocab.to_dict()) == vocab
    with pytest.raises(VocabError, match="order: expected 'sorted' or 'frequency', got 'random'"):
        crnn.Vocab.from_text("ab", order="random")
    with pytest.raises(VocabError, match="order: not for unit 'byte'"):
        crnn.Vocab.from_text(b"ab", unit="byte", order="frequency")
    with pytest.raises(VocabError, match="order: not together with vocab"):
        crnn.TextCorpus.from_text("a b", vocab=vocab, order="frequency")


def test_a_text_that_is_too_short_is_refused_as_by_other_models(model):
    with pytest.raises(TextError, match="at least one token"):
        model.score(["the"])


@pytest.mark.parametrize("format", ["keras", "rtneural", "aidax", "nam", "guitarml"])
def test_formats_without_it_refuse_it_before_anything_is_written(model, tmp_path, capsys, format):
    model.save(tmp_path / "m.st")
    before = set(tmp_path.iterdir())
    assert main(["export", "--format", format, str(tmp_path / "m.st"), "-o", str(tmp_path / "out")]) == 1
    assert "expected" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


# ---- other libraries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding_size", [None, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_pytorch_module_computes_the_same_and_comes_back(torch, dtype, embedding_size):
    model = model_of(corpus().vocab, 67, dtype=dtype, embedding_size=embedding_size)
    ids, _ = window(model)
    module = pytorch.to_module(model).eval()
    found, _ = module(torch.tensor(ids.astype("i8")))
    expected, _ = model.forward(ids)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-6 if dtype == "float32" else 1e-13)
    assert list(module.head.cutoffs) == [*CUTOFFS, len(model.vocab)]
    for back in (
        pytorch.from_module(module, vocab=model.vocab),
        pytorch.from_module(
            module.rnn, head=module.head, embedding=module.embedding if embedding_size else None, vocab=model.vocab
        ),
        pytorch.from_state_dict(pytorch.to_state_dict(model), vocab=model.vocab, kind="language_model"),
    ):
        assert_same_bits(back.flat_params, model.flat_params)
        assert back.adaptive_softmax == CUTOFFS


def test_a_file_for_pytorch_comes_back(model, tmp_path):
    pytorch.save_file(model, tmp_path / "m.pt.safetensors")
    back = pytorch.load_file(tmp_path / "m.pt.safetensors", kind="language_model", vocab=model.vocab)
    assert_same_bits(back.flat_params, model.flat_params)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"head.tail.0.0.weight": np.zeros((3, 19))}, "expected a projection to 4 units, as div_value=4 makes it"),
        ({"head.tail.1.1.weight": None}, "head: expected the tensors of an nn.AdaptiveLogSoftmaxWithLoss, got "),
        ({"head.tail.3.0.weight": np.zeros((3, 19))}, "head: expected the tensors of an nn.AdaptiveLogSoftmaxWithLoss"),
        ({"head.tail.1.1.weight": np.zeros((30, 1))}, "head.weight: expected float32 of shape"),
        ({"other.weight": np.zeros((2, 2))}, "and no others, got 'other.weight'"),
    ],
)
def test_tensors_that_are_no_such_model_are_refused_by_name(model, changes, match):
    tensors = pytorch.to_state_dict(model)
    for name, values in changes.items():
        if values is None:
            del tensors[name]
        else:
            tensors[name] = values.astype("f4")
    with pytest.raises(ValueError, match=match):
        pytorch.from_state_dict(tensors, vocab=model.vocab, kind="language_model")


def test_the_head_may_be_named(model):
    tensors = pytorch.to_state_dict(model)
    back = pytorch.from_state_dict(tensors, vocab=model.vocab, head="head")
    assert_same_bits(back.flat_params, model.flat_params)


def test_tensors_of_a_head_are_not_left_out_where_another_one_is_named(model):
    tensors = pytorch.to_state_dict(model)
    tensors["fc.weight"] = np.ones((len(model.vocab), model.net.hidden_size), np.float32)
    with pytest.raises(ValueError, match=r"and no others, got 'head\.head\.bias', 'head\.head\.weight'"):
        pytorch.from_state_dict(tensors, vocab=model.vocab, head="fc")


def test_a_sequence_model_does_not_get_one(model):
    with pytest.raises(ValueError, match=r"head: expected an nn.Linear for a tagger, got an nn.AdaptiveLogSoftmax"):
        pytorch.from_state_dict(pytorch.to_state_dict(model), kind="tagger")


@pytest.mark.parametrize("embedding_size", [None, 9])
def test_an_onnx_graph_computes_the_same_and_comes_back(embedding_size):
    onnx_tools = pytest.importorskip("onnx_tools", exc_type=ImportError)
    model = model_of(corpus().vocab, 67, embedding_size=embedding_size)
    proto = onnx.to_model(model)
    ids, _ = window(model)
    state = np.zeros((1, ids.shape[1], 67), np.float32)
    outputs = onnx_tools.run(onnx_tools.session(proto), ids=ids.astype("i8"), h_in=state)
    np.testing.assert_allclose(outputs["logits"], model.forward(ids)[0], atol=2e-6)
    assert_same_bits(onnx.from_model(proto).flat_params, model.flat_params)


@needs_compiler
@pytest.mark.parametrize("build", ["O0", "O3", "simd"])
@pytest.mark.parametrize("precision", [None, "int8", "bf16"])
def test_an_exported_c_file_has_the_bits_of_a_stream(tmp_path, precision, build):
    model = model_of(corpus().vocab, 35)
    stir(model.flat_params)
    model = model if precision is None else model.quantize(precision)
    c, stream = CModel(model, tmp_path, build), model.stream()
    p = np.empty(len(model.vocab), np.float32)
    for id in np.random.default_rng(1).integers(0, len(model.vocab), 20).tolist():
        y = c.step(id)
        assert_same_bits(y, stream.step(id))
        c("probabilities", p, y)
        assert_same_bits(p, stream.next_probabilities())
    assert c.net.precision == (precision or "float32")


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs crnn in a folder with a text; returns standard output and error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(text(3000))

    def run(line, status=0):
        assert main(line.split()) == status
        return "".join(capsys.readouterr())

    return run


TRAIN = "train a.txt --unit word --hidden 16 --embedding 8 --epochs 1 --test 0 -q"


def test_crnn_train_makes_shows_and_continues_such_a_model(command):
    command(f"{TRAIN} -o m.st --adaptive-softmax 5,13")
    model = crnn.load("m.st")
    assert model.adaptive_softmax == CUTOFFS
    assert not model.vocab.is_sorted
    assert "adaptive_softmax" in (shown := command("info m.st"))
    assert "[5, 13]" in shown
    assert "tail1.W_py" in shown
    assert "bits" in command("eval m.st a.txt")
    assert len(command("sample m.st --length 5 --seed 1").split()) >= 3
    command("train a.txt --epochs 1 -q --init-from m.st -o n.st --test 0")
    assert crnn.load("n.st").adaptive_softmax == CUTOFFS
    assert crnn.load("n.st").vocab == model.vocab


def test_crnn_train_refuses_other_cutoffs_than_those_of_the_model_that_it_starts_from(command):
    command(f"{TRAIN} -o m.st --adaptive-softmax 5,13")
    start = "train a.txt --epochs 1 -q --init-from m.st --adaptive-softmax"
    command(f"{start} 5,13 -o n.st")
    said = command(f"{start} 6,13 -o o.st", 1)
    assert "expected [5, 13]" in said
    assert "got [6, 13]" in said


@pytest.mark.parametrize(
    ("cutoffs", "expected"),
    [
        ("9 --unit byte", "--adaptive-softmax: expected none for unit byte"),
        ("a.txt", "expected integers separated by commas, such as 2000,10000, or auto, got 'a.txt'"),
        ("13,5", "expected rising integers"),
        ("auto", "at least 1000 tokens"),
    ],
)
def test_crnn_train_refuses_wrong_cutoffs_before_it_begins(command, tmp_path, cutoffs, expected):
    before = set(tmp_path.iterdir())
    assert expected in command(f"{TRAIN} -o m.st --adaptive-softmax {cutoffs}", 1)
    assert set(tmp_path.iterdir()) == before
