# SPDX-License-Identifier: MIT
"""What we show is true: the lesson runs and its numbers hold, the README's code runs, the docstrings' examples do."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest

import crnn

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LESSON = ROOT / "examples" / "three_steps.py"


# ---- the lesson ------------------------------------------------------------------------------------------------------


def run_lesson(*arguments: str, folder: Path) -> str:
    """What the lesson prints, run by itself, with the crnn that is being tested."""
    env = os.environ | {"PYTHONPATH": str(Path(crnn.__file__).parents[1]), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error", str(LESSON), *arguments]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def lesson_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.fixture(scope="module")
def lesson(lesson_folder: Path) -> str:
    """What the lesson says; it draws flow.png as well, where it can."""
    plot = [] if find_spec("matplotlib") is None else ["--plot", "flow.png"]
    return run_lesson(*plot, folder=lesson_folder)


def table(text: str, heading: str) -> list[list[float]]:
    """The first rows of numbers below a heading. A lone - stands for no number."""
    rows: list[list[float]] = []
    for line in text[text.index(heading) :].splitlines()[1:]:
        if re.fullmatch(r"[-+.e\d\s]*\d[-+.e\d\s]*", line):
            rows.append([float(word) for word in line.split() if word != "-"])
        elif rows:
            break
    return rows


def test_lesson_agrees_with_the_library_to_the_last_digits(lesson: str) -> None:
    rows = re.findall(r"dW_hh\[(\d),(\d)\] +(\S+) +(\S+) +(\S+)", lesson)
    assert len(rows) == 9
    mine = [float(row[2]) for row in rows]
    assert len(set(mine)) == 9  # no two gradients are equal, none is 0
    assert 0 not in mine
    for *_, by_hand, by_crnn, difference in rows:
        assert abs(float(by_hand) - float(by_crnn)) < 1e-15
        assert abs(float(difference)) < 1e-15
    every = [float(number) for number in re.findall(r"largest difference (\d\S+)", lesson)]
    assert len(every) == 9
    assert float(re.search(r"Largest difference of all: (\S+)", lesson)[1]) == max(every) < 1e-15
    assert float(re.search(r"against the slopes: (\S+)", lesson)[1]) < 1e-8


def test_lesson_splits_the_gradient_of_W_hh_over_the_steps(lesson: str) -> None:
    def matrix(name: str) -> list[float]:
        rows = lesson[lesson.index(name) :].splitlines()[:3]
        return [float(number) for row in rows for number in re.findall(r"-?\d+\.\d{5}\b", row)]

    parts = [matrix(f"from step {t}:") for t in (1, 2, 3)]
    total = matrix("dW_hh = their sum")
    assert [len(part) for part in [*parts, total]] == [9, 9, 9, 9]
    for *each, whole in zip(*parts, total, strict=True):
        assert sum(each) == pytest.approx(whole, abs=2.1e-5)  # four numbers rounded to 5 places
    found = dict(re.findall(r"(step \d|dW_hh) +\d\.\d+ +(-?[\d.]+)%", lesson))
    shares = [float(found[f"step {t}"]) for t in (1, 2, 3)]
    assert sum(shares) == pytest.approx(100, abs=0.02)
    assert float(found["dW_hh"]) == 100
    norms = re.findall(r"(?:step \d|dW_hh) +(\d\.\d+) +-?[\d.]+%", lesson)
    squares = [sum(value**2 for value in part) for part in [*parts, total]]
    assert [float(norm) for norm in norms] == pytest.approx([square**0.5 for square in squares], rel=1e-3)


def test_lesson_shows_gradients_fade_and_explode(lesson: str) -> None:
    tiny, ordinary = table(lesson, "A. Tiny inputs"), table(lesson, "B. Ordinary inputs")
    for radius, *left, per_step, slope in tiny:
        # An orthogonal matrix times a radius: each step back multiplies by it exactly.
        assert left == pytest.approx([radius**4, radius**19, radius**79], rel=1e-2)
        assert (per_step, slope) == (radius, 1)
    assert [row[0] for row in tiny] == [row[0] for row in ordinary] == [0.5, 1.0, 1.5]
    for (_, *free, rate, _), (_, *bent, bent_rate, slope) in zip(tiny, ordinary, strict=True):
        assert all(b < f for b, f in zip(bent, free, strict=True))  # tanh's slope only ever takes away
        assert bent_rate < rate
        assert slope < 1
    (_, *fading, _, _), (_, *fading_too, _, _), (_, *growing, _, _) = ordinary
    assert fading == sorted(fading, reverse=True)
    assert fading_too == sorted(fading_too, reverse=True)
    assert growing == sorted(growing)
    assert fading[-1] < 1e-20 < 1e-6 < fading_too[-1] < 1 < growing[-1]


def test_lesson_measures_doubled_sizes_and_divides_the_times_rightly(lesson: str) -> None:
    """The times differ from run to run; that each ratio is the quotient of two of them does not."""
    of_t, of_h = table(lesson, "(expected 2)"), table(lesson, "(expected 4)")
    assert [row[:2] for row in of_t] == [[T, 128] for T in (4, 8, 16, 32, 64, 128)]
    assert [row[:2] for row in of_h] == [[32, H] for H in (16, 32, 64, 128, 256, 512)]
    for (_, _, *first), *rest in (of_t, of_h):  # two times, and below them two times with their ratios
        before = first
        assert min(before) > 0
        for _, _, forward, forward_ratio, backward, backward_ratio in rest:
            for now, ratio, last in zip((forward, backward), (forward_ratio, backward_ratio), before, strict=True):
                rounding = 0.005 * last + 0.0005 * (1 + ratio)  # of a ratio to 2 places, of times to 3
                assert abs(ratio * last - now) <= 1.01 * rounding
            before = [forward, backward]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib, the extra plot")
def test_lesson_draws_a_picture(lesson: str, lesson_folder: Path) -> None:
    from matplotlib.image import imread

    assert "The picture is in flow.png" in lesson
    picture = imread(lesson_folder / "flow.png")
    assert picture.shape[0] > 300
    assert picture.shape[1] > 600
    assert picture.std() > 0.05  # something is drawn


@pytest.mark.slow
def test_lesson_says_the_same_every_time(lesson: str, tmp_path: Path) -> None:
    again = run_lesson(folder=tmp_path)
    end = again.index("\nFor a picture run this again")  # times come after it
    assert again[:end] == lesson[:end]
    assert list(tmp_path.iterdir()) == []


# ---- the README and the pages in docs --------------------------------------------------------------------------------

# None when a wheel is tested.
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "recipes").glob("*.md")])
# The other pages have Python code.
WITHOUT_PYTHON = {
    "architecture.md",
    "benchmarks.md",
    "command-line.md",
    "guarantees.md",
    "published.md",
    "versions.md",
}
WITH_C = {"embedding.md", "export-c.md", "kernels.md"}


def run_code_of(page: Path) -> int:
    """Run a page's python blocks in order, in one namespace; return how many there are."""
    text = page.read_text(encoding="utf-8")
    namespace = {"__name__": page.stem}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for block in blocks:
        above = text.count("\n", 0, block.start(1))  # so that a traceback shows the page's own lines
        exec(compile("\n" * above + block[1], page, "exec"), namespace)
    return len(blocks)


