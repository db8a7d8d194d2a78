# SPDX-License-Identifier: MIT
"""The machine's multiply-add peak: peak.c, compiled with the system's compiler on first use."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.base.measure import Contender, Missing

PEAK = "multiply-add peak"
ROUNDS = 1_000_000  # a few milliseconds

FLAGS = {
    "avx512": ["-mavx512f", "-mfma"],
    "avx2": ["-mavx2", "-mfma"],
    "neon": [],
    "generic": [],
}


def peak(threads: int) -> Contender | Missing:
    """A contender that only multiplies and adds in registers, on ``threads`` threads at once; in GFLOP/s."""
    import crnn

    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return Missing("no C compiler found (cc, or CC=...)")
    isa = crnn.available_isas()[-1].partition("_")[0]  # the best of this machine, regardless of CRNN_ISA
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "peak.so")
        source = Path(__file__).with_name("peak.c")
        command = [compiler, "-O2", "-ffp-contract=fast", *FLAGS.get(isa, []), "-shared", "-fPIC", "-o"]
        built = subprocess.run([*command, str(library), str(source)], capture_output=True, text=True)
        if built.returncode:
            return Missing(f"{compiler} failed: {built.stderr.strip().splitlines()[-1]}")
        loaded = ctypes.CDLL(str(library))  # stays loaded when the file is deleted
    loaded.crnn_peak.restype = ctypes.c_float
    loaded.crnn_peak.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float]
    loaded.crnn_peak_flops.restype = ctypes.c_double
    loaded.crnn_peak_flops.argtypes = [ctypes.c_long]
    pool = ThreadPoolExecutor(max(1, threads - 1))

    def run() -> None:
        others = [pool.submit(loaded.crnn_peak, ROUNDS, 0.999, 0.001) for _ in range(threads - 1)]
        loaded.crnn_peak(ROUNDS, 0.999, 0.001)  # ctypes releases the GIL
        for other in others:
            other.result()

    return Contender(run, work=threads * loaded.crnn_peak_flops(ROUNDS) / 1e9, note=f"{isa}, registers only")


def measured_peak() -> float | None:
    """The peak of one core in GFLOP/s, by the CPU time of the fastest of 30 runs; None without a C compiler."""
    contender = peak(1)
    if isinstance(contender, Missing):
        return None
    times = []
    for _ in range(30):
        started = time.process_time()  # the machine may be busy
        contender.run()
        times.append(time.process_time() - started)
    return contender.work / min(times)
