# SPDX-License-Identifier: MIT
"""Presets: that each is what it says, that its update is its source's, and that given options take precedence."""

from pathlib import Path

import numpy as np
import pytest
from kernel_tools import assert_close

import crnn
from crnn import presets
from crnn.models.language.options import LANGUAGE_TYPES, LanguageConfig
from crnn.models.passes.predictor import Workspace
from crnn.nn.config import NetworkConfig, config_from
from crnn.presets import PRESETS
from crnn.training.config import TrainingConfig

VOCAB = crnn.Vocab.from_text("abcdefghijk")
IDS = np.random.default_rng(1).integers(11, size=1300)
PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def small(name, **options):
    """A model of a preset with few units."""
    sizes = PRESETS[name].model["hidden_size"]
    model = dict(PRESETS[name].model) | {"hidden_size": [9, 9, 8] if isinstance(sizes, list) else 8}
    if "embedding_size" in model:
        model["embedding_size"] = 8
    return crnn.LanguageModel(VOCAB, **model | options)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_options_of_models_training_and_texts_that_are_valid(name):
    preset = presets.named(name)
    assert preset.name == name
    assert preset.source
    own = {key: value for key, value in preset.model.items() if key in NetworkConfig.__dataclass_fields__}
    config_from(own, "LanguageModel", input_size=10)
    LanguageConfig(**{key: value for key, value in preset.model.items() if key in LANGUAGE_TYPES})
    assert set(preset.model) - set(own) - set(LANGUAGE_TYPES) <= {"tie_weights"}
    TrainingConfig(**preset.training)
    assert {"optimizer", "lr", "schedule", "clip_norm", "bptt", "batch_size"} <= set(preset.training)
    crnn.TextCorpus.from_text("to be or not " * 30, **preset.text)


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_of_each_trains(name):
    model = small(name)
    before = model.flat_params.copy()
    training = PRESETS[name].training | {"max_updates": 30, "epochs": None}
    model.fit(np.tile(np.arange(11), 300), valid=IDS, log_every=1, **training)
    if not training.get("random_bptt"):
        assert model.log.of_kind("train")[0]["lr"] == training["lr"]
    assert np.isfinite(model.flat_params).all()
    assert (model.flat_params != before).mean() > 0.9


def test_the_update_of_zarembas_models_is_that_of_their_program():
    """A sum over the steps of means over the batch, its norm limited to 5, and a rate of 1."""
    model, other = small("zaremba-small", dtype="float64"), small("zaremba-small", dtype="float64")
    for scale in (1.0, 60.0):  # the second gradient is clipped
        for each in (model, other):
            each.params["W_hy"][...] *= scale
        model.fit(IDS[:401], max_updates=1, warm_start=True, valid=None, **PRESETS["zaremba-small"].training)
        x, y = next(iter(other.windows(IDS[:401], 20, 20)))
        other.flat_grads.fill(0)
        other.loss_and_gradients(x, y, reduction="sum", workspace=Workspace())
        gradient = other.flat_grads / 20
        norm = np.linalg.norm(gradient)
        assert (norm > 5) == (scale > 1)
        other.flat_params[...] -= gradient * min(1, 5 / norm)
        assert_close(model.flat_params, other.flat_params)


def test_rates_fall_as_the_sources_say():
    def rates(name, epochs):
        config = TrainingConfig(**PRESETS[name].training)
        schedule = config.new_schedule()
        return [config.lr * schedule.at_epoch(epoch, ())(0, 1) for epoch in epochs]

    np.testing.assert_allclose(rates("zaremba-small", (1, 4, 5, 6, 13)), [20, 20, 10, 5, 20 * 0.5**9])
    np.testing.assert_allclose(rates("zaremba-medium", (6, 7, 39)), [35, 35 / 1.2, 35 / 1.2**33])
    np.testing.assert_allclose(rates("zaremba-large", (14, 15)), [35, 35 / 1.15])
    np.testing.assert_allclose(rates("char-rnn", (10, 11, 50)), [2e-3, 1.94e-3, 2e-3 * 0.97**40])
    np.testing.assert_allclose(rates("torch-rnn", (4, 5, 9, 10)), [2e-3, 1e-3, 1e-3, 5e-4])


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match=r"preset: expected one of min-char-rnn, .* got 'zaremba'; did you mean zar"):
        presets.named("zaremba")
    with pytest.raises(ValueError, match="preset: expected one of"):
        presets.named(3)


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is in a clone, not in a wheel")
def test_a_preset_that_a_program_changes_is_the_program_s_own():
    changed = crnn.presets.named("awd-lstm")
    changed.training["epochs"] = 1
    changed.model["hidden_size"][0] = 2
    again = crnn.presets.named("awd-lstm")
    assert (again.training["epochs"], again.model["hidden_size"]) == (500, [1150, 1150, 400])