@pytest.mark.thread_unsafe
@pytest.mark.skipif(not README.exists(), reason="the README is not part of this tree")
def test_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_code_of(README) > 0


class Study:
    """Optuna's, with two trials: the first is finished, the second pruned."""

    class TrialPruned(Exception):
        pass

    best_params = ()
    values: ClassVar[list[float]] = []

    def optimize(self, objective: Callable[[Any], float], n_trials: int) -> None:
        trial = mock.Mock()
        trial.suggest_int.return_value, trial.suggest_float.return_value = 8, 0.01
        trial.should_prune.return_value = False
        self.values.append(objective(trial))
        trial.should_prune.return_value = True
        with pytest.raises(self.TrialPruned):
            objective(trial)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> dict[str, mock.MagicMock]:
    """What stands for the libraries of the recipes, which are not installed for tests."""
    stubs = {name: mock.MagicMock() for name in ("tensorboardX", "mlflow", "optuna")}
    stubs["optuna"].TrialPruned, stubs["optuna"].create_study.return_value = Study.TrialPruned, Study()
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, name, stub)
    return stubs


@pytest.mark.thread_unsafe
@pytest.mark.skipif(not PAGES, reason="the pages are not part of this tree")
def test_recipes_pass_on_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_code_of(README.parent / "docs" / "callbacks.md") > 5
    writer = others["tensorboardX"].SummaryWriter.return_value.__enter__.return_value
    names = {call.args[0] for call in writer.add_scalar.call_args_list}
    assert names == {"loss/train", "loss/valid", "grad_norm", "lr"}
    losses = [call.args[0] for call in others["mlflow"].log_metrics.call_args_list]
    assert losses[-1]["valid_loss"] < losses[0]["valid_loss"] < 5
    assert 0 < Study.values[0] < 5


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_in_docs_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: Any) -> None:
    monkeypatch.chdir(tmp_path)
    of_a_library = re.search(r"^```python \w+$", page.read_text(encoding="utf-8"), re.MULTILINE)  # its tests run these
    assert bool(run_code_of(page) or of_a_library) == (page.name not in WITHOUT_PYTHON)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_c_code_quoted_in_docs_is_ours(page: Path) -> None:
    def plain(line: str) -> str:
        return " ".join(re.sub(r"/\*.*?\*/", "", line).split())

    files = [*(ROOT / "src_c").rglob("*.h"), *(ROOT / "examples" / "export_c").rglob("*.c")]
    source = {plain(line) for file in files for line in file.read_text("utf-8").splitlines()}
    blocks = re.findall(r"^```c\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert bool(blocks) == (page.name in WITH_C)
    for block in blocks:
        assert [line for line in block.splitlines() if plain(line) not in source] == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    if not PAGES or not page.exists():
        pytest.skip("the pages are not part of this tree")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert targets or page not in (README, PAGES[0].with_name("index.md"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


# ---- docstrings ------------------------------------------------------------------------------------------------------

found = pkgutil.walk_packages(crnn.__path__, "crnn.")
MODULES = ["crnn", *sorted(module.name for module in found if not module.name.endswith("__main__"))]
WITH_EXAMPLES = {
    *("crnn.diagnostics", "crnn.sampling", "crnn.io.atomic_write", "crnn.nn.network"),
    *(f"crnn.optim.{name}" for name in ("averages", "optimizers", "schedules")),
    *("crnn.text.corpus", "crnn.text.vocab", "crnn.text.windows", "crnn.training.log"),
    *(f"crnn.models.{name}" for name in ("classifier", "files", "gradient_flow", "language_model", "regressor")),
    *(f"crnn.models.{name}" for name in ("seq2seq", "tagger", "forecasting.forecaster")),
}


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "crnn":
            raise
        pytest.skip(f"needs {error.name}")
    monkeypatch.chdir(tmp_path)
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted >= (2 if name in WITH_EXAMPLES else 0)


def test_what_is_imported_late_is_there_all_the_same():
    code = "import crnn, sys; assert 'crnn.models.seq2seq' not in sys.modules; crnn.load; "
    code += "crnn.SequenceToSequence; crnn.gradient_flow; assert set(crnn.__all__) <= set(dir(crnn)); "
    code += "from crnn import *; save"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="module 'crnn' has no attribute 'sequence'"):
        _ = crnn.sequence
