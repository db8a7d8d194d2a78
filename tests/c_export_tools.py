# SPDX-License-Identifier: MIT
"""Exported C files, compiled by the system's compiler and called from Python."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import crnn
from crnn.c_export.files import source_of

COMPILER = os.environ.get("CC", "").split() or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror"]
FUSED = ["-mfma", "-mavx2"] if platform.machine() in ("x86_64", "AMD64") and "avx2" in crnn.available_isas() else []
# Without and with instructions that multiply and add, without and with vectors.
BUILDS = {"O0": ["-O0"], "O3": ["-O3", "-ffp-contract=fast", *FUSED], "simd": ["-O2", *FUSED, "-DCRNN_SIMD"]}

needs_compiler = pytest.mark.skipif(sys.platform == "win32" or not COMPILER, reason="needs a C compiler")


def compiled(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[:4000]


class CModel:
    """A model that was exported and compiled; used as its stream."""

    def __init__(self, model: Any, folder: Path, build: str, name: str = "model") -> None:
        self.source = source_of(model, name, f"{name}.h")
        self.name, self.net = name, self.source.network
        (folder / f"{name}.c").write_text("\n".join(self.source.source_lines()) + "\n")
        (folder / f"{name}.h").write_text("\n".join(self.source.header_lines()) + "\n")
        target = folder / f"{name}-{build}.so"
        compiled([*COMPILER, *STRICT, *BUILDS[build], "-shared", "-fPIC", f"{name}.c", "-o", str(target)], folder)
        self.library = ctypes.CDLL(str(target))
        self.dtypes = {"float": np.float32, "double": np.float64}
        self.state = np.full(self.net.state_bytes + 64, 0xA5, np.uint8)  # nothing may rest on what was there
        self.reset()

    def __call__(self, function: str, *arguments: Any) -> Any:
        def converted(each: Any) -> Any:
            return each.ctypes.data_as(ctypes.c_void_p) if isinstance(each, np.ndarray) else each

        return getattr(self.library, f"{self.name}_{function}")(*map(converted, arguments))

    def reset(self) -> None:
        self("init", self.state)

    def step(self, x: Any, function: str = "step") -> NDArray:
        y = np.full(self.net.output_size, np.nan, self.dtypes[self.net.y_type])
        if not isinstance(x, int):
            x = np.ascontiguousarray(x, self.dtypes[self.net.x_type])
        assert self(function, self.state, x, y) == 1
        assert (self.state[self.net.state_bytes :] == 0xA5).all()  # the state is as large as its comment says
        return y
