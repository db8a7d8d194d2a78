# SPDX-License-Identifier: MIT
"""Callbacks of fit: what on_update and on_epoch are told, stopping by what they return, and samples while training."""

import threading

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
from crnn.training.advice import advice, unlearnt
from crnn.training.protocols import Observation

IDS = np.random.default_rng(8).integers(12, size=104)
SETTINGS = {"epochs": 3, "batch_size": 3, "bptt": 5, "schedule": None}  # 7 windows an epoch
CALLBACKS = ["on_update", "on_epoch"]


def fitted(model=None, **options):
    return crnn.fit(language_model() if model is None else model, IDS, **(SETTINGS | {"optimizer": rule()} | options))


def rule():
    return crnn.optim.Adam(lr=0.02)


def text_of(model):
    return f"{model.flat_params[0]:.9g}"


def sampling(**sizes):
    """A model whose sample tells its weights apart."""
    model = language_model(**sizes)

    def sample(model, view):
        yield {"prompt": "w", "text": text_of(model), "temperature": 0.5}

    vars(model)["observed"] = [Observation("sample", "sample", sample)]
    return model


def stop_at(number):
    """A callback that stops training at this update or epoch."""
    return lambda progress: number in (progress.update, progress.epoch * 100)


# ---- what they are told ----------------------------------------------------------------------------------------------


def test_on_update_is_told_of_every_update():
    model, seen = language_model(), []
    log = fitted(model, on_update=seen.append, log_every=1, schedule=crnn.optim.linear(), valid=IDS[:20])
    assert all(each.model is model and each.log is log for each in seen)
    assert [each.update for each in seen] == list(range(1, 22))
    assert [each.epoch for each in seen] == [1] * 7 + [2] * 7 + [3] * 7
    assert {(each.epochs, each.updates, each.valid_loss) for each in seen} == {(3, 21, None)}
    for name, column in (("loss", "train_loss"), ("lr", "lr"), ("grad_norm", "grad_norm")):
        assert [getattr(each, name) for each in seen] == log.column(column)


def test_on_epoch_is_told_of_every_epoch():
    seen, lasts = [], []

    def on_epoch(progress):
        seen.append(progress)
        lasts.append(progress.log.last["epoch"])

    log = fitted(on_epoch=on_epoch, log_every=1, valid=IDS[:20])
    assert lasts == [1, 2, 3]
    assert [(each.epoch, each.update) for each in seen] == [(1, 7), (2, 14), (3, 21)]
    assert [each.loss for each in seen] == log.column("train_loss", "epoch")
    assert [each.valid_loss for each in seen] == log.column("valid_loss", "epoch")
    assert [each.grad_norm for each in seen] == log.column("grad_norm")[6::7]


def test_the_log_has_the_entries_up_to_the_update_when_on_update_is_called():
    ends = []
    fitted(on_update=lambda progress: ends.append(progress.log.entries[-1]["update"]), log_every=1)
    assert ends == list(range(1, 22))


def test_callbacks_do_not_change_the_result():
    model, watched = language_model(L=2), sampling(L=2)
    fitted(model)
    fitted(watched, on_update=lambda progress: False, on_epoch=lambda progress: np.False_, sample_every=1)
    assert_same_bits(watched.flat_params, model.flat_params)


def test_models_of_whole_sequences_take_callbacks(rng):
    X = [rng.normal(size=(n, 2)) for n in (4, 5, 6, 7)]
    model, seen = crnn.SequenceClassifier(hidden_size=3), []
    log = model.fit(X, [0, 1, 0, 1], epochs=5, batch_size=2, on_update=seen.append, on_epoch=stop_at(200)).log
    assert log.epochs == 2
    assert [each.update for each in seen] == [1, 2, 3, 4]
    assert isinstance(seen[0].model, crnn.SequenceClassifier)


# ---- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "updates", "epochs"),
    [("on_update", 1, 1, 1), ("on_update", 10, 10, 2), ("on_update", 14, 14, 2), ("on_epoch", 100, 7, 1)],
)
@pytest.mark.parametrize("answer", [True, np.True_])
def test_a_callback_that_returns_true_ends_training(name, at, updates, epochs, answer):
    model, twin = language_model(), language_model()
    log = fitted(model, **{name: lambda progress: answer if stop_at(at)(progress) else None})
    assert (log.updates, log.epochs) == (updates, epochs)
    fitted(twin, max_updates=updates)
    assert_same_bits(model.flat_params, twin.flat_params)


