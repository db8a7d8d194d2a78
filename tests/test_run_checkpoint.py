# SPDX-License-Identifier: MIT
"""Checkpoints: what they hold, what they refuse to go with, and that a damaged one changes nothing."""

import json
import sys

import numpy as np
import pytest
from file_tools import edit
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
from crnn import ModelFileError

IDS = np.random.default_rng(8).integers(12, size=104)
# 7 windows an epoch
SETTINGS = {"epochs": 4, "batch_size": 3, "bptt": 5, "schedule": None, "clip_norm": None, "log_every": 2}
X = [np.random.default_rng(n).normal(size=(4 + n % 3, 2)) for n in range(12)]
Y = [x[:, 0] for x in X]


def fitted(model=None, ids=IDS, **options):
    model = language_model() if model is None else model
    options = {"optimizer": crnn.optim.Adam(lr=0.02), "valid": IDS[:40]} | SETTINGS | options
    crnn.fit(model, ids, **options)
    return model


@pytest.fixture
def path(tmp_path):
    """A checkpoint within the second epoch."""
    fitted(checkpoint=tmp_path / "checkpoint", max_updates=10)
    return tmp_path / "checkpoint"


# ---- what it holds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("valid", [IDS[::-1], None])
def test_a_checkpoint_is_loaded_as_its_best_model(tmp_path, valid):
    path = tmp_path / "c"
    model = fitted(checkpoint=path, valid=valid, optimizer=crnn.optim.SGD(2.0))
    loaded = crnn.load(path)
    assert_same_bits(loaded.flat_params, model.flat_params)
    assert loaded.generate("he", 9, seed=1) == model.generate("he", 9, seed=1)


def test_a_checkpoint_of_a_scaled_model_is_loaded_with_its_scaling(tmp_path):
    model = crnn.SequenceRegressor(2, 1, hidden_size=5, pooling=None)
    model.fit([x * 100 + 50 for x in X], Y, epochs=2, checkpoint=tmp_path / "c")
    loaded = crnn.load(tmp_path / "c")
    for got, expected in zip(loaded.predict(X), model.predict(X), strict=True):
        assert_same_bits(got, expected)


def test_a_long_log_fits_into_a_checkpoint(tmp_path):
    """A header could not hold it."""
    log = crnn.TrainingLog()

    def lengthen(progress):
        if log.epochs == 1:
            first = next(number for number, entry in enumerate(log.entries) if entry["kind"] == "train")
            log.entries[first:first] = [log.entries[first]] * 200_000

    fitted(checkpoint=tmp_path / "c", on_epoch=lengthen, log=log, epochs=2)
    again = crnn.TrainingLog()
    fitted(checkpoint=tmp_path / "c", resume=True, log=again, epochs=2)
    assert [each for each in again.entries if each["kind"] == "train"] == [
        each for each in log.entries if each["kind"] == "train"
    ]


# ---- what it belongs to ----------------------------------------------------------------------------------------------


def swapped(old, new):
    """A language model whose vocabulary has one character instead of another, in the same place."""
    return language_model("hello, new world!\n".replace(old, new))


def dense_model():
    vocab = crnn.Vocab.from_text("hello, new world!\n")
    return crnn.LanguageModel(vocab, "tanh", hidden_size=7, dense_layers=True, seed=3)


