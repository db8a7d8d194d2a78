# SPDX-License-Identifier: MIT
"""Training in bf16: gradients of products with rounded operands, the same everywhere, and options that say so."""

import json

import numpy as np
import oracle
import pytest
from file_tools import edit
from kernel_tools import assert_close, assert_same_bits
from model_tools import language_model, network, stir, text
from oracle_quantised import backward_in_bf16, in_bf16
from task_tools import CELLS

import crnn
from crnn import ModelFileError, cli
from crnn._core import dispatch
from crnn.nn.precision import PRECISIONS, TRAINING
from crnn.nn.tape import Tape

T, B, D, H = 6, 3, 5, 7
SEED = 2
IDS = np.random.default_rng(8).integers(12, size=300)
BF16 = {"precision": "bf16"}
cells = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture
def rng():
    """Its numbers lead to none so close to the middle of two in bf16 that the oracle rounds to the other one."""
    return np.random.default_rng(SEED)


# ---- gradients -----------------------------------------------------------------------------------------------------

SHAPES = {
    "one layer": {},
    "bidirectional layers": {"L": 2, "bidirectional": True},
    "lengths": {"L": 2, "lengths": [2, 6, 3]},
    "dense layers": {"L": 2, "dense_layers": True},
    "trainable initial state": {"trainable_initial_state": True},
    "embedding": {"D": 23, "E": 4},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@cells
def test_gradients_are_those_of_products_with_rounded_operands(rng, cell, shape):
    options = dict(shape)
    lengths, size = options.pop("lengths", None), options.pop("D", D)
    net = network(size, H, cell=cell, **options)
    x = rng.integers(size, size=(T, B)) if "E" in options else rng.normal(size=(T, B, size)).astype("f4")
    given = rng.normal(size=np.shape(net(x)[1])).astype("f4")
    state = None if net.trainable_initial_state else tuple(given) if cell in oracle.WITH_C else given
    dy = rng.normal(size=(T, B, net.output_size)).astype("f4")
    y, after, tape = net.forward(x, state, lengths=lengths, **BF16)
    dx, before = net.backward(tape, dy)

    params = in_bf16(net.params)
    truth = oracle.rnn_forward(params, x, state, cell, lengths=lengths, dense=net.dense_layers)
    grads, true_dx, true_before = backward_in_bf16(params, truth, dy)
    assert_close(y, truth.y)
    assert_close(np.array(after), np.array(truth.state))
    assert_close(np.array(before), np.array(true_before))
    for name, grad in net.grads.items():
        assert_close(grad, grads[name])
    if dx is not None:
        assert_close(dx, true_dx)
    in_float32, _, _ = net.forward(x, state, lengths=lengths)
    assert np.abs(y - in_float32).max() > 1e-5 * np.abs(y).max()


@cells
def test_dropout_comes_before_the_operands_are_rounded(rng, cell):
    options = {"dropout": 0.4} if cell == "min_gru" else {"dropout": 0.4, "recurrent_dropout": 0.3}
    net = network(D, H, 2, cell, **options)
    x, dy = (rng.normal(size=(T, B, size)).astype("f4") for size in (D, H))
    y, _, tape = net.forward(x, dropout_seed=1, **BF16)
    net.backward(tape, dy)
    recurrent = [each.mask for each in tape.recurrences]
    params, masks = in_bf16(net.params), {"dropout": [tape.layers[1].mask], "recurrent_dropout": recurrent}
    truth = oracle.rnn_forward(params, x, None, cell, **masks)
    assert_close(y, truth.y)
    for name, grad in backward_in_bf16(params, truth, dy)[0].items():
        assert_close(net.grads[name], grad)


@pytest.mark.parametrize("options", [{}, {"embedding_size": H, "tie_weights": True}], ids=["plain", "tied"])
@cells
def test_a_language_model_looks_up_rows_in_float32_and_multiplies_the_rest_in_bf16(rng, cell, options):
    """Its one-hot inputs are not multiplied, its head is. A state is carried from the window before."""
    vocab = crnn.Vocab.from_text("".join(map(chr, range(97, 97 + 22))))
    model = crnn.LanguageModel(vocab, cell, H, 2, seed=3, **options)
    stir(model.flat_params)
    params = in_bf16(model.params)
    if options:
        params["W_hy"] = params["embedding"].T
    workspace, state, true_state = model.workspace(), None, None
    for _ in range(3):
        ids, targets = rng.integers(22, size=(2, T, B))
        model.flat_grads.fill(0)
        loss, count, state = model.loss_and_gradients(ids, targets, state, workspace=workspace, **BF16)
        truth = oracle.rnn_forward(params, ids, true_state, cell)
        losses, dy = oracle.cross_entropy(np.asarray(truth.y), targets)
        assert loss == pytest.approx(losses.sum(), rel=1e-5)
        grads, _, _ = backward_in_bf16(params, truth, dy / count)
        if options:
            grads["embedding"] = grads["embedding"] + grads.pop("W_hy").T
        for name, grad in model.grads.items():
            assert_close(grad, np.asarray(grads[name]), 2e-5)
        assert_close(np.array(state), np.array(truth.state))
        true_state = truth.state


def test_the_table_of_a_small_vocabulary_is_multiplied_in_bf16(rng):
    """More steps than ids: an embedding is multiplied once for each id, and the rows' gradients are added first."""
    ids, dy = rng.integers(4, size=(T, B)), rng.normal(size=(T, B, H)).astype("f4")
    few, many = network(4, H, cell="gru", E=5), network(40, H, cell="gru", E=5)
    for name, values in few.params.items():
        many.params[name][: len(values)] = values
    y, _, tape = few.forward(ids, **BF16)
    assert_same_bits(y, many.forward(ids, **BF16)[0])
    few.backward(tape, dy)
    dtable = np.zeros((4, 3 * H))
    np.add.at(dtable, ids, tape.recurrences[0].da)
    params = in_bf16(few.params)
    assert_close(few.grads["layer0.W_xh"], np.asarray(params["embedding"].T @ dtable))
    assert_close(few.grads["embedding"], np.asarray(dtable @ params["layer0.W_xh"].T))


def test_encoder_and_decoder_are_multiplied_in_bf16():
    model = crnn.SequenceToSequence(12, 12, hidden_size=6, seed=1)
    batch, targets = model.data([*IDS[:80].reshape(16, 5)], [*IDS[80:160].reshape(16, 5)]).batch(np.arange(16))
    workspace = model.workspace()
    model.loss_and_gradients(batch, targets, workspace=workspace, **BF16)
    assert_same_bits(workspace.encoder.y, model.encoder.forward(batch.x, **BF16)[0])
    assert np.abs(workspace.encoder.y - model.encoder(batch.x)[0]).max() > 0
    assert workspace.tape.precision == workspace.head.precision == "bf16"


# ---- the same everywhere --------------------------------------------------------------------------------------------


def updated(cell, threads=1, workspaces=True):
    """Weights after some updates of windows whose states are carried; the first of them are recorded and repeated."""
    model = crnn.LanguageModel(crnn.Vocab.from_text("abcdefghijk"), cell, 37, 2, dropout=0.2, seed=1)
    rng, workspace, state = np.random.default_rng(0), model.workspace() if workspaces else None, None
    optimizer = crnn.optim.Adam(lr=0.01)
    for update in range(6):
        ids = rng.integers(0, 11, (12, 5))
        model.flat_grads.fill(0)
        seed = update if update > 3 else None
        _, _, state = model.loss_and_gradients(
            ids[:-1], ids[1:], state, threads=threads, workspace=workspace, dropout_seed=seed, **BF16
        )
        state = state.copy() if isinstance(state, np.ndarray) else tuple(part.copy() for part in state)
        optimizer.update(model.flat_params, model.flat_grads)
    return model.flat_params


@cells
def test_a_repeated_window_and_two_threads_give_the_bits_of_one(cell):
    expected = updated(cell)
    assert np.isfinite(expected).all()
    assert_same_bits(updated(cell, threads=2), expected)
    assert_same_bits(updated(cell, workspaces=False), expected)


@pytest.mark.thread_unsafe  # the instruction set is the process's
@cells
def test_training_has_the_same_bits_on_every_instruction_set(any_isa, cell):
    results = []
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        results.append(updated(cell))
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_a_tape_and_a_workspace_serve_both_precisions(rng):
    net, x, dy = network(D, H, 2, "lstm"), *(rng.normal(size=(T, B, size)).astype("f4") for size in (D, H))
    tape, expected = None, {}
    for precision in (None, "bf16", None, "bf16"):
        net.flat_grads.fill(0)
        y, _, tape = net.forward(x, tape=tape, precision=precision)
        net.backward(tape, dy)
        found = np.concatenate([y.ravel(), net.flat_grads])
        assert_same_bits(found, expected.setdefault(precision, found))
    assert np.abs(expected[None] - expected["bf16"]).max() > 0


def test_a_frozen_network_still_infers_in_float32_afterwards(rng):
    net, x = network(D, H, 2, "gru"), rng.normal(size=(T, B, D)).astype("f4")
    frozen, expected = net.frozen(), net(x)[0]
    in_bf16 = net.forward(x, **BF16)[0]
    assert_same_bits(frozen.forward(x, **BF16)[0], in_bf16)
    assert_same_bits(frozen(x)[0], expected)
    assert_same_bits(frozen.forward(x, **BF16)[0], in_bf16)
    assert_same_bits(net(x)[0], expected)


# ---- fit ------------------------------------------------------------------------------------------------------------

SETTINGS = {"epochs": 3, "batch_size": 4, "bptt": 6, "optimizer": crnn.optim.Adam(lr=0.01), "progress": False}


def settings(**options):
    return SETTINGS | {"optimizer": crnn.optim.Adam(lr=0.01)} | options


@cells
def test_the_loss_falls_about_as_in_float32(cell):
    corpus = crnn.TextCorpus.from_text(text(3000), valid=0.1, test=0)
    losses = {}
    for precision in (None, "bf16"):
        model = crnn.LanguageModel(corpus.vocab, cell, 32, seed=1)
        log = crnn.fit(model, corpus, **settings(epochs=6, batch_size=8, bptt=16), precision=precision)
        assert model.flat_params.dtype == "float32"
        losses[precision] = log.best["valid_loss"]
    assert losses[None] < 2.4
    assert losses["bf16"] == pytest.approx(losses[None], rel=0.01)
    assert losses["bf16"] != losses[None]


def sequence_models():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(3 + n % 4, 2)) for n in range(16)]
    of_steps = [(x[:, 0] > 0).astype(int) for x in X]
    texts, wave = ["to be", "or not", "be or", "not to"] * 4, np.sin(np.arange(60) / 3)
    return {
        "classifier": (crnn.SequenceClassifier(hidden_size=6, seed=1), (X, [x[0, 0] > 0 for x in X])),
        "bidirectional classifier": (
            crnn.SequenceClassifier(hidden_size=6, num_layers=2, bidirectional=True, pooling="mean", dropout=0.2),
            (X, [x[0, 0] > 0 for x in X]),
        ),
        "tagger": (crnn.SequenceTagger(hidden_size=6, cell="gru", seed=1), (X, of_steps)),
        "regressor": (crnn.SequenceRegressor(hidden_size=6, cell="lstm", seed=1), (X, [x.sum() for x in X])),
        "translator": (crnn.SequenceToSequence(12, 12, hidden_size=6, seed=1), ([*IDS[:80].reshape(16, 5)],) * 2),
        "forecaster": (crnn.Forecaster(horizon=2, hidden_size=6, seed=1), (wave,)),
        "language model": (crnn.LanguageModel(crnn.Vocab.from_text("".join(texts)), "gru", 6, seed=1), None),
    }