def test_a_stopped_run_has_the_weights_of_its_best_epoch():
    model, snapshots = language_model(), []

    def on_epoch(progress):
        snapshots.append(progress.model.flat_params.copy())
        return progress.epoch == 3

    log = fitted(model, optimizer=crnn.optim.SGD(2.0), valid=IDS[::-1], epochs=9, on_epoch=on_epoch)
    assert log.epochs == 3
    assert log.best["epoch"] < 3
    assert_same_bits(model.flat_params, snapshots[log.best["epoch"] - 1])


@pytest.mark.parametrize(("name", "at"), [("on_update", 3), ("on_update", 10), ("on_update", 14), ("on_epoch", 200)])
@pytest.mark.parametrize("valid", [None, IDS[:40]])
def test_a_stopped_run_can_be_resumed_to_the_bits_of_an_uninterrupted_one(tmp_path, name, at, valid):
    whole, model, resumed = (language_model(L=2) for _ in range(3))
    expected = fitted(whole, valid=valid)
    files = {"checkpoint": tmp_path / "c", "log_file": tmp_path / "log"}
    fitted(model, valid=valid, **files, **{name: stop_at(at)})
    log = fitted(resumed, valid=valid, resume=True, **files)
    assert_same_bits(resumed.flat_params, whole.flat_params)
    assert log.column("valid_loss", "epoch") == expected.column("valid_loss", "epoch")
    assert crnn.TrainingLog.from_file(tmp_path / "log").entries == log.entries


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("answer", [1, "stop", 0, 0.0, []])
def test_another_value_is_refused_by_the_name_of_the_callback(tmp_path, name, answer):
    log, shown = crnn.TrainingLog(), r"\[\]" if answer == [] else repr(answer)
    expected = rf"^{name}: expected a function that returns True to stop training, .* got {shown}$"
    with pytest.raises(TypeError, match=expected):
        fitted(log=log, checkpoint=tmp_path / "c", **{name: lambda progress: answer})
    assert log.updates == (1 if name == "on_update" else 7)
    assert fitted(checkpoint=tmp_path / "c", resume=True).updates == 21


