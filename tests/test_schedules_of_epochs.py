# SPDX-License-Identifier: MIT
"""Schedules that change between epochs: by their number, or when the validation loss does not fall; and resumed."""

import pickle

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
from crnn.optim import plateau, steps
from crnn.optim.named import optimizer_from, schedule_from

IDS = np.random.default_rng(8).integers(12, size=104)
SETTINGS = {"batch_size": 3, "bptt": 5, "clip_norm": None, "optimizer": "sgd", "lr": 0.5, "patience": None}  # 7 windows


def rates(log):
    """The learning rate of the last entry of each epoch."""
    return [entry["lr"] for entry in log.of_kind("train") if entry["update"] % 7 == 0]


def factors(schedule, losses):
    return [schedule.at_epoch(epoch + 1, losses[:epoch])(0, 1000) for epoch in range(len(losses) + 1)]


# ---- their definitions -----------------------------------------------------------------------------------------------


def test_steps_begin_after_an_epoch_and_repeat():
    assert factors(steps(0.5, after=4), [0] * 6) == [1, 1, 1, 1, 0.5, 0.25, 0.125]
    assert factors(steps(0.5, after=2, every=3), [0] * 8) == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    assert factors(steps(0.5, after=0), [0]) == [0.5, 0.25]


def by_pytorch(torch, losses, **options):
    """The factors of torch.optim.lr_scheduler.ReduceLROnPlateau before each epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, threshold_mode="abs", eps=0, **options)
    found = [1.0]
    for loss in losses:
        schedule.step(loss)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ({}, {"factor": 0.5, "patience": 0, "threshold": 0}),
        ({"factor": 0.25, "patience": 3}, {"factor": 0.25, "patience": 2, "threshold": 0}),
        ({"factor": 0.5, "patience": 2, "lowest": 0.2}, {"factor": 0.5, "patience": 1, "threshold": 0, "min_lr": 0.2}),
    ],
)
def test_plateau_lowers_the_rate_when_pytorchs_does(torch, own, theirs):
    losses = (4 + np.random.default_rng(3).normal(size=60) - np.arange(60) / 30).tolist()
    found = factors(plateau(**own), losses)
    assert len(set(found)) > 2
    np.testing.assert_allclose(found, by_pytorch(torch, losses, **theirs), rtol=1e-14)


def test_plateau_needs_a_fall_of_min_fall_and_may_continue_forever():
    losses = [3.0, 2.5, 2.45, 2.0, 1.0]
    assert factors(plateau(), losses) == [1] * 6
    assert factors(plateau(min_fall=0.1), losses) == [1, 1, 1, 0.5, 0.5, 0.5]
    assert factors(plateau(min_fall=0.1, forever=True), losses) == [1, 1, 1, 0.5, 0.25, 0.125]


def test_the_warm_up_multiplies_the_factor_of_an_epoch():
    schedule = steps(0.5, after=1, warmup=4).at_epoch(2, ())
    assert [schedule(k, 100) for k in range(5)] == [0.125, 0.25, 0.375, 0.5, 0.5]


def test_a_schedule_of_epochs_is_pickled_and_is_no_function_of_updates():
    schedule = pickle.loads(pickle.dumps(steps(0.5, after=1)))
    assert schedule.at_epoch(3, ())(0, 9) == 0.25
    with pytest.raises(TypeError, match="schedule: expected at_epoch"):
        schedule(0, 9)


# ---- in a run --------------------------------------------------------------------------------------------------------


def test_fit_halves_the_rate_after_an_epoch():
    log = crnn.fit(language_model(), IDS, epochs=5, schedule="steps(0.5, after=2)", **SETTINGS)
    assert rates(log) == [0.5, 0.5, 0.25, 0.125, 0.0625]


def test_fit_lowers_the_rate_by_the_losses_of_its_log():
    settings = SETTINGS | {"lr": 8.0}  # too large: losses rise
    log = crnn.fit(language_model(), IDS, epochs=6, valid=IDS[::-1], schedule=plateau(0.5), **settings)
    losses = log.column("valid_loss", kind="epoch")
    assert rates(log) == [8 * factor for factor in factors(plateau(0.5), losses)[:-1]]
    assert len(set(rates(log))) > 1


@pytest.mark.parametrize("schedule", ["steps(0.5, after=1)", "plateau(0.5, min_fall=0.05)"])
@pytest.mark.parametrize("updates", [14, 17])
def test_a_resumed_run_has_the_same_rates_and_bits(tmp_path, schedule, updates):
    options = SETTINGS | {"epochs": 5, "valid": IDS[::-1], "schedule": schedule}
    whole, parts = language_model(), language_model()
    log = crnn.fit(whole, IDS, **options)
    crnn.fit(parts, IDS, checkpoint=tmp_path / "c", max_updates=updates, **options)
    again = crnn.fit(parts, IDS, checkpoint=tmp_path / "c", resume=True, **options)
    assert rates(again) == rates(log)
    assert len(set(rates(log))) > 1
    assert_same_bits(parts.flat_params, whole.flat_params)


def test_a_users_schedule_may_have_at_epoch():
    class Mine:
        def at_epoch(self, epoch, valid_losses):
            return lambda k, n: 1 / epoch

    log = crnn.fit(language_model(), IDS, epochs=3, schedule=Mine(), **SETTINGS)
    assert rates(log) == [0.5, 0.25, 0.5 / 3]


@pytest.mark.parametrize("made", [0.5, None])
def test_a_users_at_epoch_that_returns_no_function_is_an_error_that_says_so(made):
    class Mine:
        def at_epoch(self, epoch, valid_losses):
            return made

    with pytest.raises(TypeError, match=rf"^schedule: expected a function .* got {type(made).__name__}$"):
        crnn.fit(language_model(), IDS, epochs=3, schedule=Mine(), **SETTINGS)


def test_plateau_without_validation_data_is_refused_before_work():
    model = language_model()
    before = model.flat_params.copy()
    with pytest.raises(ValueError, match=r"schedule: expected validation data with 'plateau', got none"):
        crnn.fit(model, IDS, epochs=1, schedule="plateau", **SETTINGS)
    assert_same_bits(model.flat_params, before)


# ---- names with arguments --------------------------------------------------------------------------------------------


def test_a_name_with_arguments_is_the_factory_called_with_them():
    for text, made in [
        ("cosine(0.1)", crnn.optim.cosine(0.1)),
        ("Linear( final = 0.25 )", crnn.optim.linear(0.25)),
        ("exponential()", crnn.optim.exponential()),
        ("constant(warmup=3)", crnn.optim.constant(3)),
    ]:
        schedule = schedule_from("schedule", text)
        assert [schedule(k, 7) for k in range(7)] == [made(k, 7) for k in range(7)]
    optimizer = optimizer_from("optimizer", "sgd(momentum=0.9, nesterov=True)", 0.25)
    assert repr(optimizer) == repr(crnn.optim.SGD(0.25, 0.9, nesterov=True))


class Falls:
    """A schedule of one's own."""

    def at_epoch(self, epoch, losses):
        return crnn.optim.constant()


