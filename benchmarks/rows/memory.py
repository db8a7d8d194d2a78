# SPDX-License-Identifier: MIT
"""memory: peak resident size of a training run, and what an import costs in time and in memory.

Each contender runs in separate processes. A resident size is Linux's VmHWM or VmRSS, elsewhere getrusage's maximum.
"""

from __future__ import annotations

import statistics
from functools import partial

from benchmarks.base.measure import OURS, Figure, unavailable
from benchmarks.base.processes import call, peak_megabytes, python
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.jax_peers import jax_step
from benchmarks.contenders.training import crnn_model, crnn_step, torch_step
from benchmarks.contenders.training_task import WORDS, WORDS_100K, TrainingTask, windows_of

# What is trained, by row.
TASKS = {
    "memory-train": TrainingTask("tanh", 256),
    "memory-words": WORDS,
    "memory-words-100k": WORDS_100K,
}
UPDATES = 50
MAX_MEGABYTES_OF_WORDS = 1000.0
GOAL = "design goal"
MAX_MEGABYTES, MAX_MILLISECONDS = 40.0, 20.0


# ---- a training run --------------------------------------------------------------------------------------------------


def training(row: str, setting: Setting) -> dict[str, Figure]:
    """Peak resident sizes of a training run, each in a separate process."""
    updates = UPDATES if row == "memory-train" and not setting.quick else 5
    figures = {}
    for who in (OURS, "torch", "jax"):
        if absent := unavailable(who):
            figures[who] = Figure(None, absent.reason)
        else:
            figures[who] = Figure(call(train_and_weigh, row, who, updates, threads=setting.threads))
    if row == "memory-words-100k":
        figures[GOAL] = Figure(MAX_MEGABYTES_OF_WORDS)
    return figures


def train_and_weigh(row: str, who: str, updates: int) -> float:
    """Peak resident size in MB of updates, by one contender, in this process."""
    task = TASKS[row]
    start, windows = task.random_weights(), windows_of(task.random_ids(), task)
    if who == OURS:
        step = crnn_step(crnn_model(task, start), windows, threads=1)
    elif who == "torch":
        step = torch_step(task, start, windows, threads=1)
    else:
        step = jax_step(task, start, windows)
    del start
    for _ in range(updates):
        step()
    return peak_megabytes()


# ---- imports ---------------------------------------------------------------------------------------------------------

# Run in a bare interpreter, so that nothing else has been imported. Prints milliseconds and megabytes.
IMPORT = """
import sys, time
started = time.perf_counter()
import {module}
seconds = time.perf_counter() - started
try:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    size = int(status["VmRSS"].split()[0]) / 1e3
except OSError:
    import resource
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
print(seconds * 1e3, size)
"""


def import_times(setting: Setting) -> dict[str, Figure]:
    """Times of importing each library, in ms."""
    figures = _imports(setting, column=0)
    numpy_time = figures["numpy"].value
    assert numpy_time is not None
    return figures | {GOAL: Figure(numpy_time + MAX_MILLISECONDS, f"numpy and {MAX_MILLISECONDS:.0f} ms")}


def import_sizes(setting: Setting) -> dict[str, Figure]:
    """Memory that importing each library takes, in MB."""
    return _imports(setting, column=1) | {GOAL: Figure(MAX_MEGABYTES)}


def _imports(setting: Setting, column: int) -> dict[str, Figure]:
    figures = {}
    for module in (OURS, "numpy", "onnxruntime", "jax", "torch"):
        if absent := unavailable(module):
            figures[module] = Figure(None, absent.reason)
            continue
        code = IMPORT.format(module=module)
        runs = [python(["-c", code], setting.threads) for _ in range(2 if setting.quick else 10)]
        samples = [float(run.split()[column]) for run in runs[1:]]  # the first run fills the disk cache
        figures[module] = Figure(statistics.median(samples), samples=samples)
    return figures


ROWS = [
    Row("memory-train", "MB", partial(training, "memory-train"), goals={}, lower=True, quick=True),
    Row("memory-words", "MB", partial(training, "memory-words"), goals={"torch": 2.0}, lower=True),
    Row("memory-words-100k", "MB", partial(training, "memory-words-100k"), goals={GOAL: 1.0}, lower=True),
    Row("memory-import", "MB", import_sizes, goals={GOAL: 1.0}, lower=True, quick=True),
    Row("import-time", "ms", import_times, goals={GOAL: 1.0}, lower=True, quick=True),
]
