# SPDX-License-Identifier: MIT
"""Separate processes, so that no row inherits another row's thread pools, memory or settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

# Each library's name for its number of threads.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Unset for fairness: the first two force OpenBLAS to kernels and block sizes that may not suit the machine; with the
# last, a library whose installation did not compile it to bytecode is compiled at every import.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")


def fair_environment() -> dict[str, str]:
    """The environment variables of this process, less those that would put some contenders at a disadvantage."""
    return {name: value for name, value in os.environ.items() if name not in UNSET}


def environment_for(threads: int) -> dict[str, str]:
    """Environment variables of a process that may use ``threads`` threads."""
    variables = fair_environment() | dict.fromkeys(THREAD_VARIABLES, str(threads))
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    variables["JAX_PLATFORMS"] = "cpu"
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return variables


def _bind_to_one_core() -> None:
    """The one setting that binds every library, XLA included. The last core, because the first serves interrupts."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def python(arguments: list[str], threads: int) -> str:
    """Standard output of a Python process. With one thread it is bound to one core, if the system supports that."""
    bind: Callable[[], None] | None = None
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        bind = _bind_to_one_core
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment_for(threads), preexec_fn=bind)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: ended with {done.returncode}")
    return done.stdout


def call(function: Callable[..., Any], *arguments: Any, threads: int = 1) -> Any:
    """The JSON-able result of a module's function, called in a separate process."""
    module, name = function.__module__, function.__name__
    code = f"import json, {module} as m; print(json.dumps(m.{name}(*json.loads({json.dumps(arguments)!r}))))"
    return json.loads(python(["-c", code], threads).splitlines()[-1])


def peak_megabytes() -> float:
    """The largest resident size of this process so far."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file)
        return int(status["VmHWM"].split()[0]) / 1e3
    except OSError:
        import resource

        # Not on Linux, where it starts at the parent's size. Bytes on macOS, kilobytes on the BSDs.
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (1e6 if sys.platform == "darwin" else 1e3)