DIFFERENT = {
    "another size": (lambda: language_model(H=8), {}, "hidden_size: expected 7, as in FILE, got 8"),
    "another cell": (lambda: language_model(cell="relu"), {}, "cell: expected 'tanh', as in FILE, got 'relu'"),
    "an embedding": (lambda: language_model(E=4), {}, "embedding_size: expected None, as in FILE, got 4"),
    "another precision": (
        lambda: language_model(dtype="float64"),
        {},
        "dtype: expected 'float32', as in FILE, got 'float64'",
    ),
    "an option that files hold only if it is set": (
        dense_model,
        {},
        "dense_layers: expected False, as in FILE, got True",
    ),
    "several differences": (
        lambda: language_model(H=8, cell="gru"),
        {},
        "hidden_size: expected 7, as in FILE, got 8; cell: 'tanh', got 'gru'",
    ),
    "another vocabulary of the same size": (
        lambda: swapped("w", "q"),
        {},
        "vocab: expected that of FILE, with 12 tokens, got one of 12: without 'w' and with 'q'",
    ),
    "a larger vocabulary": (
        lambda: language_model("hello, new world!\nabcfgijk"),
        {},
        "vocab: expected that of FILE, with 12 tokens, got one of 20: with 'a', 'b', 'c', 'f', 'g' and 3 more",
    ),
    "another unit": (
        lambda: language_model("hello, new world!\n", unit="word"),
        {},
        "vocab: expected that of FILE, of chars, got one of words",
    ),
    "another text of the same length": (
        language_model,
        {"ids": np.where(np.arange(104) == 50, 11 - IDS, IDS)},
        "data: expected the training data of FILE, got other data; resuming needs the same data, split alike",
    ),
    "a longer text": (
        language_model,
        {"ids": np.tile(IDS, 2)},
        "data: expected the training data of FILE, got other data; resuming needs the same data, split alike",
    ),
    "another validation": (
        language_model,
        {"valid": IDS[:41]},
        "valid: expected the validation data of FILE, got other data; resuming needs the same data, split alike",
    ),
    "no validation": (
        language_model,
        {"valid": None},
        "valid: expected the validation data of FILE, got none; resuming needs the same data, split alike",
    ),
    "another optimizer": (
        language_model,
        {"optimizer": crnn.optim.RMSprop(0.02)},
        "optimizer: expected 'Adam', as in FILE, got 'RMSprop'",
    ),
    "another beta": (
        language_model,
        {"optimizer": crnn.optim.Adam(0.02, beta1=0.5)},
        "optimizer: beta1: expected 0.9, as in FILE, got 0.5",
    ),
    "another batch within an epoch": (
        language_model,
        {"batch_size": 4},
        "batch_size: expected 3, as in FILE, which is within an epoch, got 4",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_checkpoint_of_something_else_is_refused_and_the_difference_named(path, case):
    make, options, message = DIFFERENT[case]
    model, before = make(), path.read_bytes()
    weights = model.flat_params.copy()
    with pytest.raises(ModelFileError) as caught:
        fitted(model, checkpoint=path, resume=True, **options)
    assert str(caught.value) == message.replace("FILE", str(path))
    assert_same_bits(model.flat_params, weights)
    assert path.read_bytes() == before


def test_a_checkpoint_with_such_an_option_is_refused_by_a_model_without_it(tmp_path):
    fitted(dense_model(), checkpoint=tmp_path / "c")
    with pytest.raises(ModelFileError, match=r"^dense_layers: expected True, as in .*c, got False$"):
        fitted(checkpoint=tmp_path / "c", resume=True)


def test_a_checkpoint_of_another_kind_of_model_is_refused(tmp_path, path):
    model = crnn.SequenceRegressor(2, 1, hidden_size=5, pooling=None)
    with pytest.raises(ModelFileError):
        model.fit(X, Y, checkpoint=path, resume=True)
    model.fit(X, Y, checkpoint=tmp_path / "c", epochs=1)
    with pytest.raises(ModelFileError, match=r"^model: expected a SequenceRegressor, as in .*c, got a LanguageModel"):
        fitted(checkpoint=tmp_path / "c", resume=True)


def test_a_log_that_is_none_is_found_before_anything_is_resumed(tmp_path, path):
    (tmp_path / "thesis.tex").write_text("work")
    model = language_model()
    with pytest.raises(ValueError, match=r"^log_file: expected a new file, or the log of a training, got .*thesis"):
        fitted(model, checkpoint=path, resume=True, log_file=tmp_path / "thesis.tex")
    assert_same_bits(model.flat_params, language_model().flat_params)
    assert (tmp_path / "thesis.tex").read_text() == "work"


def test_the_same_text_in_another_encoding_is_the_same_vocabulary(path):
    model = language_model()
    vars(model)["vocab"] = crnn.Vocab(model.vocab.tokens, encoding="latin-1")
    fitted(model, checkpoint=path, resume=True)


def test_the_same_ids_in_another_type_are_the_same_data(path):
    log = crnn.TrainingLog()
    fitted(ids=IDS.astype(np.uint16), valid=IDS[:40].tolist(), checkpoint=path, resume=True, log=log)
    assert log.epochs == 4


@pytest.mark.parametrize("change", [{"y": 0.5}, {"x": 0.5}, {"rows": 1}])
def test_sequences_or_targets_that_differ_are_refused(tmp_path, change):
    def model():
        return crnn.SequenceRegressor(2, 1, hidden_size=5, pooling=None)

    model().fit(X, Y, checkpoint=tmp_path / "c", epochs=1)
    x, y = [each.copy() for each in X], [each.copy() for each in Y]
    if "y" in change:
        y[3][1] += change["y"]
    if "x" in change:
        x[3][1] += change["x"]
    if "rows" in change:
        x, y = x[1:], y[1:]
    with pytest.raises(ModelFileError, match=r"^data: expected the training data of"):
        model().fit(x, y, checkpoint=tmp_path / "c", epochs=2, resume=True)
    assert model().fit(X, Y, checkpoint=tmp_path / "c", epochs=2, resume=True).log.epochs == 2


# ---- what may change -------------------------------------------------------------------------------------------------


def test_another_rate_and_more_epochs_are_accepted_and_said(path):
    log = crnn.TrainingLog()
    options = {"optimizer": crnn.optim.Adam(0.01, weight_decay=0.1), "epochs": 6, "clip_norm": 1.0, "seed": 5}
    fitted(checkpoint=path, resume=True, log=log, **options, threads=2, patience=50)
    assert log.epochs == 6
    assert log.notes[:6] == [
        "resuming at epoch 2, update 10",
        "lr: now 0.01, before 0.02",
        "weight_decay: now 0.1, before 0.0",
        "epochs: now 6, before 4",
        "clip_norm: now 1.0, before None",
        "seed: now 5, before 0",
    ]


def test_another_schedule_is_accepted_and_said(tmp_path):
    fitted(checkpoint=tmp_path / "c", epochs=1, schedule="cosine")
    log = crnn.TrainingLog()
    schedule = crnn.optim.linear(0.5, warmup=3)
    fitted(checkpoint=tmp_path / "c", epochs=1, schedule=schedule, resume=True, log=log)
    assert log.notes[1:] == ["schedule: now 'linear to 0.5, warm-up 3', before 'cosine to 0.0, warm-up 0'"]


def test_a_checkpoint_of_another_kind_of_model_is_called_so(path, tmp_path):
    model = crnn.SequenceRegressor(2, 1, hidden_size=5, pooling=None)
    with pytest.raises(ModelFileError, match=r"^model: expected a LanguageModel, as in .*, got a SequenceRegressor"):
        model.fit(X, Y, checkpoint=path, resume=True)
    model.fit(X, Y, epochs=1).log.summary()
    model.save(tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"^checkpoint: expected a checkpoint, got a SequenceRegressor"):
        model.fit(X, Y, checkpoint=tmp_path / "m", resume=True)


def test_epochs_of_fewer_windows_can_follow_epochs_of_more(tmp_path):
    log = crnn.TrainingLog()
    fitted(checkpoint=tmp_path / "c", epochs=3, batch_size=1)
    fitted(checkpoint=tmp_path / "c", epochs=5, batch_size=10, resume=True, log=log)
    assert log.epochs == 5
    assert log.column("update", "epoch") == [21, 42, 63, 65, 67]


def test_a_finished_run_goes_on_with_more_epochs(tmp_path):
    whole = fitted(epochs=7)
    fitted(checkpoint=tmp_path / "c", epochs=3)
    log = crnn.TrainingLog()
    model = fitted(checkpoint=tmp_path / "c", epochs=7, resume=True, log=log)
    assert log.notes[0] == "resuming at epoch 4, update 21"
    assert_same_bits(model.flat_params, whole.flat_params)


# ---- scaling and optimizers belong to weights ------------------------------------------------------------------------

MODELS = {
    "regressor": (lambda: crnn.SequenceRegressor(2, 1, hidden_size=5, pooling=None, seed=1), Y),
    "tagger": (lambda: crnn.SequenceTagger(2, 2, hidden_size=5, seed=1), [(x[:, 0] > 0).astype(int) for x in X]),
    "classifier": (lambda: crnn.SequenceClassifier(2, 2, hidden_size=5, seed=1), [int(x[0, 0] > 0) for x in X]),
    "seq2seq": (
        lambda: crnn.SequenceToSequence(2, 3, 5, real_source=True, seed=1),
        [np.arange(len(x)) % 3 for x in X],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_continues_keeps_the_scaling_under_the_trained_weights(name):
    make, y = MODELS[name]
    model = make()
    model.fit(X, y, epochs=3)
    before, loss = model.contents()[0].copy(), model.evaluate(X, y).loss
    statistics = {key: before[key].copy() for key in before if key.startswith("scaling")}
    assert statistics
    other = [x * 10 + 7 for x in X]
    model.fit(other, y, epochs=1, optimizer=crnn.optim.SGD(0), warm_start=True)
    after = model.contents()[0]
    for key, values in statistics.items():
        assert_same_bits(after[key], values)
    assert model.evaluate(X, y).loss == loss
    model.fit(other, y, epochs=1, rescale=True, warm_start=True)
    assert (model.scalings["x"].mean != statistics["scaling.x.mean"]).all()


def test_a_loaded_model_keeps_its_scaling_too(tmp_path):
    make, y = MODELS["regressor"]
    model = make()
    model.fit(X, y, epochs=1)
    model.save(tmp_path / "m")
    loaded = crnn.load(tmp_path / "m")
    loaded.fit([x * 10 for x in X], y, epochs=1)
    assert_same_bits(loaded.scalings["x"].std, model.scalings["x"].std)


@pytest.mark.parametrize("name", MODELS)
def test_a_resumed_run_has_the_scaling_of_its_checkpoint(tmp_path, name):
    make, y = MODELS[name]
    whole, first, second = make(), make(), make()
    whole.fit(X, y, epochs=4, schedule=None)
    first.fit(X, y, epochs=2, schedule=None, checkpoint=tmp_path / "c")
    with pytest.raises(ModelFileError, match=r"^data: expected the training data"):
        second.fit([x * 10 for x in X], y, epochs=4, checkpoint=tmp_path / "c", resume=True)
    assert not second.is_scaled
    second.fit(X, y, epochs=4, schedule=None, checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(second.scalings["x"].mean, first.scalings["x"].mean)
    assert_same_bits(second.flat_params, whole.flat_params)


def test_a_checkpoint_from_before_an_option_is_that_of_its_default(path):
    whole = fitted()

    def without(tensors, header):
        for name in ("weight_dropout", "init", "output_dropout"):
            del header["model"]["config"][name]

    edit(path, without)
    assert_same_bits(fitted(checkpoint=path, resume=True).flat_params, whole.flat_params)


@pytest.mark.parametrize(
    ("option", "value", "before"), [("random_bptt", True, False), ("gradient_noise", 0.1, None)]
)
def test_a_method_that_is_added_or_left_out_when_a_run_is_resumed_is_noted(tmp_path, option, value, before):
    fitted(epochs=2, checkpoint=tmp_path / "c", bptt=12)
    log = crnn.TrainingLog()
    fitted(checkpoint=tmp_path / "c", resume=True, log=log, bptt=12, **{option: value})
    assert f"{option}: now {value}, before {before}" in log.notes
    fitted(epochs=2, checkpoint=tmp_path / "d", bptt=12, **{option: value})
    log = crnn.TrainingLog()
    fitted(checkpoint=tmp_path / "d", resume=True, log=log, bptt=12)
    assert f"{option}: now {before}, before {value}" in log.notes


@pytest.mark.parametrize("before", [False, True])
def test_windows_of_other_lengths_cannot_follow_a_part_of_an_epoch(tmp_path, before):
    """There are as many of both in an epoch."""
    data = {"ids": np.arange(1 + 3 * 36) % 7, "bptt": 12, "checkpoint": tmp_path / "c"}
    fitted(**data, random_bptt=before, max_updates=2)
    with pytest.raises(ModelFileError, match=rf"^random_bptt: expected {before}, as in .* an epoch, got {not before}$"):
        fitted(**data, random_bptt=not before, resume=True)


def test_sequences_in_another_order_cannot_follow_a_part_of_an_epoch(tmp_path):
    """The seed of the model is the seed of the order, and is not in a file."""

    def model(seed):
        return crnn.SequenceRegressor(2, 1, hidden_size=5, pooling=None, seed=seed)

    settings = {"epochs": 3, "batch_size": 2, "checkpoint": tmp_path / "c"}
    model(1).fit(X, Y, **settings, max_updates=9)
    with pytest.raises(ModelFileError, match=r"^seed: expected 1, as in .*c, which is within an epoch, got 2$"):
        model(2).fit(X, Y, **settings, resume=True)
    model(1).fit(X, Y, **settings, max_updates=6, restart=True)
    log = model(2).fit(X, Y, **settings, resume=True).log
    assert log.notes[:2] == ["resuming at epoch 2, update 6", "order: now 2, before 1"]


def test_a_resumed_run_does_not_learn_the_scaling_again(tmp_path):
    make, y = MODELS["regressor"]
    make().fit(X, y, epochs=1, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"^rescale: expected False with resume, which takes"):
        make().fit(X, y, epochs=2, checkpoint=tmp_path / "c", resume=True, rescale=True)


def test_an_optimizer_is_not_taken_from_one_training_to_the_next():
    rule = crnn.optim.Adam(0.02)
    first = fitted(optimizer=rule)
    message = r"^optimizer: expected a new one, got one that has done 28 updates in another training"
    for model in (language_model(), first):
        before = model.flat_params.copy()
        with pytest.raises(ValueError, match=message):
            fitted(model, optimizer=rule)
        assert_same_bits(model.flat_params, before)
    rule.reset()
    assert_same_bits(fitted(optimizer=rule).flat_params, first.flat_params)


@pytest.mark.parametrize("rule", crnn.optim.RULES)
def test_an_optimizer_that_is_reset_is_as_new(rule):
    make = crnn.optim.RULES[rule]
    used = make(lr=0.01)
    expected = fitted(optimizer=make(lr=0.01))
    fitted(optimizer=used)
    used.reset()
    assert used.updates == 0
    assert used.arrays == {}
    assert_same_bits(fitted(optimizer=used).flat_params, expected.flat_params)


def test_a_log_is_not_taken_from_one_training_to_the_next():
    log = crnn.TrainingLog()
    fitted(log=log)
    with pytest.raises(ValueError, match=r"^log: expected an empty log, got one with \d+ entries of another training"):
        fitted(log=log)


# ---- damage ----------------------------------------------------------------------------------------------------------


def edited(change):
    return lambda path: edit(path, change)


def progress(**values):
    return edited(lambda tensors, header: header["progress"].update(values))


def numbers(**values):
    return edited(lambda tensors, header: header["progress"]["optimizer"].update(values))


def tensor(name, make):
    return edited(lambda tensors, header: tensors.update({name: make(tensors.get(name))}))


def logged(change):
    """change(entry) on the first entry of the log."""

    def edit(tensors, header):
        entries = [json.loads(line) for line in tensors["log"].tobytes().splitlines()]
        change(entries[0])
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        tensors["log"] = np.frombuffer(lines.encode(), np.uint8).copy()

    return edited(edit)


def text_tensor(content):
    return tensor("log", lambda _: np.frombuffer(content, np.uint8).copy())


def flip(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 16
    path.write_bytes(content)


PROGRESS = "expected update, position, cut, states, best_epoch, judged and optimizer"
LOG = "expected log, the entries of the log as lines of JSON"
DAMAGE = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-10]), "expected a safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "expected"),
    "a flipped bit": (flip, "sha256|digest"),
    "a model": (lambda path: language_model().save(path), "expected a checkpoint, got a LanguageModel"),
    "no kind": (edited(lambda tensors, header: header.pop("kind")), "expected a checkpoint, got a None"),
    "no model": (edited(lambda tensors, header: header.pop("model")), "expected model, got None"),
    "model a text": (edited(lambda tensors, header: header.update(model="m")), "expected model, got 'm'"),
    "model empty": (edited(lambda tensors, header: header.update(model={})), "^model: expected a None"),
    "config a list": (edited(lambda tensors, header: header["model"].update(config=[])), "expected a config"),
    "vocab a number": (edited(lambda tensors, header: header["model"].update(vocab=3)), "vocab: expected that of"),
    "tokens numbers": (
        edited(lambda tensors, header: header["model"]["vocab"].update(tokens=[1, [2]])),
        "vocab: expected that of",
    ),
    "data a text": (edited(lambda tensors, header: header.update(data="x")), "expected data, got 'x'"),
    "data a number": (edited(lambda tensors, header: header["data"].update(data=3)), "^data: expected"),
    "options a list": (edited(lambda tensors, header: header.update(options=[1])), r"expected options, got \[1\]"),
    "output a number": (edited(lambda tensors, header: header.update(output=1)), "expected output, a digest, got 1"),
    "no progress": (edited(lambda tensors, header: header.update(progress=3)), "expected progress, got 3"),
    "empty progress": (edited(lambda tensors, header: header.update(progress={})), PROGRESS),
    "negative update": (progress(update=-1), PROGRESS),
    "update a text": (progress(update="9"), PROGRESS),
    "update NaN": (progress(update=float("nan")), PROGRESS),
    "update true": (progress(update=True), PROGRESS),
    "update huge": (progress(update=10**400), PROGRESS),
    "update too small": (progress(update=1), PROGRESS),
    "position missing": (edited(lambda tensors, header: header["progress"].pop("position")), PROGRESS),
    "position beyond the text": (progress(position=10**6), PROGRESS),
    "position negative": (progress(position=-1), PROGRESS),
    "position huge": (progress(position=10**400), PROGRESS),
    "judged a number": (progress(judged=1), PROGRESS),
    "no numbers": (progress(optimizer={}), r"state: expected \['power1', 'power2', 'updates'\]"),
    "numbers a list": (progress(optimizer=[]), PROGRESS),
    "updates a text": (numbers(updates="x"), PROGRESS),
    "updates NaN": (numbers(updates=float("nan")), "updates: expected"),
    "updates a fraction": (numbers(updates=9.5), "updates: expected"),
    "updates huge": (numbers(updates=10**400), "updates: expected"),
    "updates large": (numbers(updates=1 << 60), "updates: expected"),
    "updates none": (numbers(updates=0), r"arrays: expected \[\]"),
    "power1 huge": (numbers(power1=10**400), "power1: expected"),
    "power1 NaN": (numbers(power1=float("nan")), "power1: expected"),
    "power1 one": (numbers(power1=1.0), "power1: expected"),
    "power2 infinite": (numbers(power2=float("inf")), "power2: expected"),
    "power2 negative": (numbers(power2=-0.5), "power2: expected"),
    "no log": (edited(lambda tensors, header: tensors.pop("log")), LOG),
    "log of numbers": (tensor("log", lambda log: log.astype(np.float32)), LOG),
    "log in two dimensions": (tensor("log", lambda log: log[None]), LOG),
    "log no JSON": (text_tensor(b"{]"), LOG),
    "log deep": (text_tensor(b"[" * 1900), LOG),
    "log entry no dict": (text_tensor(b"3\n"), LOG),
    "log entry foreign": (text_tensor(b'{"kind": "epoch"}\n'), LOG),
    "log entry a text": (logged(lambda entry: entry.update(tokens="many")), LOG),
    "log entry huge": (logged(lambda entry: entry.update(seconds=10**400)), LOG),
    "log entry of no epoch": (logged(lambda entry: entry.update(epoch=2)), LOG),
    "log entry of the future": (logged(lambda entry: entry.update(update=10**6)), LOG),
    "log update a fraction": (logged(lambda entry: entry.update(update=1.5)), LOG),
    "no params": (edited(lambda tensors, header: tensors.pop("params")), "expected a tensor 'params'"),
    "no weights of the best": (edited(lambda tensors, header: tensors.pop("model.W_hy")), "'model.W_hy'"),
    "no m": (edited(lambda tensors, header: tensors.pop("m")), r"arrays: expected \['m', 'v'\]"),
    "too many": (edited(lambda tensors, header: tensors.update(w=tensors["m"])), "expected the tensors"),
    "wrong shape": (tensor("v", lambda v: v[:-1]), "v: expected float32 of shape"),
    "wrong type": (tensor("params", lambda params: params.astype(np.float64)), "params: expected float32"),
    "NaN": (tensor("params", lambda params: params * np.nan), "params: expected finite|finite"),
    "infinite moments": (tensor("v", lambda v: v + np.inf), "finite"),
    "negative squares": (tensor("v", lambda v: -v - 1), "v: expected numbers of at least 0"),
    "another state": (tensor("state.0", lambda _: np.zeros((1, 9, 7), np.float32)), "state: expected"),
    "a double state": (tensor("state.0", lambda _: np.zeros((1, 3, 7))), r"state\.0: expected float32"),
    "no state": (edited(lambda tensors, header: tensors.pop("state.0")), "expected the tensors"),
    "no state and none expected": (
        edited(lambda tensors, header: header["progress"].update(states=0) or tensors.pop("state.0")),
        "state: expected",
    ),
    "states huge": (progress(states=1 << 50), "expected the tensors"),
    "a state too many": (tensor("state.1", lambda _: np.zeros((1, 3, 7), np.float32)), "expected the tensors"),
    "more states": (
        edited(
            lambda tensors, header: (
                header["progress"].update(states=2) or tensors.update({"state.1": tensors["state.0"]})
            )
        ),
        "state: expected 1 arrays, got 2",
    ),
    "another cut": (progress(cut={"windows": 9}), "expected None, as in|expected"),
    "windows none": (progress(cut={"windows": 0, "batch_size": 3, "bptt": 5, "order": 0}), PROGRESS),
    "cut huge": (progress(cut={"windows": 10**400, "batch_size": 3, "bptt": 5, "order": 0}), "windows: expected"),
    "no cut": (edited(lambda tensors, header: header["progress"].pop("cut")), PROGRESS),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_and_nothing_changes(path, damage):
    apply, message = DAMAGE[damage]
    apply(path)
    model, rule, log = language_model(), crnn.optim.Adam(lr=0.02), crnn.TrainingLog()
    with pytest.raises(ModelFileError, match=message):
        fitted(model, checkpoint=path, resume=True, optimizer=rule, log=log)
    assert_same_bits(model.flat_params, language_model().flat_params)
    assert (rule.updates, rule.arrays, log.entries) == (0, {}, [])


def test_an_edited_checkpoint_that_fits_is_accepted(path):
    edited(lambda tensors, header: None)(path)  # else the test above would show nothing
    fitted(checkpoint=path, resume=True)
    crnn.load(path)


@pytest.mark.parametrize("change", [{"kind": "checkpoint"}, {"kind": "x"}, {"config": {}}, {"vocab": None}])
def test_a_checkpoint_with_an_impossible_model_is_not_loaded(path, change):
    edited(lambda tensors, header: header["model"].update(change))(path)
    with pytest.raises(ModelFileError):
        crnn.load(path)


def test_impossible_scaling_in_a_checkpoint_changes_nothing(tmp_path):
    make, y = MODELS["regressor"]
    make().fit(X, y, epochs=1, checkpoint=tmp_path / "c")
    tensor("model.scaling.x.std", lambda std: -std)(tmp_path / "c")
    model = make()
    with pytest.raises(ModelFileError, match=r"scaling\.x\.std: expected numbers above 0"):
        model.fit(X, y, epochs=2, checkpoint=tmp_path / "c", resume=True)
    assert not model.is_scaled


@pytest.mark.parametrize("option", ["epochs", "max_updates"])
@pytest.mark.parametrize("number", [sys.maxsize, 10**400])
def test_a_run_without_an_end_in_sight_is_resumed(tmp_path, option, number):
    files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log.jsonl", "report": tmp_path / "r.html"}
    corpus = crnn.TextCorpus.from_text("to be or not to be " * 20, valid=0.2)
    for stop in (7, 12):
        model = crnn.LanguageModel(corpus.vocab, hidden_size=4, seed=0)
        settings = {option: number, "batch_size": 4, "bptt": 8, "resume": stop > 7}
        settings["on_update"] = lambda progress, stop=stop: progress.update == stop
        log = crnn.fit(model, corpus, **settings, **files)
        assert log.updates == stop
    assert crnn.TrainingLog.from_file(tmp_path / "log.jsonl").updates == 12


def test_a_run_that_is_resumed_with_less_than_it_has_done_is_finished(tmp_path):
    corpus = crnn.TextCorpus.from_text("to be or not to be " * 20, valid=0.2)
    for settings in ({"epochs": 8}, {"epochs": 2}, {"max_updates": 1}, {"epochs": 1, "max_updates": 2}):
        model = crnn.LanguageModel(corpus.vocab, hidden_size=4, seed=0)
        files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log.jsonl", "resume": settings != {"epochs": 8}}
        log = crnn.fit(model, corpus, batch_size=4, bptt=8, patience=None, **settings, **files)
        assert log.epochs == 8


def test_options_of_the_constructor_that_may_change_are_no_other_model(tmp_path):
    x, y = [np.ones((3, 1)) * i for i in range(6)], [0, 1] * 3
    options = {"checkpoint": tmp_path / "c", "checkpoint_updates": 1}

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crnn.SequenceClassifier(hidden_size=3, batch_size=2, epochs=2).fit(x, y, on_update=interrupt, **options)
    again = crnn.SequenceClassifier(hidden_size=3, batch_size=2, epochs=3, lr=1e-3)
    again.set_params(**again.get_params())  # all given, as in a clone
    again.fit(x, y, resume=True, **options)
    assert again.log.entries[-1]["epoch"] == 3
