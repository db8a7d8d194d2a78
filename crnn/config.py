# SPDX-License-Identifier: MIT
"""``crnn-config``, or ``python -m crnn.config``: flags and folders for C programs that use crnn without Python.

    cc main.c $(crnn-config --cflags --libs) -o main
    PKG_CONFIG_PATH=$(crnn-config --pkgconfigdir) pkg-config --cflags --libs crnn
    cmake -S . -B build -Dcrnn_DIR="$(crnn-config --cmakedir)"
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from crnn import __version__, get_include

__all__ = ["main"]

LIBRARY_FOLDER = os.path.join(os.path.dirname(get_include()), "lib")
LIBRARIES = ("libcrnn.a", "crnn.lib")  # of Unix and MinGW, and of MSVC

# What each option prints, in the order of --help.
ANSWERS = {
    "version": (__version__, "the version"),
    "cflags": ("-I" + shlex.quote(get_include()), "flags that a compiler needs"),
    "libs": (f"-L{shlex.quote(LIBRARY_FOLDER)} -lcrnn -lm", "flags that a linker needs"),
    "includedir": (get_include(), "the folder of the headers"),
    "libdir": (LIBRARY_FOLDER, "the folder of the static library"),
    "pkgconfigdir": (os.path.join(LIBRARY_FOLDER, "pkgconfig"), "the folder of crnn.pc, for PKG_CONFIG_PATH"),
    "cmakedir": (os.path.join(LIBRARY_FOLDER, "cmake", "crnn"), "the folder of crnnConfig.cmake, for crnn_DIR"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the requested values, in one line, in the order of the options. Returns the exit status."""
    prog = "python -m crnn.config" if sys.argv[0].endswith("config.py") else "crnn-config"
    parser = argparse.ArgumentParser(prog, description="Flags and folders for C programs that use crnn.")
    for name, (_, meaning) in ANSWERS.items():
        parser.add_argument(f"--{name}", action="append_const", const=name, dest="asked", help=meaning)
    asked = parser.parse_args(argv).asked
    if not asked:
        parser.error(f"expected one or more of {', '.join(f'--{name}' for name in ANSWERS)}")
    if {"libs", "libdir", "pkgconfigdir", "cmakedir"} & set(asked) and not any(
        os.path.exists(os.path.join(LIBRARY_FOLDER, name)) for name in LIBRARIES
    ):
        parser.error(f"expected a library in {LIBRARY_FOLDER}, found none: crnn was built without one")
    print(*(ANSWERS[name][0] for name in asked))
    return 0


if __name__ == "__main__":
    sys.exit(main())
