# SPDX-License-Identifier: MIT
"""What a run says about the machine that it runs on: nothing that identifies its owner."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from crnn._core.dispatch import isa

__all__ = ["machine"]

CPU_NAMES = ("model name", "hardware", "cpu", "uarch")  # in /proc/cpuinfo, by architecture


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores that may be used, instruction set, system, versions, and the threads of the run."""
    import platform  # imported here because it would slow down `import crnn`

    return {
        "cpu": _cpu_name() or platform.machine(),
        "cores": cores(),
        "isa": isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "threads": threads,
    }


def cores() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _cpu_name() -> str:
    """The name of the processor as the system gives it; empty if it gives none."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.split(":", 1) for line in file.read(1 << 16).splitlines() if ":" in line]
    except OSError:  # no Linux
        return platform.processor()
    values = {key.strip().lower(): value.strip() for key, value in reversed(lines)}
    return next((values[key] for key in CPU_NAMES if values.get(key)), "")
