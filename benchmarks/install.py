# SPDX-License-Identifier: MIT
"""What an installation costs, compared with other libraries: python -m benchmarks.install [NAME ...]

Each library is installed into its own virtual environment, from files that were downloaded before the clock starts.
Measured are the time of ``pip install``, the number of packages, the size of what was installed, and the CPU time of
the import, the least of 10, less that of the interpreter alone. crnn is built from the clone, or CRNN_WHEEL names it.
CRNN_TORCH names a PyTorch without CUDA, such as torch==2.13.0+cpu, if pip is told where to find one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.base.processes import fair_environment

ROOT = Path(__file__).parents[1]

TORCH = os.environ.get("CRNN_TORCH", "torch")

# What is installed, and what a program that uses it imports.
LIBRARIES = {
    "numpy": (["numpy"], "import numpy"),
    "crnn": ([], "import crnn"),
    "crnn, models": ([], "from crnn import LanguageModel, SequenceClassifier, fit"),
    "onnxruntime": (["onnxruntime"], "import onnxruntime"),
    "river": (["river"], "from river import linear_model"),
    "sktime": (["sktime"], "from sktime.forecasting.naive import NaiveForecaster"),
    "torch": ([TORCH], "import torch"),
    "keras, jax": (["keras", "jax"], "import keras"),
    "keras, torch": (["keras", TORCH], "import keras"),
}


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def cpu_time(python: Path, statement: str, environment: dict[str, str]) -> float:
    """Seconds of user and system time, the least of 10; the first run, which compiles to bytecode, is not counted."""
    program = f"{statement}\nimport time\nprint(time.process_time())"
    times = [float(subprocess.check_output([python, "-c", program], env=environment)) for _ in range(11)]
    return min(times[1:])


def measure(name: str, folder: Path) -> str:
    """A row of the table."""
    needed, statement = LIBRARIES[name]
    files = folder / "files"
    files.mkdir()
    wheel = os.environ.get("CRNN_WHEEL")
    if not needed and not wheel:
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", files, ROOT)
        (built,) = files.glob("crnn-*.whl")
        wheel = str(built)
    needed = needed or [str(wheel)]
    run(sys.executable, "-m", "pip", "download", "-q", "-d", files, *needed)
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", where], text=True).strip())
    packages, size = len(list(site.glob("*.dist-info"))), size_of(site)
    begin = time.perf_counter()
    run(python, "-m", "pip", "install", "-q", "--no-index", "--find-links", files, *needed)
    seconds = time.perf_counter() - begin
    packages, size = len(list(site.glob("*.dist-info"))) - packages, size_of(site) - size
    environment = fair_environment() | {"KERAS_BACKEND": name.rpartition(" ")[2] if "keras" in name else "numpy"}
    spent = cpu_time(python, statement, environment) - cpu_time(python, "pass", environment)
    return f"| {name} | {packages} | {size / 1e6:,.1f} | {seconds:.1f} | {1000 * spent:.0f} |"


def main(names: list[str]) -> None:
    unknown = set(names) - set(LIBRARIES)
    if unknown:
        raise SystemExit(f"expected some of {', '.join(map(repr, LIBRARIES))}, got {sorted(unknown)[0]!r}")
    print("| | packages | MB | pip install, s | import, ms of CPU |\n|---|---|---|---|---|", flush=True)
    for name in names or LIBRARIES:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
