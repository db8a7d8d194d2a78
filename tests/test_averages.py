# SPDX-License-Identifier: MIT
"""Averages of the weights: their values, when they begin, that they are evaluated, kept, stored and resumed."""

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from model_tools import language_model

import crnn
from crnn._core import dispatch
from crnn.optim import ASGD, EMA

IDS = np.random.default_rng(8).integers(12, size=104)
VALID = IDS[::-1]
# 7 windows an epoch
SETTINGS = {"epochs": 4, "batch_size": 3, "bptt": 5, "schedule": None, "optimizer": "sgd", "lr": 1.0, "patience": None}


def fitted(model=None, **options):
    model = language_model() if model is None else model
    log = crnn.fit(model, IDS, **SETTINGS | options)
    return model, log


def followed(**options):
    """A model, the log, and the weights after each update."""
    weights = []
    model, log = fitted(on_update=lambda progress: weights.append(progress.model.flat_params.copy()), **options)
    return model, log, np.array(weights)


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["ema(0.8)", "ema(0.9, start=3)", "asgd(start=1)", "asgd(start=2)"])
def test_the_weights_at_the_end_are_the_average_of_those_after_the_updates(average):
    model, _, weights = followed(average=average)
    rule = average.partition("(")[0]
    start = 7 * (3 if "start=3" in average else 2 if "start=2" in average else 1) - 7
    expected = np.zeros(weights.shape[1])
    for k, of_update in enumerate(weights[start:].astype(float)):
        decay = {"ema(0.8)": 0.8, "ema(0.9, start=3)": 0.9}.get(average, 1.0)
        share = max(1 - decay, 1 / (k + 1)) if rule == "ema" else 1 / (k + 1)
        expected = (1 - share) * expected + share * of_update
    if rule == "asgd":
        np.testing.assert_allclose(expected, weights[start:].astype(float).mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.flat_params, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected - weights[-1]).max() > 0.01


def test_training_itself_is_the_same_with_and_without():
    (plain, log), (averaged, other) = fitted(), fitted(average="ema(0.9)")
    assert log.column("train_loss") == other.column("train_loss")
    assert not np.array_equal(plain.flat_params, averaged.flat_params)


def test_the_average_is_what_is_evaluated_and_kept():
    seen = []
    model, log = fitted(valid=VALID, average="ema(0.9)", on_epoch=lambda p: seen.append(p.model.flat_params.copy()))
    losses = log.column("valid_loss", kind="epoch")
    assert model.evaluate(VALID, batch_size=3).loss == min(losses)
    _, plain = fitted(valid=VALID)
    assert losses[-1] != plain.column("valid_loss", kind="epoch")[-1]
    assert_same_bits(seen[-1], fitted(epochs=4)[0].flat_params)  # callbacks see the weights that are trained


def by_awd_lstm(losses, nonmono):
    """The epoch whose updates are the first to be averaged, by the loop of AWD-LSTM's main.py; None: never."""
    best_val_loss = []
    for epoch, val_loss in enumerate(losses, start=1):
        if len(best_val_loss) > nonmono and val_loss > min(best_val_loss[:-nonmono]):
            return epoch + 1
        best_val_loss.append(val_loss)
    return None


@pytest.mark.parametrize("nonmono", [1, 3, 5])
def test_asgd_begins_when_awd_lstms_does(nonmono):
    rng, begins = np.random.default_rng(nonmono), set()
    for _ in range(60):
        losses = (3 - np.arange(14) / 20 + rng.normal(size=14) / 4).tolist()
        rule = ASGD(nonmono=nonmono)
        first = next((epoch for epoch in range(1, 16) if rule.begins(epoch, losses[: epoch - 1])), None)
        assert first == by_awd_lstm(losses, nonmono)
        begins.add(first)
    assert len(begins) > 3


def test_a_run_begins_to_average_when_its_validation_loss_rises():
    model, log, weights = followed(valid=VALID, average="asgd(nonmono=1)", lr=6.0, epochs=7)
    losses = log.column("valid_loss", kind="epoch")
    first = by_awd_lstm(losses, 1)
    assert first is not None
    assert first < 7
    best = int(np.argmin(losses)) + 1
    span = slice(7 * (first - 1), 7 * best)
    expected = weights[span].mean(axis=0) if best >= first else weights[7 * best - 1]
    np.testing.assert_allclose(model.flat_params, expected, rtol=1e-4, atol=1e-5)


# ---- bits ------------------------------------------------------------------------------------------------------------

AVERAGES = ["ema(0.9)", "asgd(start=2)", "asgd(nonmono=1)"]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("valid", [VALID, None])
@pytest.mark.parametrize("updates", [7, 10, 17])
def test_a_resumed_run_is_bit_identical(tmp_path, average, valid, updates):
    if valid is None and "nonmono" in average:
        average = "ema(0.5, start=2)"
    options = {"valid": valid, "average": average, "lr": 6.0, "epochs": 6}
    whole, log = fitted(**options)
    parts = language_model()
    fitted(parts, checkpoint=tmp_path / "c", max_updates=updates, **options)
    _, again = fitted(parts, checkpoint=tmp_path / "c", resume=True, **options)
    assert_same_bits(parts.flat_params, whole.flat_params)
    assert again.column("valid_loss", kind="epoch") == log.column("valid_loss", kind="epoch")
    assert_same_bits(crnn.load(tmp_path / "c").flat_params, whole.flat_params)