@pytest.mark.parametrize("kind", sequence_models())
def test_every_kind_of_model_is_trained_in_bf16(kind):
    weights = {}
    for precision, threads in ((None, 1), ("bf16", 1), ("bf16", 2)):
        model, data = sequence_models()[kind]
        data = data or (IDS % 5,)
        model.fit(*data, epochs=2, batch_size=4, precision=precision, threads=threads, progress=False)
        weights[precision, threads] = model.flat_params.copy()
        config = model.config() if hasattr(model, "config") else model.get_params()
        assert config["precision"] is None  # the trained model is an ordinary one
    assert weights["bf16", 1].dtype == "float32"
    assert_same_bits(weights["bf16", 2], weights["bf16", 1])
    assert 0 < np.abs(weights["bf16", 1] - weights[None, 1]).max() < 0.2


def test_a_model_trained_in_bf16_streams_and_is_quantised(tmp_path):
    model = language_model(text(400), H=16)
    crnn.fit(model, IDS, **settings(), **BF16)
    logits, _ = model.forward(IDS[:9, None])
    assert_same_bits(model.stream().run(IDS[:9]), logits[:, 0])
    model.save(tmp_path / "m.safetensors")
    assert_same_bits(crnn.load(tmp_path / "m.safetensors").flat_params, model.flat_params)
    assert_close(model.quantize("bf16").forward(IDS[:9, None])[0], logits, 0.02)


