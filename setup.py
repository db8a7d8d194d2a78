# SPDX-License-Identifier: MIT
"""Builds crnn's extension modules; everything else is said in pyproject.toml.

Every .pyx becomes one module, with the .pxi that it includes. Only ``dispatch`` links the kernels, and only ``stream``
src_c/stream.c: files of src_c are compiled with flags of their own, because an Extension has one set of flags for all
its sources.
What is written into crnn/ before anything is built, from its one source, and is not committed:

    crnn/include/            the public headers of src_c, so that a wheel and a checkout have them in the same place
    crnn/lib/                files for pkg-config and CMake, and the objects of src_c as a library, for C programs
    crnn/_core/kernels.pxd   Cython's declarations of the kernels in src_c/kernels.def
    crnn/_core/*.pyi         for type checkers, the signatures of the .pyx

CRNN_REPOSITORY=https://...      address of the repository: where the links of the package's page on PyPI lead.
                                 The release workflow sets it; wheels take it from the sdist's PKG-INFO
CRNN_DEBUG=1                     C asserts, Cython's bounds checks, -O1 -g
CRNN_SANITIZE=address,undefined  gcc's or clang's sanitizers, when compiling and linking
CRNN_FAST=1                      contraction and reassociation allowed, to measure what bit-identical results cost;
                                 `crnn verify` fails on such a build
"""

import os
import platform
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if sys.platform == "darwin" and not {"ARCHFLAGS", "_PYTHON_HOST_PLATFORM"} & set(os.environ):
    # python.org's Python compiles for two machines at once, and no instruction set is on both. Build for this
    # one. It must be said before setuptools is imported, which reads it.
    os.environ["ARCHFLAGS"] = f"-arch {platform.machine()}"
    os.environ["_PYTHON_HOST_PLATFORM"] = f"macosx-11.0-{platform.machine()}"

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError
from setuptools.modified import newer_group

DEBUG = os.environ.get("CRNN_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("CRNN_SANITIZE", "")
FAST = os.environ.get("CRNN_FAST", "0") not in ("", "0")
FAST_FLAGS = "-ffp-contract=fast -fassociative-math -freciprocal-math -fno-signed-zeros -fno-trapping-math"

# The machines of src_c/isa/sets.def, by the names that platforms give them. On any other there is generic only.
MACHINES = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}
SETS = Path("src_c/isa/sets.def").read_text("utf-8")

# Modules that link objects of src_c: the kernels and what asks the CPU, or stream.c.
CORE = {"crnn._core.dispatch": "kernels", "crnn.stream.stream": "streams"}
PUBLIC_HEADERS = ("crnn.h", "crnn_stream.h", "kernels.def")
LIB_FILES = {"crnn.pc": "pkgconfig", "crnnConfig.cmake": "cmake/crnn", "crnnConfigVersion.cmake": "cmake/crnn"}
(VERSION,) = re.findall(r'^__version__ = "(.*)"$', Path("crnn/_version.py").read_text("utf-8"), re.M)

DIRECTIVES = {
    "language_level": 3,
    "binding": False,  # as a builtin, a method checks the type of self; its signature is in the docstring for inspect
    "embedsignature": True,
    "embedsignature.format": "clinic",
    "freethreading_compatible": True,
    "annotation_typing": False,  # annotations are for type checkers, C types for the compiler
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,  # when debugging too, where a negative index then is an IndexError
}