@pytest.mark.parametrize("name", CALLBACKS)
def test_an_exception_of_a_callback_ends_training_where_it_is(tmp_path, name):
    def fail(progress):
        if progress.update >= 9:
            raise KeyError("the program's own")

    whole, model, log = language_model(), language_model(), crnn.TrainingLog()
    fitted(whole)
    with pytest.raises(KeyError):
        fitted(checkpoint=tmp_path / "c", log=log, **{name: fail})
    assert log.updates == (9 if name == "on_update" else 14)
    fitted(model, checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(model.flat_params, whole.flat_params)


def test_a_callback_of_an_earlier_interface_is_not_taken_for_one():
    with pytest.raises(AttributeError):
        fitted(on_epoch=lambda log: log.entries)


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_samples_are_logged_after_so_many_updates(tmp_path):
    at = {}
    log = fitted(
        sampling(), epochs=5, sample_every=14, checkpoint=tmp_path / "c",
        on_epoch=lambda progress: at.update({progress.epoch: text_of(progress.model)}),
    )  # fmt: skip
    samples = log.of_kind("sample")
    assert [(each["epoch"], each["update"]) for each in samples] == [(2, 14), (4, 28)]
    assert [(each["prompt"], each["text"], each["temperature"]) for each in samples] == [
        ("w", at[2], 0.5), ("w", at[4], 0.5)
    ]  # fmt: skip
    assert at[2] != at[4]
    resumed = fitted(sampling(), epochs=6, sample_every=14, checkpoint=tmp_path / "c", resume=True)
    assert [each["epoch"] for each in resumed.of_kind("sample")] == [2, 4, 6]
    assert resumed.of_kind("sample")[:2] == samples


def test_samples_within_an_epoch(tmp_path):
    log = fitted(sampling(), epochs=2, sample_every=3)
    assert [(each["epoch"], each["update"]) for each in log.of_kind("sample")] == [(0, 3), (0, 6), (1, 9), (1, 12)]
    losses = fitted(sampling(), epochs=2).column("train_loss", "epoch")
    assert log.column("train_loss", "epoch") == pytest.approx(losses)


def test_a_sample_that_is_made_for_the_log_file_anyway_is_not_made_twice(tmp_path):
    log = fitted(sampling(), epochs=4, sample_every=7, log_every=100, log_file=tmp_path / "log")
    assert [each["epoch"] for each in log.of_kind("sample")] == [0, 1, 2, 3, 4, 4]  # in the end with the weights kept


def test_a_model_that_generates_no_text_has_no_samples(rng):
    X = [rng.normal(size=(n, 2)) for n in (4, 5, 6, 7)]
    with pytest.raises(ValueError, match="sample_every: expected a model that generates text, got a SequenceClass"):
        crnn.SequenceClassifier(hidden_size=3).fit(X, [0, 1, 0, 1], sample_every=1)


# ---- the notes of a finished run -------------------------------------------------------------------------------------


def log_of(losses, valid=None, rates=None):
    """A log of one epoch per loss."""
    log = crnn.TrainingLog()
    for epoch, loss in enumerate(losses, 1):
        log.add_training(epoch, epoch, loss, 10, 0.1, 1e-3 if rates is None else rates[epoch - 1], 1.0)
        if valid is not None:
            log.add_validation(valid[epoch - 1], None)
        log.end_epoch()
    return log


EPOCHS = np.arange(40)
LINE, LEVEL, RISING = 4 - EPOCHS / 40, 4 * 0.7**EPOCHS + 1, 1 + EPOCHS / 40
NOISE = 1 + np.random.default_rng(3).uniform(-0.01, 0.01, 40)
COSINE = (1 + np.cos(np.pi * (EPOCHS + 0.5) / 40)) / 2
FALLING = "the training loss was still falling: a longer training may give a better model, such as epochs=80"
LAST = "the best epoch is the last, {}: a longer training may give a better model, such as epochs=80"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (log_of(LINE), [FALLING]),
        (log_of(LEVEL), []),
        (log_of(RISING), []),
        (log_of(LINE[:3]), []),  # too few to tell
        (log_of(-LEVEL), []),
        (log_of(LINE - 100), [FALLING]),  # losses may be negative
        (log_of(4 - np.cumsum(COSINE) / 40, rates=COSINE), [FALLING]),  # level in the end only because of the rate
        (log_of(LINE, rates=np.zeros(40)), []),
        (log_of([np.inf, np.nan, *LINE]), [FALLING]),
        (log_of(LINE, LINE), [LAST.format(40)]),
        (log_of(LINE, RISING), []),  # what is kept would not be better
        (log_of(LINE, LEVEL), []),
        (log_of(LINE[:3], LINE[:3]), [LAST.format(3)]),
        (log_of([2.46, 1.8, 1.64, 1.59], [1.94, 1.68, 1.59, 1.57], [0.85, 0.5, 0.15, 0]), [LAST.format(4)]),
        (log_of([2.4, 1.8], [1.9, 1.6], [0.5, 0]), [LAST.format(2)]),
        (log_of(LINE[:1], LINE[:1]), []),
        (crnn.TrainingLog(), []),
    ],
)
def test_a_run_is_told_that_its_loss_was_still_falling(log, expected):
    assert advice(log, "epochs", 40) == expected


def test_a_loss_that_only_wanders_is_not_falling():
    assert advice(log_of(NOISE), "epochs", 40) == []


UNLEARNT = (
    "the validation loss was never below {:.4f}, and the training loss at the beginning was {:.4f}: the model may have "
    "learnt nothing that holds for other data"
)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (log_of(LEVEL, RISING + 4), [UNLEARNT.format(5, 5)]),
        (log_of(NOISE, NOISE + 0.01), [UNLEARNT.format(min(NOISE) + 0.01, NOISE[0])]),
        (log_of(LEVEL, LEVEL), []),
        (log_of(RISING, 0.9 * RISING), []),
        (log_of(LEVEL), []),
        (log_of(-LEVEL, RISING), []),  # of negative losses nothing is said
        (crnn.TrainingLog(), []),
    ],
)
def test_a_run_that_has_learnt_nothing_for_other_data_is_told(log, expected):
    assert unlearnt(log) == expected


def test_a_validation_loss_that_never_fell_is_in_the_notes():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(60, 20, 2)), rng.normal(size=60)
    log = crnn.SequenceRegressor(hidden_size=16, seed=0).fit(X, y, epochs=100).log
    assert log.notes[1].startswith("stopped early: no lower validation loss since epoch ")
    assert log.notes[2:] == unlearnt(log)
    assert log.notes[2].startswith("the validation loss was never below ")


