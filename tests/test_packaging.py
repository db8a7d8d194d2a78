"""What the package's page and the project's files say, and that they agree."""

import os
import re
import subprocess
import sys
from email import message_from_string
from pathlib import Path

import pytest

import crnn

ROOT = Path(__file__).parents[1]
ADDRESS = "https://forge.example/someone/crnn"

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")


def package_info(folder, **environment):
    """The metadata that a build has in this environment."""
    clean = {key: value for key, value in os.environ.items() if key != "CRNN_REPOSITORY"}
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "--egg-base", str(folder)]
    subprocess.run(command, cwd=ROOT, env=clean | environment, check=True, capture_output=True)
    return message_from_string((folder / "crnn.egg-info" / "PKG-INFO").read_text("utf-8"))


def links(text):
    return re.findall(r"\]\(([^)]*)\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def test_every_link_of_the_packages_page_leads_to_this_version_in_the_repository(tmp_path):
    info = package_info(tmp_path, CRNN_REPOSITORY=ADDRESS)
    text = info.get_payload()
    readme = (ROOT / "README.md").read_text("utf-8")
    assert info["Description-Content-Type"] == "text/markdown"
    assert len(links(text)) == len(links(readme)) > 10
    for link, source in zip(links(text), links(readme), strict=True):
        relative = ":" not in source and not source.startswith("#")
        assert link == (f"{ADDRESS}/blob/v{crnn.__version__}/{source}" if relative else source)
    assert f"git clone {ADDRESS} crnn" in text
    assert "THIS-REPOSITORY" not in text
    urls = dict(each.split(", ") for each in info.get_all("Project-URL"))
    assert urls["Source"] == ADDRESS
    assert urls["Issues"] == f"{ADDRESS}/issues"


def test_a_build_that_knows_no_address_names_none(tmp_path):
    if (ROOT / "PKG-INFO").exists():
        pytest.skip("an sdist may know its address")
    info = package_info(tmp_path)
    assert info.get_all("Project-URL") is None
    assert links(info.get_payload()) == links((ROOT / "README.md").read_text("utf-8"))


@pytest.mark.parametrize("address", ["forge.example/crnn", "https://forge.example/crnn/", "https://a b", "git@x:y"])
def test_an_address_that_is_no_address_is_refused(tmp_path, address):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        package_info(tmp_path, CRNN_REPOSITORY=address)
    assert b"CRNN_REPOSITORY: expected an address" in failed.value.stderr


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"version: {crnn.__version__}\n" in text
    assert text.startswith("cff-version: 1.2.0\n")


def test_every_relative_link_of_the_projects_files_leads_to_a_file():
    pages = [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("docs/*.md")]
    assert len(pages) > 15
    for page in pages:
        for link in links(page.read_text("utf-8")):
            if ":" not in link and not link.startswith("#"):
                assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


def test_training_and_saving_import_numpy_and_nothing_else_and_a_bar_needs_tqdm(tmp_path):
    code = """if True:
        import sys
        before = set(sys.modules)
        import crnn
        corpus = crnn.TextCorpus.from_text("hello world. " * 30)
        model = crnn.LanguageModel(corpus.vocab, hidden_size=4, seed=1)
        crnn.fit(model, corpus, epochs=1, progress=True)  # lines, because there is no terminal
        model.save("m.safetensors")
        assert crnn.load("m.safetensors").flat_params.tobytes() == model.flat_params.tobytes()
        names = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*names - set(sys.stdlib_module_names))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    modules = {name for name in done.stdout.split() if not name.startswith(("_cython", "cython_runtime"))}
    assert modules == {"crnn", "numpy"}
    needed = package_info(tmp_path).get_all("Requires-Dist")
    assert [each for each in needed if "extra ==" not in each] == ["numpy>=1.26", "tqdm>=4.66"]


def test_import_crnn_loads_no_module_that_only_files_texts_or_messages_need():
    code = """if True:
        import sys
        import numpy
        before = set(sys.modules)
        import crnn
        print(*set(sys.modules) - before)
        assert crnn.text.Vocab is crnn.Vocab
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"bz2", "decimal", "difflib", "hashlib", "json", "lzma", "queue", "shutil", "tempfile", "unicodedata"}
    slow |= {"crnn.optim", "crnn.text", "crnn.models", "crnn.training", "crnn.cli", "crnn.interop"}
    assert "crnn.nn.network" in done.stdout.split()
    assert not slow.intersection(done.stdout.split())


def test_a_system_without_locks_trains_saves_and_loads(tmp_path):
    code = """if True:
        import sys
        import numpy
        import tqdm
        sys.modules["fcntl"] = None
        sys.platform = "emscripten"  # WebAssembly: one process, and no module fcntl
        import crnn
        corpus = crnn.TextCorpus.from_text("hello world. " * 30, valid=0.2)
        model = crnn.LanguageModel(corpus.vocab, hidden_size=4, seed=1)
        crnn.fit(model, corpus, epochs=1, checkpoint="c", progress=False)
        model.save("m.safetensors")
        assert crnn.load("m.safetensors").flat_params.tobytes() == model.flat_params.tobytes()
    """
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert sorted(os.listdir(tmp_path)) == ["c", "m.safetensors"]


def test_a_python_built_without_extended_attributes_replaces_files(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "listxattr", raising=False)
    model = crnn.RNN(2, 3, seed=1)
    for _ in range(2):
        model.save(tmp_path / "m")
    assert crnn.load(tmp_path / "m").flat_params.tobytes() == model.flat_params.tobytes()
