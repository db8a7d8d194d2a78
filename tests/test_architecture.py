# SPDX-License-Identifier: MIT
"""Imports go one way and inheritance is shallow, in crnn and in the benchmarks; and the checker finds violations."""

from functools import cache
from pathlib import Path

import pytest
from source_tools import circles, import_graph, inheritance, wrong_floors

import crnn

PACKAGE = Path(crnn.__file__).parent
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# Lowest first: a folder or module imports only from lower floors, and modules of one folder from each other.
FLOORS = (
    ("_core", "_options", "_version", "checks"),
    ("_attributes", "_float_mode", "_normal", "_parallel", "array_input"),
    ("io", "optim", "sampling"),
    ("report", "text"),
    ("stream",),
    ("nn",),
    ("training",),
    ("models",),
    ("compression",),
    ("_demo", "c_export", "diagnostics", "interop", "presets", "verification"),
    ("",),  # crnn/__init__.py
    ("cli", "config"),
    ("__main__",),
)
BENCHMARK_FLOORS = (
    ("base",),
    ("contenders",),
    ("rows",),
    ("all_rows", "report"),
    ("run",),
    ("compression", "defaults", "install", "latency", "logs", "promise", "published"),
    ("", "__main__"),
)
ROOMS_OF_MODELS = ("inputs", "outputs", "passes", "fitting")  # lowest first; the models themselves are above
MAX_INHERITANCE = 2  # classes of the package above a class

graph_of = cache(import_graph)

packages = pytest.mark.parametrize(
    ("package", "floors"),
    [
        pytest.param(PACKAGE, FLOORS, id="crnn"),
        pytest.param(
            BENCHMARKS,
            BENCHMARK_FLOORS,
            id="benchmarks",
            marks=pytest.mark.skipif(
                not BENCHMARKS.exists(), reason="benchmarks are in a clone, not in a wheel"
            ),
        ),
    ],
)


@packages
def test_no_modules_import_each_other_in_a_circle(package, floors):
    graph = graph_of(package)
    assert len(graph) > 20
    assert sum(map(len, graph.values())) > 40
    assert circles(graph) == []


@packages
def test_imports_go_to_lower_floors(package, floors):
    assert wrong_floors(graph_of(package), floors) == []


def test_the_rooms_of_models_are_floors_too():
    rooms = {f"crnn.models.{room}": height for height, room in enumerate(ROOMS_OF_MODELS)}

    def height(module):
        return rooms.get(".".join(module.split(".")[:3]), len(rooms))

    graph = {m: targets for m, targets in graph_of(PACKAGE).items() if m.startswith("crnn.models.")}
    assert {height(module) for module in graph} == set(range(len(rooms) + 1))
    upwards = [
        f"{module} imports {target}"
        for module, targets in graph.items()
        for target in targets
        if target.startswith("crnn.models.") and target not in rooms and height(target) > height(module)
    ]
    assert upwards == []


@packages
def test_inheritance_is_shallow(package, floors):
    chains = inheritance(package)
    assert len(chains) > 4
    assert [chain for chain in chains.values() if len(chain) - 1 > MAX_INHERITANCE] == []


def test_no_benchmark_row_imports_another():
    if not BENCHMARKS.exists():
        pytest.skip("benchmarks are in a clone, not in a wheel")
    graph = graph_of(BENCHMARKS)
    rows = [module for module in graph if module.startswith("benchmarks.rows.")]
    assert len(rows) > 5
    assert {(row, target) for row in rows for target in graph[row] if target.startswith("benchmarks.rows")} == set()


# ---- the checker -----------------------------------------------------------------------------------------------------


def package_of(folder: Path, files: dict[str, str]) -> Path:
    """A package ``pkg`` of these files, which import nothing but what their text says."""
    for name, text in ({"__init__.py": ""} | files).items():
        path = folder / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "pkg"


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": "import pkg.b", "b.py": "from pkg.a import f"},
        {"a.py": "def f():\n    from pkg import b", "b.py": "import pkg.a as other"},
        {"a.py": "if TYPE_CHECKING:\n    from pkg.b import X", "b.py": "from .a import Y"},
        {"a.py": "from . import b", "b.py": "from pkg import (\n    os,\n    a,\n)"},
        {"a.pyx": "cimport pkg.b", "b.pyx": "from pkg.a cimport f"},
        {"a.pyx": "from pkg.b cimport (\n    f,\n    g as h,\n)", "b.pxd": "from pkg cimport x, a as y  # two"},
        {"a.pyx": "def f():\n    from pkg.b import g", "b.pyi": "from pkg.a import f"},
        {"a.py": "import os, pkg.b", "b.py": "", "b.pyi": "import pkg.a"},
    ],
)
def test_a_circle_is_seen(tmp_path, files):
    graph = import_graph(package_of(tmp_path, files))
    assert circles(graph) == [["pkg.a", "pkg.b"]]


def test_a_long_circle_is_seen_and_what_leads_to_it_is_no_part_of_it(tmp_path):
    files = {f"{a}.py": f"import pkg.{b}" for a, b in ("ab", "bc", "ca", "xa", "yz")} | {"z.py": "'import pkg.y'"}
    graph = import_graph(package_of(tmp_path, files))
    assert circles(graph) == [["pkg.a", "pkg.b", "pkg.c"]]
    assert graph["pkg.x"] == {"pkg.a"}


def test_an_import_through_a_package_leads_to_its_init(tmp_path):
    files = {"nn/__init__.py": "from pkg.nn.net import Net", "nn/net.py": "from pkg.nn import cells", "nn/cells.py": ""}
    assert circles(import_graph(package_of(tmp_path, files))) == []
    files["nn/cells.py"] = "from pkg.nn import Net"
    assert circles(import_graph(package_of(tmp_path, files))) == [["pkg.nn", "pkg.nn.cells", "pkg.nn.net"]]


def test_an_import_of_the_same_or_a_higher_floor_is_seen(tmp_path):
    files = {
        "low.py": "",
        "equal.py": "import pkg.low",
        "mid/a.py": "from pkg import low\nfrom pkg.mid import b",
        "mid/b.pyx": "def f():\n    import pkg.top",
        "top.py": "import pkg.mid.a\nimport pkg",
        "new.py": "",
        "__init__.py": "import pkg.top",
    }
    found = wrong_floors(import_graph(package_of(tmp_path, files)), (("low", "equal"), ("mid",), ("top",), ("",)))
    assert found == [
        "pkg.new: on no floor",
        "pkg.equal imports pkg.low",
        "pkg.mid.b imports pkg.top",
        "pkg.top imports pkg",
    ]


def test_deep_inheritance_is_seen(tmp_path):
    files = {
        "a.py": "class A(Exception): ...\nclass B(A, list[int]): ...",
        "b.pyx": "cdef class C(B):\n    pass\nclass D(pkg.b.C):\n    pass\ncdef class E:\n    pass",
    }
    chains = inheritance(package_of(tmp_path, files))
    assert chains == {"A": ["A"], "B": ["A", "B"], "C": ["A", "B", "C"], "D": ["A", "B", "C", "D"], "E": ["E"]}