class BuildExt(build_ext):
    """build_ext that also compiles the C core, once per instruction set and precision."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self.inplace = True  # beside their sources too, or a plain install leaves a checkout where `import crnn` fails

    def build_extensions(self):
        import numpy
        from Cython.Build import cythonize

        self.msvc = self.compiler.compiler_type == "msvc"
        self.compiler.compile = announced(self.compiler.compile)
        (common,) = re.findall(r'^CRNN_FLAGS\("(.*)", "(.*)"\)$', SETS, re.M)
        flags = common[self.msvc].split()
        sanitize = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
        # C that is never unwound needs no tables for it, which are 78 KB of a wheel.
        flags += [] if self.msvc else ["-fvisibility=hidden", "-fno-asynchronous-unwind-tables", *sanitize]
        if FAST:
            flags += ["/fp:fast"] if self.msvc else FAST_FLAGS.split()
        if SANITIZE:
            flags += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
        if not self.msvc:  # Python's own flags may carry -g, which makes a wheel five times as large
            flags += ["-O1", "-g"] if DEBUG or SANITIZE else ["-g0"]

        stamp = self.note_flags(flags)
        depends = [stamp, *(path.as_posix() for path in Path("src_c").rglob("*.[hd]*"))]
        pool = ThreadPoolExecutor(self.parallel)
        core = self.compile_core(pool, flags, depends)  # while Cython translates
        pxds = [path.as_posix() for pattern in ("*.pxd", "*.pxi") for path in Path("crnn").rglob(pattern)]
        for ext in self.extensions:
            # Cython 3.3 overlooks that `from crnn._core cimport x` depends on x.pxd: a newer one renews all.
            c_file = str(Path(self.build_temp, ext.sources[0]).with_suffix(".c"))
            force = self.force or newer_group([stamp, *ext.sources, *pxds], c_file)
            options = {"build_dir": self.build_temp, "compiler_directives": DIRECTIVES, "force": force}
            ext.sources = cythonize(ext, **options)[0].sources
            ext.include_dirs += ["src_c", numpy.get_include()]
            ext.define_macros.append(("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"))
            ext.undef_macros += ["NDEBUG"] * DEBUG
            # What only checks arguments and calls a kernel is as fast with -Os, and half as large; steps are with -O2.
            smaller = "-Os" if ext.name.startswith("crnn._core.") else "-O2"
            ext.extra_compile_args += flags + [smaller] * (not self.msvc and not DEBUG and not SANITIZE)
            ext.extra_link_args += sanitize + ["-Wl,-s"] * (sys.platform == "linux" and not DEBUG and not SANITIZE)
            ext.depends += depends
        core = [job.result() for job in core]
        pool.shutdown()
        self.archive(core)
        for ext in self.extensions:
            if ext.name in CORE:
                streams = CORE[ext.name] == "streams"
                ext.extra_objects = [obj for obj in core if (Path(obj).stem == "stream") == streams]
                ext.depends += ext.extra_objects
                ext.libraries += [] if self.msvc else ["m"]  # fma, where it is no instruction
        super().build_extensions()

    def archive(self, core):
        """Make crnn/lib/libcrnn.a (crnn.lib) of the objects of src_c, for C programs."""
        self.library = Path(self.build_lib, "crnn", "lib", self.compiler.library_filename("crnn"))
        if not self.force and not newer_group(core, str(self.library)):
            return
        members = Path(self.build_temp, "members")
        members.mkdir(exist_ok=True)
        self.library.parent.mkdir(parents=True, exist_ok=True)
        self.library.unlink(missing_ok=True)  # ar would add to it, and replace what has the same name
        names = ["_".join(Path(obj).relative_to(self.build_temp).parts) for obj in core]
        copies = [str(shutil.copyfile(obj, members / name)) for obj, name in zip(core, names, strict=True)]
        self.compiler.create_static_lib(copies, "crnn", str(self.library.parent))

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        shutil.copy2(self.library, Path("crnn", "lib", self.library.name))

    def accepts(self, flags):
        """Whether the compiler knows these flags. gcc before 8 and 10 lacks those of the extensions of AVX-512."""
        probe = Path(self.build_temp, "probe.c")
        write(probe, b"int probe;\n")
        try:
            self.compiler.compile([str(probe)], self.build_temp, extra_postargs=flags)
        except CompileError:
            return False
        return True

    def note_flags(self, flags):
        """Note compiler and flags in a file that everything built depends on; return its path."""
        stamp = Path(self.build_temp, "flags.txt")
        stamp.parent.mkdir(parents=True, exist_ok=True)
        write(stamp, repr([getattr(self.compiler, "compiler_so", "msvc"), flags, DIRECTIVES, DEBUG]).encode())
        return str(stamp)

    def compile_core(self, pool, flags, depends):
        """Start to compile src_c/dispatch.c, stream.c and each of the target's instruction sets; the futures' results
        are the objects."""
        target = self.plat_name.lower().rpartition("-")[2]  # never the host
        if target == "universal2" or os.environ.get("ARCHFLAGS", "").count("-arch") > 1:
            raise SetupError("ARCHFLAGS: expected one machine, like '-arch arm64'; universal2 is not built")
        machines = ("any", MACHINES.get(target))
        jobs = [("src_c/stream.c", "", []), ("src_c/dispatch.c", "", [])]  # source, precision, flags
        for isa, machine, *own in re.findall(r'^CRNN_SET\((\w+), (\w+), "(.*)", "(.*)"\)$', SETS, re.M):
            if machine in machines:
                own_flags = own[self.msvc].split()
                jobs.append((f"src_c/isa/{isa}.c", "f32", own_flags))
                # float64 is at most 3 % slower with -O2, and a wheel 60 KB smaller.
                smaller = ["-O2"] * (isa != "generic" and not self.msvc and not DEBUG and not SANITIZE)
                jobs.append((f"src_c/isa/{isa}.c", "f64", [*smaller, *own_flags]))
        flags_of = {source: own for source, _, own in jobs}
        extensions = re.findall(r'^CRNN_EXTENSION\((\w+), (\w+), (\w+), "(.*)", "(.*)"\)$', SETS, re.M)
        for isa, of, machine, *own in extensions:
            if machine in machines:
                own_flags = own[self.msvc].split()
                own_flags = own_flags if self.accepts(own_flags) else flags_of[f"src_c/isa/{of}.c"]
                jobs.append((f"src_c/isa/{isa}.c", "f32", own_flags))
        ndebug = ("NDEBUG",) if DEBUG else ("NDEBUG", None)  # undefined, or defined
        warnings = ["/W3"] if self.msvc else ["-Wall", "-Wextra"]

        def compile_one(source, real, own_flags):
            folder = str(Path(self.build_temp, real))
            (obj,) = self.compiler.object_filenames([source], output_dir=folder)
            if self.force or newer_group([source, *depends], obj):
                macros = [ndebug, *([(f"CRNN_{real.upper()}", "1")] if real else [])]
                args = [*warnings, *flags, *own_flags]
                self.compiler.compile([source], folder, macros, ["src_c"], extra_postargs=args)
            return obj

        return [pool.submit(compile_one, *job) for job in reversed(jobs)]  # the longest first


def announced(compile_):
    """A compiler's method ``compile`` that also prints what it has compiled; pip shows that with -v."""

    def compile_and_say(sources, output_dir=None, *args, **kwargs):
        start = time.perf_counter()
        objects = compile_(sources, output_dir, *args, **kwargs)
        name = re.sub(r".*/temp\.[^/]*/", "", Path(objects[0]).as_posix())
        print(f"crnn: compiled {name} in {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        return objects

    return compile_and_say


def write(path, content):
    """Write a file, unless it has that content already: what depends on it is not to be built anew."""
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def kernels_pxd():
    """Cython's declarations of the kernels in src_c/kernels.def: one table for each precision."""
    text = re.sub(r"/\*.*?\*/", "", Path("src_c/kernels.def").read_text("utf-8"), flags=re.S)
    kernels = re.findall(r"^CRNN_KERNEL\((\w+), (\w+), \((.*?)\)\)$", text, re.M | re.S)
    lines = ["# Made by setup.py from src_c/kernels.def.", "from libc.stdint cimport int32_t"]
    lines += ["from crnn._core.header cimport crnn_cell, crnn_dim, crnn_quantised, crnn_rows", ""]
    lines += ['cdef extern from "crnn.h" nogil:']
    for suffix, real in ("f32", "float"), ("f64", "double"):
        lines += [f"    ctypedef struct crnn_kernels_{suffix}:", "        const char *isa"]
        lines += ["        const crnn_cell *const *cells"]
        for returns, name, arguments in kernels:
            arguments = re.sub(r"\breal\b", real, re.sub(r"\s+", " ", arguments))
            lines.append(f"        {returns} (*{name})({arguments}) noexcept nogil")
    return "\n".join(lines) + "\n"


def project_page():
    """Arguments of setup for the package's page: the README, and the links beside it.

    What the README links in the repository is linked at this version's tag, because a page elsewhere has no such files.
    Nothing is known of an address unless it is given, so a build without one has the README as it is.
    """
    readme = Path("README.md").read_text("utf-8")
    page = {"long_description": readme, "long_description_content_type": "text/markdown"}
    info = Path("PKG-INFO").read_text("utf-8") if Path("PKG-INFO").exists() else ""
    known = re.findall(r"^Project-URL: Source, (.*)$", info, re.M)
    address = os.environ.get("CRNN_REPOSITORY") or "".join(known)
    if not address:
        return page
    if not re.fullmatch(r"https://[^\s()<>]+[^\s()<>/]", address):
        raise SetupError(f"CRNN_REPOSITORY: expected an address like https://host/owner/name, got {address!r}")
    page["long_description"] = re.sub(
        r"(!?\[[^\]]*\]\()(?!\w+:|#)([^)]*\))",
        lambda link: f"{link[1]}{address}/{'raw' if link[1][0] == '!' else 'blob'}/v{VERSION}/{link[2]}",
        readme.replace("THIS-REPOSITORY", address),
    )
    page["project_urls"] = {
        "Documentation": f"{address}/blob/v{VERSION}/docs/index.md",
        "Changelog": f"{address}/blob/v{VERSION}/CHANGELOG.md",
        "Issues": f"{address}/issues",
        "Source": address,
    }
    return page


STUB_HEAD = """# Made by setup.py from {}.
from collections.abc import Sequence
from typing import Any

from numpy import float64, floating, int32
from numpy.typing import ArrayLike, DTypeLike, NDArray
{}
Real = NDArray[floating]
Doubles = NDArray[float64]
Ids = NDArray[int32]
"""
STUB_TYPES = {
    "Py_ssize_t": "int", "int32_t": "int", "bint": "bool", "double": "float", "dict": "dict[str, Any]", "object": "Any",
    "tuple": "tuple[Any, ...]"
}


def stub(pyx):
    """A .pyx for type checkers: constants, annotated variables, classes, signatures. Annotations are kept, C types
    become Python's, an argument with neither is Any; what a function without ``->`` returns is None."""
    text = pyx.read_text("utf-8")
    pxd = pyx.with_suffix(".pxd")
    declarations = (pxd.read_text("utf-8") if pxd.exists() else "") + "\n" + text
    imports = re.findall(r"^from (crnn\S+) c?import (.*)$", text, re.M)
    classes = [(module, name) for module, names in imports for name in re.findall(r"\b[A-Z][a-z]\w*", names)]
    classes = "\n".join(f"from {module} import {name}" for module, name in classes)
    lines = STUB_HEAD.format(pyx.name, classes).splitlines()

    def typed(argument):
        declaration, equals, _ = (part.strip() for part in argument.partition("="))
        if declaration == "self" or ":" in declaration:
            return declaration + (" = ..." if equals else "")
        *ctype, name = declaration.removesuffix(" not None").split()
        kind = STUB_TYPES.get(*ctype, *ctype) if ctype else "Any"
        if kind[0].isupper() and kind != "Any" and declaration.endswith(name):
            kind += " | None"  # of a class, and not declared "not None"
        return f"{name}: {kind}" + (" = ..." if equals else "")

    grammar = r"^([A-Z][A-Z_, ]*) = CRNN_|^([A-Z]\w*: [^=\n]*[\w.]\]?) = |^cdef class (\w+)"
    grammar += r"|^( *)def (\w+)\((.*?)\)(?: -> (.*?))?:$"
    for constants, variable, cls, indent, name, arguments, returns in re.findall(grammar, text, re.M | re.S):
        if constants:
            lines += [f"{constant}: int" for constant in constants.split(", ")]
        elif variable:
            lines.append(variable)
        elif cls:
            body = re.search(rf"^cdef class {cls}:\n(.*?)^(?=\S)", declarations, re.M | re.S)[1]
            lines.append(f"class {cls}:")
            for kind, names in re.findall(r"cdef readonly (\w+) ([\w, ]*\w)", body):
                lines += [f"    {name}: {STUB_TYPES.get(kind, kind)}" for name in names.split(", ")]
        else:
            split = [typed(argument) for argument in re.split(r",\s*(?![^\[]*\])", arguments) if argument]
            name = name.replace("__cinit__", "__init__")
            lines.append(f"{indent}def {name}({', '.join(split)}) -> {returns or None}: ...")
    return "\n".join(lines) + "\n"


Path("crnn/include").mkdir(exist_ok=True)
for header in PUBLIC_HEADERS:
    write(Path("crnn/include", header), Path("src_c", header).read_bytes())
for name, folder in LIB_FILES.items():
    Path("crnn/lib", folder).mkdir(parents=True, exist_ok=True)
    write(Path("crnn/lib", folder, name), Path("src_c", name).read_bytes().replace(b"@VERSION@", VERSION.encode()))
write(Path("crnn/_core/kernels.pxd"), kernels_pxd().encode())
for path in Path("crnn/_core").glob("*.pyx"):
    write(path.with_suffix(".pyi"), stub(path).encode())
pyx = sorted(Path("crnn").rglob("*.pyx"))
modules = [Extension(".".join(path.with_suffix("").parts), [path.as_posix()]) for path in pyx]
setup(ext_modules=modules, cmdclass={"build_ext": BuildExt}, **project_page())
