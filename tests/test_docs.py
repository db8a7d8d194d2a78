# SPDX-License-Identifier: MIT
"""The documentation site, as far as it can be checked without building it."""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import crnn.interop
from crnn.cli.command import SUBCOMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "api" / "index.rst"

pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason="the pages are not part of this tree")


def documented() -> dict[str, object]:
    """The objects of the reference, by their names there."""
    found: dict[str, object] = {}
    module, listed = "", False
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if line.startswith(".. "):
            listed = line == ".. autosummary::"
            if line.startswith(".. currentmodule:: "):
                module = line.split()[-1]
        elif listed and re.fullmatch(r" +[\w.]+", line):
            found[f"{module}.{line.strip()}"] = lookup(f"{module}.{line.strip()}")
    return found


def lookup(name: str) -> object:
    """Import a name such as crnn.report.write, whose last parts are attributes."""
    parts = name.split(".")
    value: object = importlib.import_module(parts[0])
    for end, part in enumerate(parts[1:], start=2):
        if isinstance(value, ModuleType) and not hasattr(value, part):
            importlib.import_module(".".join(parts[:end]))
        value = getattr(value, part)
    return value


# Modules of crnn.interop that its formats share, which convert nothing themselves.
SHARED = {"audio", "folding", "json_file", "layouts", "parts"}
FORMATS = [module.name for module in pkgutil.iter_modules(crnn.interop.__path__) if module.name not in SHARED]
MODULES = ["crnn", "crnn.optim", "crnn.sampling", "crnn.stream", *(f"crnn.interop.{name}" for name in FORMATS)]


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(module: str) -> None:
    """A new public name goes into docs/api/index.rst, at its task."""
    here = importlib.import_module(module)
    public = {name: getattr(here, name) for name in getattr(here, "__all__", ["load", "save"])}
    public = {name: value for name, value in public.items() if inspect.isroutine(value) or inspect.isclass(value)}
    assert public
    listed = list(documented().values())
    assert [name for name, value in public.items() if not any(value is entry for entry in listed)] == []


def test_everything_in_the_reference_has_a_docstring() -> None:
    found = documented()
    assert len(found) > 50
    assert [name for name, value in found.items() if not (value.__doc__ or "").strip()] == []


FOLDERS = (".github", "benchmarks", "docs", "examples")
PAGES = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_a_page_have_at_most_120_characters(page: Path) -> None:
    """But for rows of tables, which Markdown cannot wrap."""
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    assert [number for number, line in lines if len(line) > 120 and not line.lstrip().startswith("|")] == []


@pytest.fixture
def forge_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    monkeypatch.delitem(sys.modules, "forge_pages", raising=False)
    return importlib.import_module("forge_pages")


@pytest.mark.thread_unsafe
def test_links_of_the_pages_lead_to_the_site_or_to_the_repository(forge_pages: ModuleType) -> None:
    def on_site(text: str, docname: str, folder: Path, url: str = "https://forge/crnn") -> str:
        return forge_pages.rewritten(text, docname, folder, url)

    assert on_site("[a](text.md#windows)", "training", DOCS) == "[a](text.md#windows)"
    assert on_site("[a](../README.md)", "index", DOCS) == "[a](site/overview.md)"
    assert on_site("[a](docs/training.md#defaults)", "site/overview", ROOT) == "[a](../training.md#defaults)"
    assert on_site("[`k`](../src_c/crnn.h)", "kernels", DOCS) == "[`k`](https://forge/crnn/blob/main/src_c/crnn.h)"
    assert on_site("[k](../tests)", "kernels", DOCS) == "[k](https://forge/crnn/tree/main/tests)"
    assert on_site("[k](../tests)", "kernels", DOCS, url="") == "k (`tests/`)"
    assert on_site("[a](../examples/gallery/amp.py)", "index", DOCS) == "[a](gallery/amp.rst)"
    untouched = "[a](https://semver.org/) [b](#here) [c](../no-such-file)\n```\n[a](../README.md)\n```\n"
    assert on_site(untouched, "index", DOCS) == untouched


def test_pages_of_the_site_stand_for_files_of_the_repository(forge_pages: ModuleType) -> None:
    assert {f"site/{page.stem}" for page in (DOCS / "site").iterdir()} == set(forge_pages.PAGES)
    for page, file in forge_pages.PAGES.items():
        assert (ROOT / file).exists()
        assert f"(../../{file})" in (DOCS / f"{page}.md").read_text(encoding="utf-8")  # for readers on a forge


# ---- maps of the code ------------------------------------------------------------------------------------------------

MAPS = ("docs/architecture.md", "docs/guarantees.md", ".github/CONTRIBUTING.md")
MADE = {"crnn/include/", "crnn/lib/", ".venv/bin/", ".body.h", "pyconfig.h"}  # by the build, or no file of ours


@pytest.mark.parametrize("page", MAPS)
def test_files_and_their_contents_that_a_map_names_exist(page: str) -> None:
    """Such as `nn/stack.py`, `src_c/quant/`, and `training/trainer.py: Trainer.end`."""
    places = [ROOT / name for name in ("crnn", "src_c", "tests", "docs", "benchmarks", "examples", ".ci", ".github")]
    paths = [path for place in places for path in place.rglob("*")] + list(ROOT.glob("*"))
    known = {f"/{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}": path for path in paths}
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`([\w./-]+\.(?:py|pyx|pxd|c|h|def|toml)|[\w./-]+/)(?::\s+([\w.]+))?`", text)
    assert len(named) > 50
    for name, content in named:
        found = [path for full, path in known.items() if full.endswith(f"/{name}")]
        assert found or name in MADE, name
        if content:
            last = content.rpartition(".")[2]
            texts = [path.read_text(encoding="utf-8") for path in found]
            assert any(re.search(rf"\b{last}\b", each) for each in texts), f"{name}: {content}"


def test_every_subcommand_is_in_the_documentation() -> None:
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    assert [each.name for each in SUBCOMMANDS if f"`crnn {each.name}`" not in page] == []


# ---- examples --------------------------------------------------------------------------------------------------------

EXAMPLES = sorted((ROOT / "examples").glob("gallery/*.py")) + sorted((ROOT / "examples").glob("lessons/*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_begin_with_a_title_and_what_they_teach(example: Path) -> None:
    """They run when the site is built."""
    text = example.read_text(encoding="utf-8")
    assert text.count("\n") < (110 if example.parent.name == "lessons" else 90)
    docstring = ast.get_docstring(ast.parse(text))
    title, underline, empty, *lesson = docstring.splitlines()
    assert (underline, empty) == ("=" * len(title), "")
    assert len(" ".join(lesson)) > 200
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert imported <= {"crnn", "numpy", "matplotlib"} | sys.stdlib_module_names  # a notebook runs anywhere


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 7


def test_the_methods_that_the_reference_leaves_out_exist() -> None:
    """A name that no class has any more, or that is misspelt, would be left out for no reason."""
    tree = ast.parse((DOCS / "_ext" / "reference.py").read_text(encoding="utf-8"))
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "BETWEEN_MODULES"
    ]
    classes = [value for value in documented().values() if inspect.isclass(value)]
    assert {name for name in names if not any(hasattr(kind, name) for kind in classes)} == set()
