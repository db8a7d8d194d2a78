# SPDX-License-Identifier: MIT
"""Steps and windows of a stack of LSTM layers in a C program: stack_times.c, compiled with libcrnn.a on first use.

The program waits on a pipe while others are measured, and runs on the core that this process is bound to.
"""

from __future__ import annotations

import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base.latency import Stepper, Times
from benchmarks.base.measure import Missing
from benchmarks.contenders import native
from benchmarks.contenders.precisions import PRECISIONS

Array = NDArray[Any]

SOURCE = Path(__file__).with_name("stack_times.c")


@cache
def compiled() -> Path | Missing:
    """The program."""
    return native.linked(SOURCE, native.BUILT / "stack_times", ["-O2"])


class Program:
    """The program with a model's weights and a window x (T, D). It ends when this object does."""

    def __init__(self, program: Path, params: Mapping[str, Array], x: Array, precision: str) -> None:
        import crnn

        layers = sum(name.endswith(".W_hh") for name in params)
        names = [f"layer{k}.{name}" for k in range(layers) for name in ("W_xh", "W_hh", "b_h")] + ["W_hy", "b_y"]
        self.outputs = len(params["b_y"])
        format_, hidden = list(PRECISIONS).index(precision), len(params["layer0.W_hh"])
        sizes = [format_, layers, x.shape[1], hidden, self.outputs, len(x)]
        with tempfile.NamedTemporaryFile() as file:
            for array in (*(params[name] for name in names), x):
                file.write(np.ascontiguousarray(array, np.float32).tobytes())
            file.flush()
            self.process = subprocess.Popen(
                [str(program), file.name, crnn.isa(), *map(str, sizes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            weakref.finalize(self, _end, self.process)
            self.cpu, self.y = 0.0, np.zeros(self.outputs, np.float32)
            self.ask("nothing", 1, 1)  # it has read the file

    def ask(self, kind: str, n: int, block: int) -> Array:
        """Nanoseconds of each of n blocks of calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kind} {n} {block}\n".encode())
        self.process.stdin.flush()
        size = 8 * n + 8 + 4 * self.outputs
        answer = self.process.stdout.read(size)
        if len(answer) != size:
            raise RuntimeError(f"stack_times ended with {self.process.wait()}")
        self.cpu = float(np.frombuffer(answer, np.float64, 1, 8 * n)[0])
        self.y = np.frombuffer(answer, np.float32, self.outputs, 8 * n + 8)
        return np.frombuffer(answer, np.int64, n)

    def stepper(self, kind: str, tolerance: float) -> Stepper:
        """A contender that calls `kind`: "step" or "window"."""

        def times(kind: str) -> Times:
            return lambda n, block: self.ask(kind, n, block)

        return Stepper(times(kind), times("nothing"), lambda: self.y, tolerance=tolerance, cpu=lambda: self.cpu)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()  # closes its input


def from_c(kind: str, precision: str, params: Mapping[str, Array], x: Array) -> Stepper | Missing:
    """The contender of a model of LSTM layers, with its weights in a precision."""
    program = compiled()
    if isinstance(program, Missing):
        return program
    return Program(program, params, x, precision).stepper(kind, PRECISIONS[precision])
