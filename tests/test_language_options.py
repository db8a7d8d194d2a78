# SPDX-License-Identifier: MIT
"""What only training of language models has: label smoothing, penalties of outputs; and dropout before the head."""

import numpy as np
import pytest
from kernel_tools import assert_close, assert_same_bits

import crnn
from crnn._core import dispatch
from crnn.models.passes.predictor import Workspace

VOCAB = crnn.Vocab.from_text("abcdefghijk")
T, B = 6, 3
IDS = np.random.default_rng(1).integers(11, size=(T + 1, B))
TARGETS = IDS[1:].copy()
OPTIONS = {"label_smoothing": 0.2, "activation_penalty": 2.0, "temporal_penalty": 3.0}


def model_of(**options):
    return crnn.LanguageModel(VOCAB, **{"hidden_size": 7, "dtype": "float64", "seed": 3} | options)


def window(model, seed=5, **options):
    """Loss, gradients and workspace of a window."""
    space = Workspace()
    model.flat_grads.fill(0)
    total, _, _ = model.loss_and_gradients(IDS[:-1], TARGETS, workspace=space, dropout_seed=seed, **options)
    return total, model.flat_grads.copy(), space


def by_pytorch(torch, model, mask, smoothing=0.0, size=0.0, change=0.0):
    """Summed loss without penalties, and the gradients of the mean with them, of a one-hot LSTM language model."""
    p = {name: torch.tensor(np.array(values), requires_grad=True) for name, values in model.params.items()}
    w, u, b = (p[f"layer0.{name}"] for name in ("W_xh", "W_hh", "b_h"))
    xw, c, h, steps = w[torch.tensor(IDS[:-1])] + b, torch.zeros(B, 7), torch.zeros(B, 7, dtype=torch.float64), []
    for t in range(T):
        i, f, g, o = (xw[t] + h @ u).split(7, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        steps.append(h)
    raw = torch.stack(steps)
    dropped = raw * torch.tensor(np.broadcast_to(mask, raw.shape).copy())
    logits = (dropped @ p["W_hy"] + p["b_y"]).reshape(T * B, -1)
    targets = torch.tensor(TARGETS.reshape(-1))
    loss = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    whole = loss + size * dropped.pow(2).mean() + change * (raw[1:] - raw[:-1]).pow(2).mean()
    whole.backward()
    return loss.item() * T * B, {name: values.grad.numpy() for name, values in p.items()}


@pytest.mark.parametrize("output_dropout", [0.0, 0.4])
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("names", [["label_smoothing"], ["activation_penalty"], ["temporal_penalty"], list(OPTIONS)])
def test_loss_and_gradients_are_pytorchs(torch, monkeypatch, names, output_dropout, blocks):
    if blocks:  # of a large vocabulary
        monkeypatch.setattr("crnn.models.outputs.blocks.BLOCK_BYTES", 1)
        monkeypatch.setattr("crnn.models.outputs.blocks.LEAST_ROWS", 4)
    options = {name: OPTIONS[name] for name in names}
    model = model_of(output_dropout=output_dropout, **options)
    total, _, space = window(model)
    mask = np.ones(1) if space.head.mask is None else space.head.mask
    assert (mask == 0).any() == (output_dropout > 0)
    arguments = [options.get(name, 0.0) for name in OPTIONS]
    loss, grads = by_pytorch(torch, model, mask, *arguments)
    assert total == pytest.approx(loss, rel=1e-12)
    for name, grad in grads.items():
        assert_close(model.grads[name], grad)


def test_a_sum_of_losses_has_a_sum_of_penalties():
    model = model_of(**OPTIONS)
    _, mean, _ = window(model)
    _, total, _ = window(model, reduction="sum")
    assert_close(total, mean * T * B)


@pytest.mark.parametrize("name", OPTIONS)
def test_evaluation_does_not_depend_on_them(name):
    model, plain = model_of(**{name: OPTIONS[name]}), model_of()
    assert_same_bits(model.flat_params, plain.flat_params)
    ids = IDS.reshape(-1)
    assert model.evaluate(ids) == plain.evaluate(ids)
    assert_same_bits(model.losses(IDS[:-1], TARGETS)[0], plain.losses(IDS[:-1], TARGETS)[0])
    assert_same_bits(model.surprisals([ids])[0], plain.surprisals([ids])[0])
    assert model.score(["abcab", "kjh"]) == plain.score(["abcab", "kjh"])
    assert not np.array_equal(window(model)[1], window(plain)[1])


@pytest.mark.parametrize("options", [{"label_smoothing": 0.3}, OPTIONS])
def test_gradients_are_checked_with_the_smoothed_loss(options):
    assert crnn.gradient_check(model_of(**options), (IDS[:-1], TARGETS)).largest < 1e-6


def test_penalties_belong_to_training_alone():
    model = model_of(activation_penalty=2.0, temporal_penalty=1.0)
    assert_same_bits(window(model, seed=None)[1], window(model_of(), seed=None)[1])
    one = window(model, seed=5)[0]
    assert one == window(model_of(), seed=5)[0]  # the reported loss is without them


def test_output_dropout_takes_the_place_of_dropout_before_the_head():
    one, other = (window(model_of(num_layers=2, dropout=0.25, output_dropout=p)) for p in (None, 0.25))
    assert_same_bits(one[1], other[1])
    _, _, space = window(model_of(num_layers=2, dropout=0.25, output_dropout=0.0))
    assert space.head.mask is None
    assert (space.tape.layers[1].mask == 0).any()
    _, _, space = window(model_of(num_layers=2, output_dropout=0.5))
    assert space.tape.layers[1].mask is None
    assert 0.3 < (space.head.mask == 0).mean() < 0.7
    classifier = crnn.SequenceClassifier(3, 2, hidden_size=4, output_dropout=0.5)
    rng = np.random.default_rng(0)
    classifier.fit([rng.normal(size=(5, 3)) for _ in range(8)], [0, 1] * 4, epochs=1)


def trained(threads=1, shards=None, **options):
    model = crnn.LanguageModel(VOCAB, hidden_size=9, num_layers=2, seed=3, output_dropout=0.3, **OPTIONS | options)
    ids = IDS.reshape(-1).repeat(9)
    model.fit(ids, epochs=2, batch_size=3, bptt=7, valid=None, threads=threads, shards=shards)
    return model


def test_training_has_the_same_bits_on_every_instruction_set_and_number_of_threads(any_isa):
    found = []
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        found += [trained(threads).flat_params.copy() for threads in (1, 3)]
    for other in found[1:]:
        assert_same_bits(other, found[0])
    for name in OPTIONS:
        assert not np.array_equal(found[0], trained(**{name: 0.0}).flat_params)


def test_a_file_keeps_them_and_models_without_them_have_files_as_before(tmp_path):
    model = model_of(**OPTIONS)
    model.save(tmp_path / "m.safetensors")
    loaded = crnn.load(tmp_path / "m.safetensors")
    assert {name: loaded.config()[name] for name in OPTIONS} == OPTIONS
    assert_same_bits(window(loaded)[1], window(model)[1])
    assert not OPTIONS.keys() & model_of().config().keys()
    larger = model.extended(VOCAB.extended("z"))
    assert {name: larger.config()[name] for name in OPTIONS} == OPTIONS


def test_penalties_work_with_an_adaptive_softmax():
    words = "z y z x z y d e z y x f " * 40
    corpus = crnn.TextCorpus.from_text(words, unit="word", order="frequency")
    options = {"hidden_size": 8, "adaptive_softmax": [3], "seed": 1}
    plain, penalised = (crnn.LanguageModel(corpus.vocab, activation_penalty=a, **options) for a in (0, 5))
    for model in (plain, penalised):
        model.fit(corpus, epochs=2, batch_size=4, bptt=10)
    h = [np.square(model.net(corpus.train[:50, None])[0]).mean() for model in (plain, penalised)]
    assert h[1] < h[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: expected"),
        ({"label_smoothing": -0.1}, "label_smoothing: expected"),
        ({"activation_penalty": -1}, "activation_penalty: expected"),
        ({"temporal_penalty": float("nan")}, "temporal_penalty: expected"),
        ({"output_dropout": 1.0}, "output_dropout: expected"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        model_of(**options)


def test_label_smoothing_is_refused_with_an_adaptive_softmax():
    corpus = crnn.TextCorpus.from_text("z y z x z y d e " * 9, unit="word", order="frequency")
    with pytest.raises(ValueError, match=r"label_smoothing: expected 0 .* scores of all tokens .*, got 0\.1"):
        crnn.LanguageModel(corpus.vocab, hidden_size=8, adaptive_softmax=[3], label_smoothing=0.1)


def test_the_shell_has_them(run, tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, " * 200)
    start = ["train", tmp_path / "text.txt", "-q", "--epochs", 1, "--hidden", 4, "-o"]
    options = ["--label-smoothing", 0.1, "--activation-penalty", 2, "--output-dropout", 0.1]
    run(*start, tmp_path / "m.safetensors", *options)
    config = crnn.load(tmp_path / "m.safetensors").config()
    assert (config["label_smoothing"], config["activation_penalty"], config["output_dropout"]) == (0.1, 2.0, 0.1)
    more = ["--init-from", tmp_path / "m.safetensors", "--label-smoothing", 0.0, "--temporal-penalty", 1]
    run(*start, tmp_path / "n.safetensors", *more)  # they may differ from those of the model to start from
    config = crnn.load(tmp_path / "n.safetensors").config()
    assert "label_smoothing" not in config
    assert (config["activation_penalty"], config["temporal_penalty"]) == (2.0, 1.0)


def test_shards_that_run_at_once_have_the_bits_of_shards_that_run_one_by_one(monkeypatch):
    at_once = trained(shards=3).flat_params.copy()
    monkeypatch.setattr(crnn.LanguageModel, "window_in_shards", lambda *arguments, **options: None)
    assert_same_bits(trained(shards=3).flat_params, at_once)
