# SPDX-License-Identifier: MIT
"""How training ends before its time: Ctrl-C, NaN, a checkpoint, and resuming from it with the same bits."""

import math
import signal

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
from crnn import ModelFileError
from crnn.training.run import Run

IDS = np.random.default_rng(8).integers(12, size=104)
# 7 windows an epoch
SETTINGS = {"epochs": 4, "batch_size": 3, "bptt": 5, "schedule": None, "clip_norm": None, "log_every": 2}


def optimizer():
    return crnn.optim.Adam(lr=0.02)


def fitted(model, **options):
    return crnn.fit(model, IDS, **({"optimizer": optimizer(), "valid": IDS[:40]} | SETTINGS | options))


class Interrupt:
    """A schedule that presses Ctrl-C at one update. Its factors change, so that lost updates are seen."""

    def __init__(self, at, press=lambda: signal.raise_signal(signal.SIGINT)):
        self.at, self.press = at, press

    def __call__(self, update, total):
        if update == self.at:
            self.press()
        return 1 - update / total


def steady(update, total):
    return Interrupt(None)(update, total)


def without_times(log):
    """Entries of whole epochs but for their seconds."""
    return [
        {name: value for name, value in entry.items() if "second" not in name}
        for entry in log.entries
        if entry["kind"] == "epoch"
    ]


def press():
    raise KeyboardInterrupt


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("at", [0, 3, 6, 7, 16, 27])
def test_ctrl_c_leaves_a_checkpoint_from_which_training_goes_on_bit_for_bit(tmp_path, at):
    """In the middle of an epoch, at its end, at the very first and the very last update."""
    whole, model, path = language_model(L=2), language_model(L=2), tmp_path / "checkpoint"
    expected = fitted(whole, schedule=steady)
    log = crnn.TrainingLog()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, schedule=Interrupt(at), checkpoint=path, log=log)
    assert log.entries[-1]["update"] == at + 1  # the update that was running is complete, and the last
    resumed = language_model(L=2)
    log = fitted(resumed, schedule=steady, checkpoint=path, resume=True)
    assert_same_bits(resumed.flat_params, whole.flat_params)
    assert [entry["valid_loss"] for entry in without_times(log)] == expected.column("valid_loss", "epoch")
    assert log.column("train_loss", "epoch") == pytest.approx(expected.column("train_loss", "epoch"), rel=1e-12)
    assert log.best["epoch"] == expected.best["epoch"]


@pytest.mark.thread_unsafe
def test_ctrl_c_leaves_the_best_weights_so_far_in_the_model():
    model, snapshots = language_model(), []
    log = crnn.TrainingLog()
    with pytest.raises(KeyboardInterrupt):
        fitted(
            model, schedule=Interrupt(25), optimizer=crnn.optim.SGD(2.0), valid=IDS[::-1], log=log,
            on_epoch=lambda progress: snapshots.append(model.flat_params.copy()),
        )  # fmt: skip
    assert log.epochs == 3
    assert log.best["epoch"] < 3  # learning the text does not help with its reverse
    assert_same_bits(model.flat_params, snapshots[log.best["epoch"] - 1])


@pytest.mark.thread_unsafe
def test_ctrl_c_before_anything_was_judged_leaves_the_weights_as_far_as_they_came():
    model, twin = language_model(), language_model()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, schedule=Interrupt(3))
    fitted(twin, schedule=lambda k, n: steady(k, 28), max_updates=4, valid=None)
    assert_same_bits(model.flat_params, twin.flat_params)


@pytest.mark.thread_unsafe
def test_a_second_ctrl_c_does_not_wait():
    def twice():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt

    log = crnn.TrainingLog()
    with pytest.raises(KeyboardInterrupt):
        fitted(language_model(), schedule=Interrupt(3, twice), log=log)
    assert log.column("update") == [2, 3]  # the update that was running is given up


@pytest.mark.thread_unsafe
def test_pythons_handler_is_back_and_an_applications_own_is_left_alone():
    fitted(language_model())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    pressed = []
    before = signal.signal(signal.SIGINT, lambda signum, frame: pressed.append(signum))
    try:
        log = fitted(language_model(), schedule=Interrupt(3))
        assert log.epochs == 4
        assert pressed == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["on_epoch", "optimizer"])
