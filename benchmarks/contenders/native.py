# SPDX-License-Identifier: MIT
"""Steps from C and from Cython, and reads of memory: step_times.c and step_times.pyx, compiled on first use.

Both are built in build/benchmarks, and rebuilt when a source is newer. The C half is linked with
libcrnn.a, made by src_c/Makefile; the Cython half is compiled against the .pxd files and headers of the crnn that is
imported.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.latency import Stepper, Times
from benchmarks.base.measure import Missing, unavailable
from benchmarks.contenders.peak import FLAGS
from benchmarks.contenders.precisions import PRECISIONS

Array = NDArray[Any]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = ROOT / "src_c"
BUILT = ROOT / "build" / "benchmarks"


@cache
def archive() -> Path | Missing:
    """libcrnn.a, made by src_c/Makefile."""
    for tool in (compiler(), "make"):
        if shutil.which(tool) is None:
            return Missing(f"not found: {tool}")
    if not (SOURCES / "Makefile").is_file():
        return Missing("no src_c/Makefile: C needs a clone")
    BUILT.mkdir(parents=True, exist_ok=True)
    failed = _failure(["make", "-s", "-j2", "-C", str(SOURCES), f"OUT={BUILT}", f"CC={compiler()}"])
    return failed or BUILT / "libcrnn.a"


def linked(source: Path, target: Path, flags: list[str]) -> Path | Missing:
    """``target``, compiled from a C file and linked with libcrnn.a unless it is newer than both."""
    library = archive()
    if isinstance(library, Missing) or not _older(target, [library, source, *SOURCES.rglob("*.h")]):
        return library if isinstance(library, Missing) else target
    command = [compiler(), *flags, f"-I{SOURCES}", str(source), str(library), "-lm", "-o", str(target)]
    return _failure(command) or target


def compiler() -> str:
    """The C compiler that CC names, or cc."""
    return os.environ.get("CC", "cc")


def _failure(command: list[str]) -> Missing | None:
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.returncode:
        return None
    return Missing(f"{command[0]} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


@cache
def library() -> ctypes.CDLL | Missing:
    """step_times.c, linked with libcrnn.a."""
    import crnn

    flags = ["-O2", *FLAGS.get(crnn.available_isas()[-1].partition("_")[0], []), "-shared", "-fPIC"]
    built = linked(HERE / "step_times.c", BUILT / "step_times.so", flags)
    if isinstance(built, Missing):
        return built
    loaded = ctypes.CDLL(str(built))
    loaded.bench_stream.restype = ctypes.c_void_p
    return loaded


@cache
def module() -> Any:
    """step_times.pyx, compiled and imported."""
    import crnn

    if absent := unavailable("Cython", "setuptools"):
        return absent
    if shutil.which(compiler()) is None:
        return Missing("no C compiler found (cc, or CC=...)")
    target = BUILT / ("step_times" + sysconfig.get_config_var("EXT_SUFFIX"))
    folder, source = Path(crnn.__file__).parent, HERE / "step_times.pyx"
    if _older(target, [source, *folder.rglob("*.pxd"), *folder.rglob("*.h")]):
        try:
            _build(source)
        except Exception as error:  # of a compiler or of Cython, of many kinds
            return Missing(f"Cython: {str(error).strip().splitlines()[-1]}")
    spec = importlib.util.spec_from_file_location("step_times", target)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _older(target: Path, sources: list[Path]) -> bool:
    return not target.exists() or any(path.stat().st_mtime > target.stat().st_mtime for path in sources)


def _build(source: Path) -> None:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    import crnn

    extension = Extension("step_times", [str(source)], include_dirs=[crnn.get_include(), np.get_include()])
    extensions = cythonize([extension], build_dir=str(BUILT / "cython"), force=True, quiet=True)
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib, command.build_temp, command.force = str(BUILT), str(BUILT / "cython"), True
    command.ensure_finalized()
    command.run()


def _address(array: Array | None) -> ctypes.c_void_p | None:
    """A pointer to the elements that keeps the array alive."""
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def _timed(call: Any, *arguments: Any) -> Times:
    """``times`` of a C function that takes (ns, n, block, ...)."""

    def times(n: int, block: int) -> Array:
        ns = np.empty(n, np.int64)
        call(_address(ns), ctypes.c_ssize_t(n), ctypes.c_ssize_t(block), *arguments)
        return ns

    return times


def from_c(cell: str, params: Any, x: Array | int, precision: str = "float32") -> Stepper | Missing:
    """A step in C of a network of one layer, or of a model on ids if ``params`` has a ``W_hy``."""
    import crnn

    loaded = library()
    if isinstance(loaded, Missing):
        return loaded
    W_hy, b_y = params.get("W_hy"), params.get("b_y")
    names = ("layer0.W_xh", "layer0.W_hh", "layer0.b_h", "layer0.b_hn")
    arrays = [None if a is None else np.ascontiguousarray(a) for a in (*map(params.get, names), W_hy, b_y)]
    D, H = len(params["layer0.W_xh"]), len(params["layer0.W_hh"])
    sizes = [ctypes.c_ssize_t(size) for size in (D, H, 0 if b_y is None else len(b_y))]
    isa, format_ = crnn.isa().encode(), list(PRECISIONS).index(precision)
    stream = ctypes.c_void_p(loaded.bench_stream(isa, cell.encode(), format_, *sizes, *map(_address, arrays)))
    if not stream:
        return Missing("C: no such model, or no memory")
    y = np.empty(H if b_y is None else len(b_y), np.float32)
    if isinstance(x, int):
        times = _timed(loaded.bench_id_steps, stream, _address(y), ctypes.c_int32(x))
    else:
        times = _timed(loaded.bench_steps, stream, _address(y), _address(x))
    return Stepper(times, _c_idle(loaded), lambda: y, tolerance=PRECISIONS[precision])


def from_cython(stream: Any, x: Array | int) -> Stepper | Missing:
    """``step_into`` or ``step_id_into``, called in a compiled loop."""
    loaded = module()
    if isinstance(loaded, Missing):
        return loaded
    y = np.empty(stream.output_size, np.float32)
    call = loaded.id_steps if isinstance(x, int) else loaded.steps

    def times(n: int, block: int) -> Array:
        ns = np.empty(n, np.int64)
        call(ns, block, stream, y, x)
        return ns

    def idle(n: int, block: int) -> Array:
        ns = np.empty(n, np.int64)
        loaded.nothing(ns)
        return ns

    return Stepper(times, idle, lambda: y)


def reading(bytes_: int) -> Stepper | Missing:
    """Reads ``bytes_`` bytes of memory again and again, from the smallest cache that holds them."""
    loaded = library()
    if isinstance(loaded, Missing):
        return loaded
    memory = np.zeros(bytes_ + 64, np.uint8)
    start = -memory.ctypes.data % 64
    part = memory[start : start + bytes_ // 64 * 64]
    times = _timed(loaded.bench_reads, _address(part), ctypes.c_ssize_t(len(part)))
    return Stepper(times, _c_idle(loaded), note=f"{bytes_ / 1024:.4g} KB of weights")


def _c_idle(loaded: ctypes.CDLL) -> Times:
    def idle(n: int, block: int) -> Array:
        ns = np.empty(n, np.int64)
        loaded.bench_nothing(_address(ns), ctypes.c_ssize_t(n))
        return ns

    return idle
