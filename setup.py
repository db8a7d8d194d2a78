# SPDX-License-Identifier: MIT
"""Builds crnn's extension modules; everything else is said in pyproject.toml.

Every .pyx becomes one module. Only ``dispatch`` links the kernels, and ``stream`` and ``stream_batch`` src_c/stream.c:
files of src_c are compiled with flags of their own, because an Extension has one set of flags for all its sources. The
public headers are copied to crnn/include, so that a wheel and a checkout have them in the same place.

CRNN_DEBUG=1                     C asserts, Cython's bounds checks, -O1 -g
CRNN_SANITIZE=address,undefined  gcc's or clang's sanitizers, when compiling and linking
"""

import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if sys.platform == "darwin" and not {"ARCHFLAGS", "_PYTHON_HOST_PLATFORM"} & set(os.environ):
    # python.org's Python compiles for two machines at once, and no instruction set is on both. Build for this
    # one. It must be said before setuptools is imported, which reads it.
    os.environ["ARCHFLAGS"] = f"-arch {platform.machine()}"
    os.environ["_PYTHON_HOST_PLATFORM"] = f"macosx-11.0-{platform.machine()}"

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError
from setuptools.modified import newer_group

DEBUG = os.environ.get("CRNN_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("CRNN_SANITIZE", "")

# Instruction set: flags for gcc and clang, flags for MSVC. A machine not named here has generic only.
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"]
X86 = {"avx2": (["-mavx2", "-mfma"], ["/arch:AVX2"]), "avx512": (AVX512, ["/arch:AVX512"])}
ARM = {"neon": ([], [])}
ISAS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}

# The order of arithmetic is a promise: nothing here lets a compiler contract, reorder or approximate it.
# -fno-math-errno changes no value: sqrt and its like no longer set errno, and so can be one instruction.
UNIX = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
MSVC = ["/std:c11", "/O2", "/fp:precise"]

# Modules that link objects of src_c: the kernels and what asks the CPU, or stream.c.
CORE = {"crnn._core.dispatch": "kernels", "crnn.stream.stream": "streams", "crnn.stream.stream_batch": "streams"}
PUBLIC_HEADERS = ("crnn.h", "crnn_stream.h")

DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "freethreading_compatible": True,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,  # when debugging too, where a negative index then is an IndexError
}


class BuildExt(build_ext):
    """build_ext that also compiles the C core, once per instruction set."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        import numpy
        from Cython.Build import cythonize

        self.msvc = self.compiler.compiler_type == "msvc"
        sanitize = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
        flags = list(MSVC) if self.msvc else [*UNIX, *sanitize]
        if SANITIZE:
            flags += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
        if not self.msvc:  # Python's own flags may carry -g, which makes a wheel five times as large
            flags += ["-O1", "-g"] if DEBUG or SANITIZE else ["-g0"]

        stamp = self.note_flags(flags)
        depends = [stamp, *(path.as_posix() for path in Path("src_c").rglob("*.h"))]
        core = self.compile_core(flags, depends)
        pxds = [path.as_posix() for path in Path("crnn").rglob("*.pxd")]
        for ext in self.extensions:
            # Cython 3.3 overlooks that `from crnn._core cimport x` depends on x.pxd: a newer .pxd renews all.
            c_file = str(Path(self.build_temp, ext.sources[0]).with_suffix(".c"))
            force = self.force or newer_group([stamp, *ext.sources, *pxds], c_file)
            options = {"build_dir": self.build_temp, "compiler_directives": DIRECTIVES, "force": force}
            ext.sources = cythonize(ext, **options)[0].sources
            ext.include_dirs += ["src_c", numpy.get_include()]
            ext.define_macros.append(("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"))
            ext.undef_macros += ["NDEBUG"] * DEBUG
            ext.extra_compile_args += flags
            ext.extra_link_args += sanitize
            ext.depends += depends
            if ext.name in CORE:
                streams = CORE[ext.name] == "streams"
                ext.extra_objects = [obj for obj in core if (Path(obj).stem == "stream") == streams]
                ext.depends += ext.extra_objects
                ext.libraries += [] if self.msvc else ["m"]  # fma, where it is no instruction
        super().build_extensions()

    def note_flags(self, flags):
        """Note compiler and flags in a file that everything built depends on; return its path."""
        stamp = Path(self.build_temp, "flags.txt")
        text = repr([getattr(self.compiler, "compiler_so", "msvc"), flags, DEBUG])
        if not stamp.exists() or stamp.read_text() != text:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(text)
        return str(stamp)

    def compile_core(self, flags, depends):
        """Compile src_c/dispatch.c, stream.c and each of the target's instruction sets; return the objects."""
        machine = self.plat_name.lower().rpartition("-")[2]  # of the target, never of the host
        if machine == "universal2" or os.environ.get("ARCHFLAGS", "").count("-arch") > 1:
            raise SetupError("ARCHFLAGS: expected one machine, like '-arch arm64'; universal2 is not built")
        isas = ISAS.get(machine, {})
        own_flags = {"src_c/dispatch.c": [], "src_c/stream.c": []}
        for isa, choice in {"generic": ([], []), **isas}.items():
            own_flags |= {path.as_posix(): choice[self.msvc] for path in Path("src_c").glob(f"isa_{isa}_*.c")}
        macros = [(f"CRNN_HAVE_{isa.upper()}", "1") for isa in isas]
        macros.append(("NDEBUG",) if DEBUG else ("NDEBUG", None))  # undefined, or defined
        warnings = ["/W3"] if self.msvc else ["-Wall", "-Wextra"]

        def compile_one(source):
            (obj,) = self.compiler.object_filenames([source], output_dir=self.build_temp)
            if self.force or newer_group([source, *depends], obj):
                args = [*warnings, *flags, *own_flags[source]]
                self.compiler.compile([source], self.build_temp, macros, ["src_c"], extra_postargs=args)
            return obj

        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(compile_one, sorted(own_flags)))


Path("crnn/include").mkdir(exist_ok=True)
for header in PUBLIC_HEADERS:
    shutil.copy2(Path("src_c", header), Path("crnn/include", header))
pyx = sorted(Path("crnn").rglob("*.pyx"))
modules = [Extension(".".join(path.with_suffix("").parts), [path.as_posix()]) for path in pyx]
setup(ext_modules=modules, cmdclass={"build_ext": BuildExt})
