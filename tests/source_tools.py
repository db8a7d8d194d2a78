# SPDX-License-Identifier: MIT
"""What the sources import and inherit, read from their text. `python tests/source_tools.py` prints the sizes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]  # a module, and the modules of the same package that it imports, anywhere in its text

SUFFIXES = (".py", ".pyi", ".pyx", ".pxd", ".pxi")
CYTHON_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?c?import[ \t]+(\([^)]*\)|[^\n(]+)", re.MULTILINE)
CYTHON_CLASS = re.compile(r"^[ \t]*(?:cdef[ \t]+)?class[ \t]+(\w+)(?:\(([^)]*)\))?:", re.MULTILINE)


def sources(package: Path) -> Iterator[tuple[str, Path]]:
    """(module, file) of a package. A .pyx, its .pxd and its .pyi are one module; a package is its __init__."""
    for path in sorted(package.rglob("*")):
        if path.suffix in SUFFIXES:
            parts = (package.name, *path.relative_to(package).with_suffix("").parts)
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported_names(path: Path, module: str) -> Iterator[tuple[str, list[str]]]:
    """(module, names) of every import statement: in functions and under TYPE_CHECKING too, and cimports."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((alias.name, []) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield absolute("." * node.level + (node.module or ""), path, module), [a.name for a in node.names]
        return
    for match in CYTHON_IMPORT.finditer(text):
        names = re.findall(r"([\w.*]+)(?:[ \t]+as[ \t]+\w+)?[ \t\n]*(?:,|$)", match[2].split("#")[0].strip("() \t\n"))
        if match[1]:
            yield absolute(match[1], path, module), names
        else:
            yield from ((name, []) for name in names)


def absolute(name: str, path: Path, module: str) -> str:
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parents = module.split(".")
    above = parents[: len(parents) + (path.stem == "__init__") - level]
    return ".".join([*above, *filter(None, [name[level:]])])


def import_graph(package: Path) -> Graph:
    found = list(sources(package))
    graph: Graph = {module: set() for module, _ in found}
    for module, path in found:
        for source, names in imported_names(path, module):
            # `from a import b` imports a.b where that is a module, else something that a defines.
            targets = {f"{source}.{name}" if f"{source}.{name}" in graph else source for name in names} or {source}
            graph[module] |= {target for target in targets if target in graph and target != module}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Sets of modules that import each other, directly or through others: strongly connected components."""

    def reachable(module: str) -> set[str]:
        seen, stack = set(), [module]
        while stack:
            for target in graph[stack.pop()] - seen:
                seen.add(target)
                stack.append(target)
        return seen

    reach = {module: reachable(module) for module in graph}
    components = {tuple(sorted(o for o in reach[module] if module in reach[o])) for module in graph}
    return [list(component) for component in sorted(components) if component]


def wrong_floors(graph: Graph, floors: tuple[tuple[str, ...], ...]) -> list[str]:
    """Imports that do not go to a lower floor, and modules that stand on none.

    ``floors`` names folders and modules of the package, lowest first; "" is its own __init__. Within a folder modules
    may import each other.
    """
    level = {room: number for number, rooms in enumerate(floors) for room in rooms}

    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else ""

    wrong = [f"{module}: on no floor" for module in graph if room(module) not in level]
    for module, targets in graph.items():
        for target in sorted(targets):
            source, destination = room(module), room(target)
            if source != destination and level.get(source, 0) <= level.get(destination, 0):
                wrong.append(f"{module} imports {target}")
    return wrong


def classes(package: Path) -> dict[str, list[str]]:
    """Classes of a package by name, with the names of their bases."""
    found: dict[str, list[str]] = {}
    for _, path in sources(package):
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".py", ".pyi"):
            nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
            pairs = [(node.name, [ast.unparse(base).split("[")[0] for base in node.bases]) for node in nodes]
        else:
            pairs = [(m[1], [base.strip() for base in (m[2] or "").split(",")]) for m in CYTHON_CLASS.finditer(text)]
        for name, bases in pairs:
            found.setdefault(name, []).extend(base.rsplit(".", 1)[-1] for base in bases if base)
    return found


def inheritance(package: Path) -> dict[str, list[str]]:
    """For every class of a package, the longest chain of classes of the package that ends in it."""
    bases = classes(package)

    def chain(name: str, below: tuple[str, ...] = ()) -> list[str]:
        if name in below:  # two classes of one name
            return []
        chains = [chain(base, (*below, name)) for base in bases[name] if base in bases]
        return [*max(chains, key=len, default=[]), name]

    return {name: chain(name) for name in bases}


def functions(package: Path) -> list[tuple[int, int, str]]:
    """(lines, arguments, name) of every Python function, longest first."""
    found = []
    for module, path in sources(package):
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    arguments = node.args
                    count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
                    found.append((node.end_lineno - node.lineno + 1, count, f"{module}.{node.name}"))
    return sorted(found, reverse=True)


def main() -> None:
    root = Path(__file__).parents[1]
    for name in ("crnn", "benchmarks"):
        package = root / name
        lines = sorted(((path.read_text("utf-8").count("\n"), path) for _, path in sources(package)), reverse=True)
        chain = max(inheritance(package).values(), key=len)
        print(f"{name}: {len(circles(import_graph(package)))} circles; deepest inheritance: {' > '.join(chain)}")
        for circle in circles(import_graph(package)):
            print(f"    circle of {len(circle)}: {' '.join(circle)}")
        for count, path in lines[:5]:
            print(f"    {count} lines: {path.relative_to(root)}")
        for count, arguments, function in functions(package)[:5]:
            print(f"    {count} lines, {arguments} arguments: {function}")


if __name__ == "__main__":
    main()