# ---- checkpoints and records ----------------------------------------------------------------------------------------


def test_a_resumed_run_is_bit_identical(tmp_path):
    path, whole, resumed = tmp_path / "c", language_model(), language_model()
    crnn.fit(whole, IDS, **settings(schedule=None), **BF16)
    crnn.fit(resumed, IDS, **settings(max_updates=17, schedule=None), checkpoint=path, **BF16)
    log = crnn.fit(resumed, IDS, **settings(schedule=None), checkpoint=path, resume=True, **BF16)
    assert log.column("update")[-1] > 17
    assert_same_bits(resumed.flat_params, whole.flat_params)


@pytest.mark.parametrize(("before", "now"), [("bf16", None), (None, "bf16")])
def test_a_run_is_not_resumed_in_another_precision(tmp_path, before, now):
    path, model = tmp_path / "c", language_model()
    crnn.fit(model, IDS, **settings(max_updates=17, schedule=None), checkpoint=path, precision=before)
    weights, content = model.flat_params.copy(), path.read_bytes()
    with pytest.raises(ModelFileError, match=f"precision: expected {before!r}, as in .*c, got {now!r}"):
        crnn.fit(model, IDS, **settings(), checkpoint=path, resume=True, precision=now)
    assert_same_bits(model.flat_params, weights)
    assert path.read_bytes() == content