class Forgetful:
    def at_epoch(self, epoch):
        return crnn.optim.constant()


@pytest.mark.parametrize(
    ("schedule", "got"),
    [
        (lambda update: 1.0, r"a function of \(update, updates\), got <lambda>\(update\)"),
        (lambda: 1.0, r"a function of \(update, updates\), got <lambda>\(\)"),
        (Falls, r"a function of \(update, updates\), got Falls\(\)"),
        (Forgetful(), r"a method at_epoch\(epoch, valid_losses\), got at_epoch\(epoch\)"),
    ],
)
def test_a_schedule_that_takes_other_arguments_is_named_before_anything_is_trained(schedule, got):
    with pytest.raises(TypeError, match=f"^schedule: expected a schedule.*{got}$"):
        crnn.fit(language_model(), IDS, schedule=schedule)
    for good in (Falls(), lambda *numbers: 1.0, lambda k, n, more=0: 1.0):
        crnn.fit(language_model(), IDS, schedule=good, max_updates=1, epochs=1)


@pytest.mark.parametrize("name", ["constant(3)", "constant(warmup=3)"])
def test_the_warmup_in_a_name_needs_no_name_itself(name):
    schedule = schedule_from("schedule", name)
    assert [schedule(k, 6) for k in range(4)] == [crnn.optim.constant(warmup=3)(k, 6) for k in range(4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "steps(0.5, 2"}, r"schedule: expected a schedule such as .*'steps'.* got 'steps\(0.5, 2'"),
        ({"schedule": "steps(half)"}, r"schedule: expected numbers, True, False or None as arguments, got 'half'"),
        ({"schedule": "steps(factor=0.5, 2)"}, r"schedule: expected arguments such as name\(1, b=2\), got 'steps"),
        ({"schedule": "steps(0.5, after=4, after=5)"}, r"schedule: expected arguments such as name\(1, b=2\)"),
        ({"schedule": "steps(0.5, until=4)"}, r"schedule: expected arguments of steps\(factor.*unexpected keyword"),
        ({"schedule": "steps(-1)"}, r"schedule: 'steps\(-1\)': factor: expected"),
        ({"schedule": "steps(0.5, every=0)"}, r"schedule: .*every: expected"),
        ({"schedule": "plateau(patience=0)"}, r"schedule: .*patience: expected"),
        ({"schedule": "cosine(warmup=3)", "warmup": 4}, r"schedule: expected warmup once, got it in 'cosine"),
        ({"schedule": "cosine(0.1, 3)", "warmup": 4}, r"schedule: expected warmup once, got it in 'cosine\(0.1, 3"),
        ({"schedule": "constant(1, 2)"}, r"schedule: expected arguments of constant\(warmup.*too many positional"),
        ({"optimizer": "sgd(lr=1)", "lr": 0.1}, r"optimizer: expected lr once, got it in 'sgd\(lr=1\)' and as lr=0.1"),
        ({"optimizer": "sgd(1)", "lr": 0.1}, r"optimizer: expected lr once, got it in 'sgd\(1\)' and as lr=0.1"),
        ({"optimizer": "sgd(momentum=2)"}, r"optimizer: 'sgd\(momentum=2\)': momentum: expected"),
        ({"optimizer": "adam(0.1, beta3=1)"}, r"optimizer: expected arguments of adam\(lr.*unexpected keyword"),
    ],
)
def test_wrong_arguments_in_a_name_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        crnn.fit(language_model(), IDS, **options)


def test_the_shell_takes_names_with_arguments(run, tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, " * 60)
    arguments = ["train", tmp_path / "text.txt", "-o", tmp_path / "m.safetensors", "--hidden", 4, "-q"]
    run(*arguments, "--epochs", 2, "--schedule", "steps(0.5, after=1)", "--optimizer", "sgd(momentum=0.5)")
    settings = crnn.load(tmp_path / "m.safetensors").training_runs[-1]["settings"]
    assert settings["schedule"].startswith("steps of 0.5 after epoch 1")
    assert settings["optimizer"].startswith("SGD(lr=0.1, weight_decay=0.0, momentum=0.5")
