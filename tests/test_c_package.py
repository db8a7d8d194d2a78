# SPDX-License-Identifier: MIT
"""What the package has for C programs: the library and its headers, found by flags, by pkg-config and by CMake."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_tools import assert_same_bits
from stream_tools import net_of, sequence, whole
from test_stream_c import COMPILER, EXAMPLE_C, SOURCES, c_outputs, run

import crnn
from crnn import config

FOLDER = Path(crnn.get_include()).parent
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2"]

pytestmark = [
    pytest.mark.thread_unsafe,  # they compile
    pytest.mark.skipif(not (FOLDER / "lib" / "libcrnn.a").exists(), reason="no library in this build"),
    pytest.mark.skipif(sys.platform == "win32" or not COMPILER, reason="needs a C compiler"),
    pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="the library needs the sanitizers"),
]  # fmt: skip
needs_pkg_config = pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake")


@pytest.fixture(params=["where it is installed", "copied to another folder"])
def place(request, tmp_path):
    """The folder with include and lib."""
    if request.param == "where it is installed":
        return FOLDER
    for name in ("include", "lib"):
        shutil.copytree(FOLDER / name, tmp_path / "a folder" / name)
    return tmp_path / "a folder"


def check(program, tmp_path):
    """The program has the bits of Python's stream."""
    net, xs = net_of("lstm", 5, 17), sequence(np.random.default_rng(0), 9, 5)
    assert_same_bits(c_outputs(program, net, xs, tmp_path), whole(net, xs))


def asked(*options):
    done = subprocess.run([sys.executable, "-m", "crnn.config", *options], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_command_prints_flags_that_compile_and_folders_that_exist(tmp_path, capsys):
    flags = asked("--cflags", "--libs").split()
    run([*COMPILER, *STRICT, EXAMPLE_C / "main.c", *flags, "-o", tmp_path / "embed"], tmp_path)
    check(tmp_path / "embed", tmp_path)
    for option, file in ("includedir", "crnn_stream.h"), ("libdir", "libcrnn.a"), ("pkgconfigdir", "crnn.pc"):
        assert config.main([f"--{option}"]) == 0
        assert Path(capsys.readouterr().out.strip(), file).exists()
    assert asked("--version") == crnn.__version__


def test_the_command_says_what_it_expects_and_what_is_not_there(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        config.main([])
    assert "expected one or more of --version, --cflags" in capsys.readouterr().err
    monkeypatch.setattr(config, "LIBRARIES", ())
    with pytest.raises(SystemExit):
        config.main(["--libs"])
    assert "found none: crnn was built without one" in capsys.readouterr().err
    assert config.main(["--cflags"]) == 0


@needs_pkg_config
def test_pkg_config_finds_it_wherever_it_is(place, tmp_path):
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "crnn"], capture_output=True, text=True, check=True,
        env=os.environ | {"PKG_CONFIG_PATH": str(place / "lib" / "pkgconfig")},
    )  # fmt: skip
    flags = [flag.replace("\\ ", " ") for flag in re.split(r"(?<!\\) ", found.stdout.strip())]
    assert f"-I{place / 'include'}" in [os.path.normpath(flag) for flag in flags]
    run([*COMPILER, *STRICT, EXAMPLE_C / "main.c", *flags, "-o", tmp_path / "embed"], tmp_path)
    check(tmp_path / "embed", tmp_path)


@needs_cmake
def test_cmake_finds_it_wherever_it_is(place, tmp_path):
    folder = place / "lib" / "cmake" / "crnn"
    run(["cmake", "-S", EXAMPLE_C, "-B", tmp_path / "build", f"-Dcrnn_DIR={folder}"], tmp_path)
    run(["cmake", "--build", tmp_path / "build"], tmp_path)
    check(tmp_path / "build" / "embed", tmp_path)


@needs_cmake
@pytest.mark.parametrize(("version", "fits"), [
    ("{major}.{minor}", True), ("{major}", True), ("{major}.{minor}.{patch} EXACT", True),
    ("{major}.{minor}.99", False), ("{major}.99", False), ("99", False),
])  # fmt: skip
def test_cmake_gets_the_minor_version_that_it_asks_for_or_none(version, fits, tmp_path):
    major, minor, patch = crnn.__version__.split(".")[:3]
    version = version.format(major=major, minor=minor, patch=patch)
    script = f"cmake_minimum_required(VERSION 3.15)\nproject(p NONE)\nfind_package(crnn {version} CONFIG)\n"
    (tmp_path / "CMakeLists.txt").write_text(script + 'message("found=${crnn_FOUND}.")\n')
    done = run(["cmake", f"-Dcrnn_DIR={FOLDER / 'lib' / 'cmake' / 'crnn'}", "-S", ".", "-B", "build"], tmp_path)
    assert (b"found=1." in done.stderr) == fits


@needs_cmake
def test_cmake_says_that_the_library_is_not_there(tmp_path):
    shutil.copytree(FOLDER / "lib" / "cmake", tmp_path / "lib" / "cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.15)\nproject(p NONE)\nfind_package(crnn CONFIG)\n"
    )
    command = ["cmake", f"-Dcrnn_DIR={tmp_path / 'lib' / 'cmake' / 'crnn'}", "-S", ".", "-B", "build"]
    assert b"has no library of crnn" in b" ".join(run(command, tmp_path).stderr.split())


@pytest.mark.skipif(not SOURCES.is_dir() or shutil.which("make") is None, reason="needs make and src_c")
def test_make_installs_the_same_files(tmp_path):
    library = tmp_path / "out" / "libcrnn.a"
    library.parent.mkdir()
    shutil.copy(FOLDER / "lib" / "libcrnn.a", library)  # newer than its sources
    command = ["make", "-s", "-C", SOURCES, f"OUT={library.parent}", f"PREFIX={tmp_path / 'prefix'}", "-o", library]
    run([*command, "install"], tmp_path)
    made = {path.relative_to(tmp_path / "prefix") for path in (tmp_path / "prefix").rglob("*") if path.is_file()}
    assert len(made) == 7
    for path in made:
        assert (tmp_path / "prefix" / path).read_bytes() == (FOLDER / path).read_bytes()


@pytest.mark.skipif(shutil.which("make") is None or not SOURCES.is_dir(), reason="needs make and the sources")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the extensions are those of x86")
@pytest.mark.parametrize("isa", ["avx512_vnni", "avx512_bf16"])
def test_a_compiler_without_the_instruction_of_an_extension_builds_without(isa, tmp_path):
    old = tmp_path / "oldcc"
    flag = f"-m{isa.replace('_', '')}"
    old.write_text(f'#!/bin/sh\ncase " $* " in *" {flag} "*) exit 1;; esac\nexec {" ".join(COMPILER)} "$@"\n')
    old.chmod(0o755)
    made = {}
    for name, compiler in ("new", " ".join(COMPILER)), ("old", old):
        folder = tmp_path / name
        command = ["make", "-n", "-C", SOURCES, f"OUT={folder}", f"CC={compiler}", folder / f"{isa}_f32.o"]
        made[name] = run(command, tmp_path).stdout.decode()
    assert flag in made["new"]
    assert flag not in made["old"]
    assert "-mavx512f" in made["old"]
    flags = re.findall(r" (-m\S+)", made["old"])
    run([*COMPILER, "-std=gnu11", *flags, "-DCRNN_F32", "-I.", "-c", f"isa/{isa}.c", "-o", tmp_path / "o"], SOURCES)