def test_an_interrupt_from_the_callers_own_code_passes_through(where):
    model, snapshots = language_model(), []

    def on_epoch(progress):
        snapshots.append(model.flat_params.copy())
        if where == "on_epoch" and progress.epoch == 2:
            raise KeyboardInterrupt

    rule = optimizer()
    if where == "optimizer":
        update = rule.update
        rule.update = lambda *args, **kwargs: press() if rule.updates == 15 else update(*args, **kwargs)
    log = crnn.TrainingLog()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, optimizer=rule, on_epoch=on_epoch, log=log)
    assert log.epochs == 2
    assert_same_bits(model.flat_params, snapshots[log.best["epoch"] - 1])


# ---- NaN -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"clip_value": 1.0}, {"valid": None}])
@pytest.mark.parametrize(
    ("name", "bad"),
    [*((name, math.nan) for name in ("layer0.W_xh", "layer0.W_hh", "layer0.b_h", "W_hy", "b_y")), ("W_hy", math.inf)],
)
def test_a_loss_that_is_no_number_gives_back_the_best_weights(bad, name, options):
    """An epoch is done when a weight goes bad. Unless it was judged, only a later loss would speak for its weights."""
    model, rule = language_model(), optimizer()
    before = [model.flat_params.copy()]

    def spoil(progress):
        before.append(model.flat_params.copy())
        model.params[name].reshape(-1)[:] = bad

    which = "the initial ones" if "valid" in options else "those of the best epoch, 1"
    message = rf"loss is (nan|inf) at update 8 \(epoch 2\); the weights are {which}\. A smaller learning rate"
    with pytest.raises(FloatingPointError, match=message):
        fitted(model, optimizer=rule, on_epoch=spoil, **options)
    assert_same_bits(model.flat_params, before[0 if "valid" in options else 1])
    assert rule.updates == 0  # its moments led there


def test_a_loss_too_large_for_a_number_stops_though_its_gradient_is_small():
    model, rule = language_model(), optimizer()
    model.params["b_y"][:] = -3e38
    model.params["b_y"][0] = 3e38
    before = model.flat_params.copy()
    with pytest.raises(FloatingPointError, match=r"loss is inf at update 1 \(epoch 1\)"):
        fitted(model, optimizer=rule)
    assert np.isfinite(model.flat_grads).all()
    assert_same_bits(model.flat_params, before)


@pytest.mark.parametrize(
    ("bad", "clip"),
    [
        (math.nan, {}),
        (math.nan, {"clip_norm": 1.0}),
        (math.nan, {"clip_value": 1.0}),
        (math.inf, {}),
        (math.inf, {"clip_norm": 1.0}),
    ],
)
def test_a_gradient_that_is_no_number_stops_likewise(monkeypatch, bad, clip):
    model = language_model()
    plain = model.loss_and_gradients

    def overflowing(*args, **kwargs):
        result = plain(*args, **kwargs)
        if rule.updates == 4:
            model.grads["b_y"][0] = bad
        return result

    rule, before = optimizer(), model.flat_params.copy()
    monkeypatch.setattr(model, "loss_and_gradients", overflowing)
    with pytest.raises(FloatingPointError, match=rf"gradient's norm is {bad} at update 5 \(epoch 1\)"):
        fitted(model, optimizer=rule, **clip)
    assert_same_bits(model.flat_params, before)


def test_training_that_explodes_is_reported_and_its_checkpoint_is_sound(tmp_path):
    model = language_model(cell="relu")
    with pytest.raises(FloatingPointError):
        fitted(model, optimizer=crnn.optim.SGD(1e4), checkpoint=tmp_path / "c", epochs=50)
    assert np.isfinite(model.flat_params).all()


