# SPDX-License-Identifier: MIT
"""RTNeural and NeuralAmpModelerCore themselves, compiled from their sources where these are on the machine.

CRNN_RTNEURAL and CRNN_NAM name the folders of the sources: those that hold ``RTNeural/RTNeural.h`` and ``NAM/dsp.h``.
Debian's source package guitarix has both.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

RTNEURAL = r"""
#include <RTNeural/RTNeural.h>
#include <cstdio>
int main(int, char **argv)
{
    std::ifstream file(argv[1], std::ifstream::binary);
    auto model = RTNeural::json_parser::parseJson<float>(file, false);
    if (!model) return 2;
    model->reset();
    std::vector<float> x((size_t)model->getInSize());
    const int outputs = (int)model->getOutSize();
    while (fread(x.data(), sizeof(float), x.size(), stdin) == x.size()) {
        model->forward(x.data());
        fwrite(model->getOutputs(), sizeof(float), (size_t)outputs, stdout);
    }
    return 0;
}
"""
NAM = r"""
#include "NAM/dsp.h"
#include "NAM/get_dsp.h"
#include <cstdio>
int main(int, char **argv)
{
    auto model = nam::get_dsp(std::filesystem::path(argv[1]));
    float x;
    while (fread(&x, sizeof x, 1, stdin) == 1) {
        NAM_SAMPLE in = x, out = 0;
        model->process(&in, &out, 1);
        float y = (float)out;
        fwrite(&y, sizeof y, 1, stdout);
    }
    return 0;
}
"""


def _build(folder: Path, name: str, text: str, flags: list[str]) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    source, program = folder / f"{name}.cpp", folder / name
    source.write_text(text)
    done = subprocess.run([compiler, "-std=c++17", "-O1", "-w", str(source), *flags, "-o", str(program)],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[:2000]
    return program


def _sources(variable: str, header: str) -> Path:
    folder = Path(os.environ.get(variable, "/nowhere"))
    if not (folder / header).is_file():
        pytest.skip(f"{variable} names no folder with {header}")
    return folder


def rtneural_program(folder: Path) -> Path:
    """A program that runs RTNeural on the model in its argument. Skips the test if RTNeural is not there."""
    sources = _sources("CRNN_RTNEURAL", "RTNeural/RTNeural.h")
    defined = ["-DRTNEURAL_DEFAULT_ALIGNMENT=16", "-DRTNEURAL_NAMESPACE=RTNeural"]
    return _build(folder, "rtneural", RTNEURAL, [f"-I{sources}", *defined])


def nam_program(folder: Path) -> Path:
    """The same for NeuralAmpModelerCore."""
    sources = _sources("CRNN_NAM", "NAM/dsp.h")
    includes = [f"-I{sources / part}" for part in (".", "NAM", "Dependencies/eigen", "Dependencies/nlohmann")]
    return _build(folder, "nam", NAM, [*includes, *map(str, sorted((sources / "NAM").glob("*.cpp")))])


def run(program: Path, path: Path, x: np.ndarray) -> np.ndarray:
    """The program's outputs (T, P) for inputs (T, D), one sample at a time."""
    done = subprocess.run([program, path], input=x.astype("<f4").tobytes(), capture_output=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return np.frombuffer(done.stdout, "<f4").reshape(len(x), -1)