def test_a_checkpoint_that_is_older_than_the_option_is_one_of_a_run_in_float32(tmp_path):
    path, resumed, whole = tmp_path / "c", language_model(), language_model()
    crnn.fit(whole, IDS, **settings(schedule=None))
    crnn.fit(resumed, IDS, **settings(max_updates=17, schedule=None), checkpoint=path)
    edit(path, lambda tensors, header: header["options"].pop("precision"))
    with pytest.raises(ModelFileError, match=r"precision: expected None, as in .*c, got 'bf16'"):
        crnn.fit(resumed, IDS, **settings(schedule=None), checkpoint=path, resume=True, **BF16)
    log = crnn.fit(resumed, IDS, **settings(schedule=None), checkpoint=path, resume=True)
    assert not any("precision" in note for note in log.notes)
    assert_same_bits(resumed.flat_params, whole.flat_params)


def test_log_report_and_file_say_in_which_precision_a_model_was_trained(tmp_path):
    model, files = language_model(), {"log_file": tmp_path / "run.jsonl", "report": tmp_path / "run.html"}
    crnn.fit(model, IDS, **settings(), **files, **BF16)
    assert model.training_runs[-1]["settings"]["precision"] == "bf16"
    run = next(entry for entry in map(json.loads, files["log_file"].read_text().splitlines()) if entry["kind"] == "run")
    assert run["options"]["precision"] == "bf16"
    assert "bf16" in files["report"].read_text()


# ---- what is refused ------------------------------------------------------------------------------------------------


FOR_INFERENCE = sorted(set(PRECISIONS) - set(TRAINING))


@pytest.mark.parametrize("precision", [*FOR_INFERENCE, "float16", "", 16, True, {"W_hy": "bf16"}, np.float32], ids=str)
def test_another_precision_is_refused_by_name(rng, precision):
    model, net = language_model(), network()
    before = model.flat_params.copy()
    why = ", which is for inference: quantize the model after training" if str(precision) in FOR_INFERENCE else ""
    for call in (
        lambda: crnn.fit(model, IDS, precision=precision),
        lambda: model.loss_and_gradients(IDS[:4, None], IDS[1:5, None], precision=precision),
        lambda: net.forward(rng.normal(size=(T, B, D)), precision=precision),
    ):
        with pytest.raises(ValueError, match=r"^precision: expected 'bf16' or None, got ") as error:
            call()
        assert str(error.value).endswith(why)
    assert_same_bits(model.flat_params, before)
    assert not model.flat_grads.any()