def test_the_documentation_lists_all_of_them():
    rows = [line.split("`")[1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert [name for name in rows if name in PRESETS] == list(PRESETS)


# ---- in a shell ------------------------------------------------------------------------------------------------------


@pytest.fixture
def train(run, tmp_path):
    """Train with a preset and few units; returns the options in the record of the model's file."""
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question \n" * 60)

    def command(*arguments, status=0):
        path = tmp_path / "out.safetensors"
        base = ["train", tmp_path / "text.txt", "-o", path, "-q", "--restart", "--threads", 1]
        _, err = run(*base, *arguments, status=status)
        return err if status else crnn.load(path).training_runs[-1]["command"]

    return command


SMALL = ["--hidden", 8, "--epochs", 1]


def test_the_shell_sets_what_the_preset_says_and_records_its_name(train):
    used = train("--preset", "zaremba-small", *SMALL, "--embedding", 8)
    assert used["preset"] == "zaremba-small"
    expected = {"layers": 2, "init": "uniform(0.1)", "forget-bias": 0.0, "lr": 20.0, "batch": 20, "bptt": 20}
    assert {name: used[name] for name in expected} == expected
    assert used["unit"] == "word"
    assert used["patience"] == 0
    assert used["schedule"] == "steps(0.5, after=4)"
    assert (used["hidden"], used["embedding"], used["epochs"]) == (8, 8, 1)  # typed


def test_typed_options_come_before_a_file_and_that_before_the_preset(train, tmp_path):
    (tmp_path / "c.toml").write_text('preset = "char-rnn"\nlr = 0.01\nbptt = 9\n')
    used = train("--config", tmp_path / "c.toml", "--bptt", 7, *SMALL)
    assert (used["lr"], used["bptt"], used["batch"], used["clip-value"]) == (0.01, 7, 50, 0.1)


def test_another_optimizer_has_its_own_rate(train):
    used = train("--preset", "zaremba-small", *SMALL, "--embedding", 8, "--optimizer", "adam")
    assert "lr" not in used
    assert train("--preset", "char-rnn", *SMALL, "--optimizer", "adam", "--lr", 0.5)["lr"] == 0.5


def test_sizes_that_are_given_say_how_many_layers_there_are(train):
    used = train("--preset", "char-rnn", "--hidden", "7,6,5", "--epochs", 1)
    assert used["hidden"] == [7, 6, 5]
    assert "layers" not in used


def test_a_list_of_sizes_and_flags_that_are_set_reach_the_model(train, capsys):
    with pytest.raises(SystemExit):
        crnn.cli.main(["train", "--preset", "awd-lstm", "--help"])
    assert "(default: [1150, 1150, 400])" in " ".join(capsys.readouterr().out.split())
    tiny = ["--hidden", 8, "--layers", 2, "--embedding", 8, "--epochs", 1]
    used = train("--preset", "awd-lstm", *tiny, "--batch", 4)
    flags = ("tie-weights", "variational-dropout", "random-bptt", "activation-penalty", "average")
    assert [used[name] for name in flags] == [True, True, True, 2.0, "asgd(nonmono=5)"]


def test_what_a_preset_switches_on_can_be_switched_off(train, tmp_path):
    (tmp_path / "c.toml").write_text('preset = "awd-lstm"\nrandom-bptt = false\n')
    tiny = ["--hidden", 8, "--layers", 1, "--embedding", 8, "--epochs", 1, "--batch", 4]
    used = train("--config", tmp_path / "c.toml", *tiny, "--average", "none")
    assert (used["random-bptt"], used["average"]) == (False, "none")
    settings = crnn.load(tmp_path / "out.safetensors").training_runs[-1]["settings"]
    assert not {"random_bptt", "average"} & settings.keys()


def test_sizes_of_layers_are_typed_and_saved_and_read_again(train, run, tmp_path):
    used = train("--hidden", "6,5,4", "--epochs", 1)
    assert used["hidden"] == [6, 5, 4]
    assert "layers" not in used
    model = crnn.load(tmp_path / "out.safetensors")
    assert model.net.hidden_sizes == (6, 5, 4)
    out, _ = run("info", "--config", tmp_path / "out.safetensors")
    (tmp_path / "again.toml").write_text(out)
    train("--config", tmp_path / "again.toml")
    assert np.array_equal(crnn.load(tmp_path / "out.safetensors").flat_params, model.flat_params)


def test_help_shows_the_values_of_the_preset(capsys):
    with pytest.raises(SystemExit):
        crnn.cli.main(["train", "--preset", "zaremba-medium", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for value in ("(default: 650)", "(default: 35.0)", "(default: uniform(0.05))", "(default: 39)", "(default: 0.5)"):
        assert value in shown


def test_a_preset_that_contradicts_a_model_is_refused(train, model_file):
    err = train("--preset", "char-rnn", "--init-from", model_file, status=1)
    assert "as in" in err
    assert "got" in err


def test_an_unknown_preset_and_another_task_are_refused(train, capsys):
    for arguments, message in [
        (["--preset", "zaremba"], "invalid choice: 'zaremba' (choose from"),
        (["--task", "tag", "--preset", "char-rnn", "--column", "y"], "--preset"),
    ]:
        with pytest.raises(SystemExit):
            train(*arguments)
        assert message in capsys.readouterr().err
