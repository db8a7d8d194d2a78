# SPDX-License-Identifier: MIT
"""The lists that src_c keeps: kernels, instruction sets; what the build makes of them and of the .pyx; the options of
networks that concern more than training; and the arguments of compiled functions."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from model_tools import environment

import crnn
from crnn._core import dispatch
from crnn._options import options_of
from crnn.interop.parts import ONLY_TRAINING
from crnn.models.learners.text import TextLearner
from crnn.nn.config import NetworkConfig
from crnn.text.generation import SamplingConfig, SamplingOptions

ROOT = Path(__file__).parents[1]
CORE = Path(dispatch.__file__).parent
LIST = Path(crnn.get_include(), "kernels.def").read_text("utf-8")
KERNELS = re.findall(r"^CRNN_KERNEL\(\w+, (\w+),", LIST, re.MULTILINE)
SETS = ROOT / "src_c" / "isa" / "sets.def"
STUBS = sorted(CORE.glob("*.pyi"))
in_clone = pytest.mark.skipif(not SETS.exists(), reason="the sources are not part of this tree")


def test_no_kernel_is_listed_twice():
    assert len(KERNELS) > 30
    assert len(set(KERNELS)) == len(KERNELS)


def test_cython_knows_every_kernel_in_both_precisions():
    declared = re.findall(r"\(\*(\w+)\)\(.*\) noexcept nogil$", (CORE / "kernels.pxd").read_text("utf-8"), re.MULTILINE)
    assert declared == KERNELS * 2


@in_clone
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_has_a_wrapper_for_both_precisions(name):
    sources = [*(ROOT / "crnn" / "_core").glob("*.pyx"), ROOT / "src_c" / "linalg" / "packing.h"]  # for packed weights
    wrappers = "".join(path.read_text("utf-8") for path in sources).replace("->", ".")
    assert re.search(rf"\bf32\.{name}\b", wrappers)
    assert re.search(rf"\bf64\.{name}\b", wrappers)


@in_clone
def test_every_instruction_set_has_its_files():
    names = re.findall(r"^CRNN_SET\((\w+), (?:any|x86|arm), \".*\", \".*\"\)$", SETS.read_text("utf-8"), re.MULTILINE)
    extensions = re.findall(r"^CRNN_EXTENSION\((\w+), (\w+), ", SETS.read_text("utf-8"), re.MULTILINE)
    assert names[0] == "generic"
    assert all(of in names and name.startswith(f"{of}_") for name, of in extensions)
    assert set(dispatch.built_isas()) <= {*names, *(name for name, _ in extensions)}
    assert {path.stem for path in SETS.parent.glob("*.c")} == {*names, *(name for name, _ in extensions)}
    assert all((ROOT / "src_c" / "simd" / f"{name}.h").exists() for name in names)


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
def test_stubs_name_the_arguments_that_the_functions_have(stub):
    module = importlib.import_module(f"crnn._core.{stub.stem}")
    for node in ast.parse(stub.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            arguments = [argument.arg for argument in node.args.args]
            assert arguments == list(inspect.signature(getattr(module, node.name)).parameters), node.name
        elif isinstance(node, ast.ClassDef):
            assert inspect.isclass(getattr(module, node.name)), node.name
        elif isinstance(node, ast.AnnAssign):
            kind = {"int": int, "dict": dict, "tuple": tuple}[ast.unparse(node.annotation).partition("[")[0]]
            assert isinstance(getattr(module, node.target.id), kind), node.target.id


def test_there_are_stubs():
    assert {"dispatch", "gemm", "loss"} <= {path.stem for path in STUBS}


def test_import_works_in_the_folder_of_the_clone():
    """Its folder crnn/ comes before the installed package there."""
    command = [sys.executable, "-c", "import crnn"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# The options of a network that change what a trained one computes. Streams and exported C files compute them too, or
# refuse them by name; a new one is added here when it does one or the other.
IN_STREAMS = {
    *("input_size", "hidden_size", "num_layers", "cell", "embedding_size", "bidirectional", "dense_layers"),
    *("trainable_initial_state", "dtype", "precision"),
}


def test_every_option_of_a_network_is_for_training_alone_or_known_to_streams():
    options = {each.name for each in options_of(NetworkConfig)}
    assert options - ONLY_TRAINING == IN_STREAMS


def test_streams_generate_with_the_options_of_models():
    """Compiled functions write out their signatures; those of models are made of the list."""
    options = {each.name: each.default for each in options_of(SamplingConfig)}
    assert list(options) == [*SamplingOptions.__annotations__]
    for owner in crnn.LanguageModel, crnn.TextStream, TextLearner:
        for method in owner.generate, owner.iter_generate:
            parameters = inspect.signature(method).parameters.values()
            assert {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY} == options


@pytest.mark.parametrize("module", ["stream", "stream_batch", "text_stream"])
def test_the_types_of_streams_declare_the_arguments_that_there_are(module):
    compiled = importlib.import_module(f"crnn.stream.{module}")
    tree = ast.parse(Path(compiled.__file__).with_name(f"{module}.pyi").read_text("utf-8"))
    compared = 0
    for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
        found = compiled if owner is tree else getattr(compiled, owner.name)
        for node in owner.body:
            if not isinstance(node, ast.FunctionDef) or node.decorator_list or node.name.startswith("__"):
                continue
            declared = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert declared == list(inspect.signature(getattr(found, node.name)).parameters), node.name
            compared += 1
    assert compared > 4