def test_float64_is_refused_by_name(rng, tmp_path):
    X, y = rng.normal(size=(8, 5, 2)), np.arange(8) % 2
    model, net = language_model(dtype="float64"), network(dtype="float64")
    classifier = crnn.SequenceClassifier(hidden_size=4, dtype="float64")
    for call in (
        lambda: crnn.fit(model, IDS, checkpoint=tmp_path / "c", **BF16),
        lambda: model.loss_and_gradients(IDS[:4, None], IDS[1:5, None], **BF16),
        lambda: net.forward(rng.normal(size=(T, B, D)), **BF16),
        lambda: classifier.fit(X, y, **BF16),
    ):
        with pytest.raises(ValueError, match=r"^precision: expected a float32 model for 'bf16', got one in float64"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_quantised_network_is_not_trained_in_bf16_either(rng):
    net = network().quantize("bf16")
    with pytest.raises(ValueError, match="precision: expected None in a network that is trained, got 'bf16'"):
        net.forward(rng.normal(size=(T, B, D)), **BF16)


def test_a_model_of_the_users_that_knows_no_precision_is_refused_for_bf16():
    class Other:
        """A language model with a method of its own."""

        def __init__(self):
            self.model = language_model()

        def __getattr__(self, name):
            return getattr(self.model, name)

        def loss_and_gradients(self, x, targets, state=None, *, reduction, threads, workspace, dropout_seed):
            return self.model.loss_and_gradients(x, targets, state, reduction=reduction, workspace=workspace)

    class PassesOn(Other):
        def loss_and_gradients(self, x, targets, state=None, **options):
            return self.model.loss_and_gradients(x, targets, state, **options)

    crnn.fit(Other(), IDS, epochs=1, progress=False)
    with pytest.raises(ValueError, match="precision: expected a model whose loss_and_gradients takes a precision"):
        crnn.fit(Other(), IDS, **BF16)
    theirs, ours = PassesOn(), language_model()
    for model in (theirs, ours):
        crnn.fit(model, IDS, **settings(), **BF16)
    assert_same_bits(theirs.flat_params, ours.flat_params)


def test_weights_that_bf16_cannot_hold_are_a_run_that_diverges():
    """As in float32, where the loss is not finite either."""
    model = language_model()
    model.params["layer0.W_hh"][0, 0] = 3.4e38
    with pytest.raises(FloatingPointError, match="at update 1"):
        crnn.fit(model, IDS, **settings(), **BF16)


@pytest.mark.parametrize("keep", [True, False])
def test_a_gradient_check_of_a_model_trained_in_bf16_is_in_float64(keep, monkeypatch):
    monkeypatch.setattr(Tape, "repeatable", keep)
    model = language_model()
    crnn.fit(model, IDS, **settings(), **BF16)
    ids = IDS[:12].reshape(6, 2)
    assert crnn.gradient_check(model, (ids[:-1], ids[1:])).largest < 1e-6


# ---- in a shell ------------------------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe  # standard output and error are the process's
def test_crnn_train_does_what_fit_does(tmp_path, text_file, run):
    tiny = ["--hidden", 9, "--epochs", 2, "--batch", 4, "--bptt", 8]
    run("train", text_file, "-o", tmp_path / "m", *tiny, "--precision", "BF16")
    corpus = crnn.TextCorpus.from_file(text_file)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=9, seed=0)
    crnn.fit(model, corpus, epochs=2, batch_size=4, bptt=8, **BF16)
    assert_same_bits(crnn.load(tmp_path / "m").flat_params, model.flat_params)
    assert "precision" in run("info", tmp_path / "m")[0]
    _, err = run("train", text_file, "-o", tmp_path / "m", *tiny, "--resume", status=1)
    assert f"--precision: expected 'bf16', as in {tmp_path / 'm'}.checkpoint, got None" in err


@pytest.mark.thread_unsafe
@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--precision", "int8"], "--precision: expected 'bf16', got 'int8', which is for inference: crnn quantize"),
        (["--precision", "fp16"], "--precision: expected 'bf16', got 'fp16'"),
        (["--precision", "bf16", "--dtype", "float64"], "--precision: expected a float32 model for 'bf16', got one in"),
    ],
)
def test_crnn_train_refuses_other_precisions_in_its_words(tmp_path, text_file, capsys, options, why):
    arguments = ["train", str(text_file), "-o", str(tmp_path / "m"), *options]
    try:
        status = cli.main(arguments)
    except SystemExit as error:  # what argparse refuses
        status = error.code
    assert status in (1, 2)
    assert why in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