# ---- checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", crnn.optim.RULES)
@pytest.mark.parametrize("updates", [7, 10, 14])
def test_training_in_two_parts_gives_the_bits_of_one(tmp_path, rule, updates):
    """Cut at an epoch's end and within one, where the state must be carried over the break."""
    path, make = tmp_path / "checkpoint", crnn.optim.RULES[rule]
    whole, first, second = (language_model(L=2, E=3) for _ in range(3))
    fitted(whole, optimizer=make(lr=0.01))
    fitted(first, optimizer=make(lr=0.01), checkpoint=path, max_updates=updates)
    log = fitted(second, optimizer=make(lr=0.01), checkpoint=path, resume=True)
    assert_same_bits(second.flat_params, whole.flat_params)
    assert log.epochs == 4
    assert not np.array_equal(first.flat_params, whole.flat_params)


def test_a_finished_training_is_not_repeated(tmp_path):
    model, path = language_model(), tmp_path / "checkpoint"
    fitted(model, checkpoint=path)
    again = language_model()
    log = fitted(again, checkpoint=path, resume=True, optimizer=optimizer())
    assert log.epochs == 4
    assert_same_bits(again.flat_params, model.flat_params)
    longer = fitted(again, checkpoint=path, resume=True, epochs=5)
    assert longer.epochs == 5


def test_resume_without_a_checkpoint_is_an_error(tmp_path):
    model = language_model()
    with pytest.raises(FileNotFoundError, match=r"^checkpoint: expected a checkpoint to resume from, .*yet"):
        fitted(model, checkpoint=tmp_path / "none yet", resume=True)
    assert_same_bits(model.flat_params, language_model().flat_params)
    with pytest.raises(ValueError, match="resume: expected a checkpoint to resume from, got checkpoint=None"):
        fitted(model, resume=True)


def test_a_checkpoint_is_replaced_only_when_that_is_asked_for(tmp_path):
    model, twin, path = language_model(), language_model(), tmp_path / "checkpoint"
    fitted(model, checkpoint=path, max_updates=3)
    old = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"^checkpoint: expected a new file, .* resume=True .* restart=True"):
        fitted(twin, checkpoint=path)
    assert path.read_bytes() == old
    assert_same_bits(twin.flat_params, language_model().flat_params)
    fitted(twin, checkpoint=path, restart=True)
    assert path.read_bytes() != old
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]
    fresh = language_model()
    fitted(fresh)
    assert_same_bits(twin.flat_params, fresh.flat_params)


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"bptt": 6}, {"batch_size": 1}])
def test_windows_of_another_cut_can_follow_an_epoch_but_not_a_part_of_one(tmp_path, options):
    path = tmp_path / "checkpoint"
    fitted(language_model(), checkpoint=path, max_updates=7)
    log = fitted(language_model(), checkpoint=path, resume=True, **options)
    assert log.epochs == 4
    [(name, value)] = options.items()
    assert log.notes[:2] == ["resuming at epoch 2, update 7", f"{name}: now {value}, before {SETTINGS[name]}"]
    fitted(language_model(), checkpoint=path, restart=True, max_updates=10)
    message = f"^{name}: expected {SETTINGS[name]}, as in .*checkpoint, which is within an epoch, got {value}"
    with pytest.raises(ModelFileError, match=message):
        fitted(language_model(), checkpoint=path, resume=True, **options)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    fitted(language_model(), checkpoint=path, max_updates=10)
    with pytest.raises(ModelFileError, match=r"^hidden_size: expected 7, as in .*checkpoint, got 8$"):
        fitted(language_model(H=8), checkpoint=path, resume=True)


def test_weights_after_an_epoch_are_kept_once_their_loss_is_known():
    """Also if the next epoch diverges: those of the last epoch whose loss was finite come back."""
    model = language_model()
    run = Run(model, crnn.optim.SGD(), crnn.TrainingLog(), {}, carries_state=False)
    initial = model.flat_params.copy()
    model.flat_params[...] += 1
    run.record_validation(None)
    np.testing.assert_array_equal(run.best, initial)
    run.confirm()
    np.testing.assert_array_equal(run.best, model.flat_params)


def test_weights_that_diverged_are_not_kept_later():
    model = language_model()
    run = Run(model, crnn.optim.SGD(), crnn.TrainingLog(), {}, carries_state=False)
    initial = model.flat_params.copy()
    model.flat_params[...] += 1
    run.record_validation(None)
    assert run.roll_back() == "the initial ones"
    model.flat_params[...] += 2
    run.confirm()
    np.testing.assert_array_equal(run.best, initial)