def test_the_log_says_what_would_help():
    log = fitted(valid=IDS[:40])
    assert log.best["epoch"] == 3
    note = "the best epoch is the last, 3: a longer training may give a better model, such as"
    assert log.notes == [f"{note} epochs=6"]
    assert repr(log).endswith(f"\n  {note} epochs=6")
    assert fitted(valid=IDS[:40], max_updates=21).notes == [f"{note} max_updates=42"]


def test_a_run_that_was_stopped_is_not_told_to_go_on():
    assert fitted(valid=IDS[:40], on_epoch=stop_at(300)).notes == []


def test_a_run_that_was_stopped_early_is_told_why(tmp_path):
    options = {"patience": 1, "optimizer": "sgd", "lr": 0.0, "valid": IDS[:40], "checkpoint": tmp_path / "c"}
    note = "stopped early: no lower validation loss since epoch 1 (patience=1)"
    log = fitted(**options)
    assert log.notes == [note, *unlearnt(log)]
    assert fitted(**options, resume=True).notes == ["resuming at epoch 3, update 14"]


def test_a_finished_run_that_is_resumed_without_more_to_do_is_told_nothing_new(tmp_path):
    fitted(valid=IDS[:40], checkpoint=tmp_path / "c")
    log = fitted(valid=IDS[:40], checkpoint=tmp_path / "c", resume=True)
    assert log.notes == ["resuming at epoch 4, update 21"]


# ---- training the same model in a callback ---------------------------------------------------------------------------

X = [np.full((3 + i % 3, 1), i / 9) for i in range(9)]
Y = [0.1 * i for i in range(9)]


def small_regressor():
    return crnn.SequenceRegressor(1, hidden_size=2, epochs=2, valid=None)


def small_forecaster():
    return crnn.Forecaster(2, hidden_size=2, epochs=2, season=1)


# What is trained, how, and how a callback of it tries to train the same model.
SERIES = np.sin(np.arange(40.0))
AGAIN = {
    "crnn.fit within crnn.fit": (language_model, lambda m, **o: fitted(m, **o), lambda m: fitted(m)),
    "fit within crnn.fit": (language_model, lambda m, **o: fitted(m, **o), lambda m: m.fit(IDS, **SETTINGS)),
    "crnn.fit within fit": (language_model, lambda m, **o: m.fit(IDS, **SETTINGS, **o), lambda m: fitted(m)),
    "of sequences, crnn.fit within fit": (
        small_regressor, lambda m, **o: m.fit(X, Y, **o), lambda m: crnn.fit(m, m.data(X, Y), epochs=1),
    ),
    "of sequences, fit within crnn.fit": (
        small_regressor, lambda m, **o: crnn.fit(m, m.data(X, Y), epochs=2, **o), lambda m: m.fit(X, Y),
    ),
    "a forecaster": (small_forecaster, lambda m, **o: m.fit(SERIES, **o), lambda m: m.fit(SERIES[:30])),
}  # fmt: skip


@pytest.mark.parametrize("again", AGAIN)
def test_a_callback_cannot_train_the_model_that_is_in_training(again):
    make, train, train_again = AGAIN[again]
    expected = make()
    train(expected)
    model, refused = make(), []

    def callback(progress):
        with pytest.raises(ValueError, match=r"fit: expected a model that is not being trained, .* in a callback"):
            train_again(model)
        refused.append(progress.update)

    train(model, on_update=callback)
    assert refused == list(range(1, len(refused) + 1))
    assert model.to_bytes() == expected.to_bytes()
    train_again(model)  # when the first training has ended


def test_another_thread_cannot_train_the_model_either():
    model, messages = language_model(), []

    def in_another_thread(progress):
        def train():
            with pytest.raises(ValueError, match="got a call in another thread while it is in its fit") as error:
                fitted(model)
            messages.append(error)

        thread = threading.Thread(target=train)
        thread.start()
        thread.join()

    fitted(model, on_epoch=in_another_thread)
    assert len(messages) == 3


def test_a_forecaster_is_not_updated_while_it_learns():
    model = small_forecaster().fit(SERIES)

    def callback(progress):
        with pytest.raises(ValueError, match="update: expected a model that is not being trained"):
            model.update(SERIES[:2])

    model.fit(SERIES, on_epoch=callback)
    assert model.update([0.5]).fitted.memory[0].values[-1] == 0.5