@pytest.mark.parametrize("average", ["ema(0.9)", "asgd(start=2)"])
def test_every_instruction_set_and_number_of_threads_gives_the_same_bits(any_isa, average):
    found = []
    for isa in dispatch.available_isas():
        dispatch.use_isa(isa)
        found += [fitted(average=average, threads=threads)[0].flat_params.copy() for threads in (1, 3)]
    for other in found[1:]:
        assert_same_bits(other, found[0])


def test_many_parameters_are_shared_out_over_threads():
    from crnn.training.averaging import WeightAverage

    rng, found = np.random.default_rng(0), []
    weights = rng.normal(size=(3, 2**21 + 5)).astype(np.float32)
    for threads in (1, 2, 5):
        average = WeightAverage(EMA(0.75))
        average.begin_epoch(1, ())
        for of_update in weights:
            average.update(of_update, threads)
        found.append(average.array)
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])
    np.testing.assert_allclose(found[0], weights.astype(float).mean(axis=0), atol=1e-6)


# ---- ends, files, refusals -------------------------------------------------------------------------------------------


def test_an_interrupted_run_keeps_the_average_and_the_weights_to_continue_from(tmp_path):
    def impatient(progress):
        if progress.update == 12:
            raise KeyboardInterrupt

    model = language_model()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, average="ema(0.9)", checkpoint=tmp_path / "c", on_update=impatient)
    assert_same_bits(model.flat_params, crnn.load(tmp_path / "c").flat_params)
    fitted(model, average="ema(0.9)", checkpoint=tmp_path / "c", resume=True)
    assert_same_bits(model.flat_params, fitted(average="ema(0.9)")[0].flat_params)


def test_a_run_resumes_with_its_own_average_only(tmp_path):
    fitted(average="ema(0.9)", checkpoint=tmp_path / "c", max_updates=9)
    for other in (None, "ema(0.8)", "asgd(start=1)"):
        with pytest.raises(crnn.ModelFileError, match=r"average: expected 'EMA\(decay=0.9, start=1\)', as in"):
            fitted(average=other, checkpoint=tmp_path / "c", resume=True)
    fitted(checkpoint=tmp_path / "plain", max_updates=9)
    with pytest.raises(crnn.ModelFileError, match="average: expected None, as in"):
        fitted(average="ema(0.9)", checkpoint=tmp_path / "plain", resume=True)


def test_the_record_of_a_run_says_which_average_it_has():
    assert fitted(average="asgd(start=2)")[0].training_runs[-1]["settings"]["average"] == "ASGD(start=2, nonmono=5)"
    assert "average" not in fitted()[0].training_runs[-1]["settings"]


def test_sequence_models_average_too():
    rng = np.random.default_rng(0)
    X, y = [rng.normal(size=(6, 2)) for _ in range(8)], [0, 1] * 4
    one = crnn.SequenceClassifier(2, 2, hidden_size=4, average="ema(0.5)").fit(X, y, epochs=3, batch_size=4)
    other = crnn.SequenceClassifier(2, 2, hidden_size=4).fit(X, y, epochs=3, batch_size=4, average=EMA(0.5))
    assert_same_bits(one.flat_params, other.flat_params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": "mean"}, "average: expected an average such as .*'ema', 'asgd', got 'mean'"),
        ({"average": "ema(1.0)"}, r"average: 'ema\(1.0\)': decay: expected"),
        ({"average": "asgd(start=0)"}, "average: .*start: expected"),
        ({"average": "asgd"}, "average: expected validation data with 'asgd', got none"),
    ],
)
def test_a_wrong_average_is_refused_before_work(options, message):
    model = language_model()
    before = model.flat_params.copy()
    with pytest.raises(ValueError, match=message):
        fitted(model, **options)
    assert_same_bits(model.flat_params, before)
    with pytest.raises(TypeError, match="average: expected an average such as"):
        fitted(model, average=0.9)


class Constant(crnn.optim.Average):
    """A user's rule, with one share for all updates."""

    def __init__(self, value):
        self.value = value

    def begins(self, epoch, valid_losses):
        return True

    def share(self, k):
        return self.value


@pytest.mark.parametrize("value", [2.0, -0.1, np.nan, "half", None])
def test_a_share_that_is_none_is_an_error_that_names_the_rule(value):
    with pytest.raises(ValueError, match=r"^average: expected a share from 0 to 1 from Constant\(value=.*\), got "):
        fitted(average=Constant(value))


def test_a_rule_of_the_user_is_an_average():
    model, _, weights = followed(average=Constant(np.float32(0.5)), epochs=1)
    expected = weights[0]
    for each in weights[1:]:
        expected = (expected + each) / 2
    np.testing.assert_allclose(model.flat_params, expected, rtol=1e-5)


def test_an_average_that_has_not_begun_is_noted():
    _, log = fitted(average="ema(start=9)")
    assert [note for note in log.notes if "average" in note] == [
        "average: it has not begun, see EMA(decay=0.999, start=9); the weights are no average"
    ]
    assert not [note for note in fitted(average="ema(start=4)")[1].notes if "average" in note]
