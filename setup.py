# SPDX-License-Identifier: MIT
"""Builds crnn's extension modules; everything else is said in pyproject.toml.

Every ``crnn/_core/*.pyx`` becomes one module. Only ``dispatch`` links the C core, ``src_c/*.c``, of which each
file is compiled with flags of its own, because an Extension has one set of flags for all its sources.

CRNN_DEBUG=1                  C asserts, Cython bounds checks, -O1 -g
CRNN_SANITIZE=address,...     gcc or clang sanitizers, in compilation and linking
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if sys.platform == "darwin" and not {"ARCHFLAGS", "_PYTHON_HOST_PLATFORM"} & set(os.environ):
    # python.org's Python compiles for two machines at once, and no set of instructions fits both. Build for this one.
    # Said before setuptools is imported, which reads it.
    os.environ["ARCHFLAGS"] = f"-arch {platform.machine()}"
    os.environ["_PYTHON_HOST_PLATFORM"] = f"macosx-11.0-{platform.machine()}"

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError
from setuptools.modified import newer_group

DEBUG = os.environ.get("CRNN_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("CRNN_SANITIZE", "")

# Instruction set -> its flags for gcc and clang, and for MSVC. On machines not named here: generic alone.
X86 = {
    "avx2": (["-mavx2", "-mfma"], ["/arch:AVX2"]),
    "avx512": (
        ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
        ["/arch:AVX512"],
    ),
}
ARM = {"neon": ([], [])}
ISAS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}

# The order of the arithmetic is a promise: nothing here lets the compiler contract, reorder or approximate it.
# (-fno-math-errno: sqrt and friends need not set errno, so they can be one instruction. Their values stay.)
UNIX = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
UNIX_WARN = ["-Wall", "-Wextra"]
MSVC = ["/std:c11", "/O2", "/fp:precise"]
MSVC_WARN = ["/W3"]


class BuildExt(build_ext):
    """build_ext that compiles the C core once per instruction set."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        import numpy
        from Cython.Build import cythonize

        msvc = self.compiler.compiler_type == "msvc"
        flags = list(MSVC if msvc else UNIX)
        link = []
        if SANITIZE:
            link = [f"-fsanitize={SANITIZE}"]
            flags += [*link, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
        if not msvc:
            # -g0: Python's own flags often carry -g, which makes the wheel five times as large.
            flags += ["-O1", "-g"] if DEBUG or SANITIZE else ["-g0"]

        changed = self._stamp(flags)
        headers = [*map(str, Path("src_c").glob("*.h")), self.stamp]
        core = self._compile_core(msvc, flags, headers)
        cython = cythonize(
            self.extensions,
            build_dir=self.build_temp,
            force=self.force or changed,
            compiler_directives={
                "language_level": 3,
                "embedsignature": True,
                "freethreading_compatible": True,
                "boundscheck": DEBUG,
                "initializedcheck": DEBUG,
                "wraparound": False,  # in a debug build too: there a negative index is an IndexError
            },
        )
        for ext, generated in zip(self.extensions, cython, strict=True):
            ext.sources = generated.sources
            ext.include_dirs += ["src_c", numpy.get_include()]
            ext.define_macros.append(("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"))
            ext.undef_macros += ["NDEBUG"] if DEBUG else []
            ext.extra_compile_args += flags
            ext.extra_link_args += link
            ext.depends += headers
            if ext.name == "crnn._core.dispatch":
                ext.extra_objects = core
                ext.depends += core
        super().build_extensions()

    def _stamp(self, flags):
        """Note compiler and flags in a file on which all objects depend. True if they are not those of last time."""
        self.stamp = os.path.join(self.build_temp, "flags.txt")
        text = repr([getattr(self.compiler, "compiler_so", None), flags, DEBUG, self.plat_name])
        path = Path(self.stamp)
        if path.exists() and path.read_text() == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return True

    def _compile_core(self, msvc, flags, headers):
        """Compile src_c/dispatch.c and one object per instruction set of the target; return their paths."""
        machine = self.plat_name.lower().rpartition("-")[2]  # of the target, which need not be the machine we run on
        if machine in ("universal2", "intel", "fat64") or os.environ.get("ARCHFLAGS", "").count("-arch") > 1:
            raise SetupError("crnn is built for one machine at a time: set ARCHFLAGS to '-arch arm64' or '-arch x86_64'")
        isas = ISAS.get(machine, {})
        units = {"dispatch": [], "isa_generic": []} | {f"isa_{name}": isa[msvc] for name, isa in isas.items()}
        macros = [(f"CRNN_HAVE_{name.upper()}", "1") for name in isas]
        macros.append(("NDEBUG",) if DEBUG else ("NDEBUG", None))  # undefined, or defined

        def compile_unit(unit):
            source = f"src_c/{unit}.c"
            (obj,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
            if self.force or newer_group([source, *headers], obj):
                self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    macros=macros,
                    include_dirs=["src_c"],
                    extra_postargs=[*(MSVC_WARN if msvc else UNIX_WARN), *flags, *units[unit]],
                )
            return obj

        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(compile_unit, units))


setup(
    ext_modules=[Extension(f"crnn._core.{pyx.stem}", [pyx.as_posix()]) for pyx in sorted(Path("crnn/_core").glob("*.pyx"))],
    cmdclass={"build_ext": BuildExt},
)
