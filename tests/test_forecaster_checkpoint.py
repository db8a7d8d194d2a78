# SPDX-License-Identifier: MIT
"""Checkpoints of forecasters are complete: what is loaded from them, and what a resumed run continues."""

import copy

import numpy as np
import pytest
from file_tools import edit, take_apart

import crnn

RNG = np.random.default_rng(5)
SERIES = np.sin(np.arange(80) / 3) + 0.2 * RNG.normal(size=80)
RUN = {"epochs": 4, "batch_size": 8, "progress": False}


def model(**options):
    return crnn.Forecaster(4, **{"hidden_size": 4, "seed": 1, "dropout": 0.1} | options)


def interrupted(forecaster, path, update=11, series=SERIES, **options):
    """Train until this update, with a checkpoint."""

    def stop(progress):
        if progress.update == update:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forecaster.fit(series, checkpoint=path, on_update=stop, **RUN | options)


CASES = {
    "one series": (SERIES, {}, {}),
    "all learnt": (SERIES, {}, {"valid": None}),
    "a mask of gaps": (np.where(np.arange(80) % 17 == 5, np.nan, SERIES), {"gaps": "mask"}, {}),
    "several": ([SERIES, SERIES[:60] + 3], {"loss": "mse"}, {"past": [SERIES, SERIES[20:]]}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_gives_the_bytes_of_one_without_interruption(case, tmp_path):
    series, arguments, options = CASES[case]
    update = 3 if case == "one series" else 11  # before the first validation, and after it
    whole = model(**arguments).fit(series, **RUN, **options)
    interrupted(model(**arguments), tmp_path / "c", update, series, **options)
    resumed = model(**arguments).fit(series, checkpoint=tmp_path / "c", resume=True, **RUN, **options)
    assert resumed.to_bytes() == whole.to_bytes()
    assert resumed.log.epochs == 4


@pytest.mark.parametrize("case", CASES)
def test_a_finished_checkpoint_is_the_forecaster(case, tmp_path):
    series, arguments, options = CASES[case]
    fitted = model(**arguments).fit(series, checkpoint=tmp_path / "c", **RUN, **options)
    loaded = crnn.load(tmp_path / "c")
    assert isinstance(loaded, crnn.Forecaster)
    assert loaded.to_bytes() == fitted.to_bytes()


def test_the_forecaster_of_an_unfinished_run_is_the_one_that_an_interruption_leaves(tmp_path):
    fitted = model()
    interrupted(fitted, tmp_path / "c")
    loaded = crnn.load(tmp_path / "c")
    assert loaded.to_bytes() == fitted.to_bytes()
    assert loaded.get_params()["dropout"] == 0.1
    for each in (loaded, crnn.load(tmp_path / "c")):
        assert (each.forecast(9, quantiles=(0.1, 0.9)) == fitted.forecast(9, quantiles=(0.1, 0.9))).all()
    assert (loaded.update(SERIES[:3]).forecast(2) == fitted.update(SERIES[:3]).forecast(2)).all()


def test_checkpoints_change_nothing_in_the_training(tmp_path):
    options = {"checkpoint": tmp_path / "c", "checkpoint_updates": 3}
    assert model().fit(SERIES, **options, **RUN).to_bytes() == model().fit(SERIES, **RUN).to_bytes()


def test_a_run_that_continues_is_resumed_in_another_process(tmp_path):
    first = model().fit(SERIES[:70], **RUN)
    again = copy.deepcopy(first)
    interrupted(copy.deepcopy(first), tmp_path / "c", warm_start=True)
    first.fit(SERIES, warm_start=True, **RUN)
    again.fit(SERIES, warm_start=True, checkpoint=tmp_path / "c", resume=True, **RUN)
    assert again.to_bytes() == first.to_bytes()


OTHERS = {
    "gaps": (SERIES, {"gaps": "carry"}, "^gaps: expected 'interpolate', as in .*c, got 'carry'"),
    "season": (SERIES, {"season": 5}, "^season: expected 19, as in .*c, got 5"),
    "differences": (SERIES, {"difference": (2, 1)}, "^difference: expected .*, as in .*c, got .2, 1."),
    "window": (SERIES, {"window": 11}, "^window: expected 38, as in .*c, got 11"),
    "logarithm": (SERIES + 9, {"logarithm": True}, "^logarithm: expected False, as in .*c, got True"),
    "a series with the same windows": (SERIES * 2, {}, "^series: expected those of .*c, got others"),
    "a longer series": (np.append(SERIES, 0.5), {}, "^series: expected those of .*c, got others"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The bytes of a checkpoint of an interrupted run."""
    path = tmp_path_factory.mktemp("run") / "c"
    interrupted(model(), path)
    return path.read_bytes()


@pytest.mark.parametrize("other", OTHERS)
def test_another_forecaster_is_not_resumed(other, checkpoint, tmp_path):
    series, arguments, message = OTHERS[other]
    (tmp_path / "c").write_bytes(checkpoint)
    forecaster = model(**arguments)
    with pytest.raises(crnn.ModelFileError, match=message):
        forecaster.fit(series, checkpoint=tmp_path / "c", resume=True, **RUN)
    assert (tmp_path / "c").read_bytes() == checkpoint
    assert not forecaster._is_fitted()


def test_a_checkpoint_of_an_older_version_is_resumed_too(checkpoint, tmp_path):
    (tmp_path / "c").write_bytes(checkpoint)

    def older(tensors, header):
        del header["rest"]
        for name in [name for name in tensors if name.startswith("rest.")]:
            del tensors[name]

    edit(tmp_path / "c", older)
    assert isinstance(crnn.load(tmp_path / "c"), crnn.SequenceRegressor)
    resumed = model().fit(SERIES, checkpoint=tmp_path / "c", resume=True, **RUN)
    assert resumed.to_bytes() == model().fit(SERIES, **RUN).to_bytes()
    assert isinstance(crnn.load(tmp_path / "c"), crnn.Forecaster)


def drop(name):
    return lambda tensors, header: tensors.pop(name)


def rest(**changes):
    return lambda tensors, header: header["rest"].update(changes)


DAMAGED = {
    "no rest": lambda tensors, header: header.pop("rest"),
    "a list": lambda tensors, header: header.update(rest=[]),
    "another kind": rest(kind="SequenceRegressor"),
    "an unknown kind": rest(kind="Forecasts"),
    "a checkpoint": rest(kind="checkpoint"),
    "no forecaster": rest(forecaster=None),
    "a list in the place of a layout": lambda tensors, header: header["rest"]["forecaster"].update(layout=[]),
    "no bands": drop("rest.bands.sizes"),
    "no memory": drop("rest.memory.values"),
    "shares of another size": lambda tensors, header: tensors.update({"rest.shares": np.ones(2)}),
    "more": lambda tensors, header: tensors.update({"rest.more": np.ones(2)}),
    "no weights": drop("model.W_hy"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_checkpoint_is_refused(damage, checkpoint, tmp_path):
    (tmp_path / "c").write_bytes(checkpoint)
    edit(tmp_path / "c", DAMAGED[damage])
    with pytest.raises(crnn.ModelFileError, match="expected"):
        crnn.load(tmp_path / "c")


@pytest.mark.parametrize("layout", [None, {}, {"season": {}}])
def test_a_hostile_checkpoint_is_not_resumed(layout, checkpoint, tmp_path):
    (tmp_path / "c").write_bytes(checkpoint)
    edit(tmp_path / "c", lambda tensors, header: header["rest"]["forecaster"].update(layout=layout))
    with pytest.raises(crnn.ModelFileError, match="expected"):
        model().fit(SERIES, checkpoint=tmp_path / "c", resume=True, **RUN)


def test_the_trained_part_is_still_described_by_its_own_header(tmp_path):
    model().fit(SERIES, checkpoint=tmp_path / "c", **RUN)
    tensors, header = take_apart(tmp_path / "c")
    assert header["model"]["kind"] == "SequenceRegressor"
    assert header["rest"]["kind"] == "Forecaster"
    assert {name for name in tensors if name.startswith("rest.")} >= {"rest.shares", "rest.bands.shape"}


@pytest.mark.parametrize("path", [3.5, "nothing", "."])
def test_what_is_no_checkpoint_is_refused_as_by_other_models(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    messages = []
    for train in (lambda **o: model().fit(SERIES, **o), lambda **o: crnn.SequenceRegressor().fit([SERIES], [1.0], **o)):
        with pytest.raises((TypeError, OSError, ValueError)) as error:
            train(checkpoint=path, resume=True)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert str(path) in messages[0] or "checkpoint: expected a path, got float" in messages[0]
