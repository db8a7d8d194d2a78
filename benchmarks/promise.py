# SPDX-License-Identifier: MIT
"""What bit-identical results cost: this build compared with one that allows contraction and reassociation, in one run.

    git clone . ../crnn-fast && (cd ../crnn-fast && CRNN_FAST=1 python setup.py build_ext --inplace)
    python -m benchmarks.promise ../crnn-fast

Two processes take turns: each measures a block of the same work on one thread, in CPU time, and the least time of each
is compared. `crnn verify` must fail in the other clone, or both are the same build.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

Work = Callable[[], object]

TRAINING = [(cell, H) for cell in ("tanh", "gru", "lstm") for H in (128, 256)]
STEPS = [(cell, H) for cell in ("tanh", "gru", "lstm") for H in (64, 128, 256)]
BLOCK = 0.15  # CPU seconds


def training(cell: str, H: int) -> tuple[Work, float, str]:
    """An update of a character model: V 65, B 32, T 64, clipping by norm, Adam."""
    import crnn

    vocab = crnn.Vocab.from_text("".join(map(chr, range(40, 105))))
    model = crnn.LanguageModel(vocab, cell, H, seed=1)
    rng, optimizer, workspace = np.random.default_rng(0), crnn.optim.Adam(), model.workspace()
    x, y = rng.integers(len(vocab), size=(2, 64, 32), dtype=np.int32)

    def update() -> None:
        model.flat_grads.fill(0)
        model.loss_and_gradients(x, y, workspace=workspace)
        norm = crnn.optim.global_norm(model.flat_grads)
        optimizer.update(model.flat_params, model.flat_grads, factor=min(1.0, 1.0 / norm))

    return update, x.size, "tokens/s"


def steps(cell: str, H: int) -> tuple[Work, float, str]:
    """Steps of a stream, batch 1, D = H."""
    import crnn

    stream = crnn.RNN(H, H, cell=cell, seed=1).stream()
    x = np.random.default_rng(0).normal(size=H).astype(np.float32)
    out = np.empty(H, np.float32)

    def hundred() -> None:
        for _ in range(100):
            stream.step(x, out=out)

    return hundred, 100, "steps/s"


def rows() -> list[tuple[str, Callable[[], tuple[Work, float, str]]]]:
    """Label and maker of the work of each row."""
    return [(f"training, {cell} {H}", partial(training, cell, H)) for cell, H in TRAINING] + [
        (f"one step, {cell} {H}", partial(steps, cell, H)) for cell, H in STEPS
    ]


def serve() -> None:
    """Measure a block of the row whose number comes on standard input, and print units a second and the unit."""
    made: dict[int, tuple[Work, float, str]] = {}
    for line in sys.stdin:
        number = int(line)
        if number not in made:
            made = {number: rows()[number][1]()}
            made[number][0]()
        work, units, unit = made[number]
        count, start = 0, time.process_time()
        while (elapsed := time.process_time() - start) < BLOCK:
            work()
            count += 1
        print(count * units / elapsed, unit, flush=True)


def measure(server: subprocess.Popen[str], number: int) -> tuple[float, str]:
    """Units a second of a block of a row in another process, and the unit."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{number}\n")
    server.stdin.flush()
    figure, unit = server.stdout.readline().split()
    return float(figure), unit


def main(arguments: list[str] | None = None) -> int:
    """Measure both builds and print a table. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promise", description=__doc__)
    parser.add_argument("fast", type=Path, nargs="?", help="a clone that is built with CRNN_FAST=1")
    parser.add_argument("--blocks", type=int, default=25, help="blocks of each row and build")
    parser.add_argument("--rows", default="", help="only rows whose label contains this text")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # for the two processes
    options = parser.parse_args(arguments)
    if options.serve:
        serve()
        return 0
    if options.fast is None:
        parser.error("expected the folder of a clone that is built with CRNN_FAST=1")
    here = Path(__file__).parents[1]
    environments = [{**os.environ, "PYTHONPATH": str(folder.resolve())} for folder in (here, options.fast)]
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    servers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for environment in environments
    ]
    print(f"{'':24} {'unit':>9} {'this build':>11} {'CRNN_FAST':>11} {'cost':>7}")
    for number, (label, _) in enumerate(rows()):
        if options.rows not in label:
            continue
        best, unit = [0.0, 0.0], ""
        for block in range(options.blocks):
            for each in (0, 1) if block % 2 else (1, 0):
                figure, unit = measure(servers[each], number)
                best[each] = max(best[each], figure)
        cost = 100 * (best[1] / best[0] - 1)
        print(f"{label:24} {unit:>9} {best[0]:11,.0f} {best[1]:11,.0f} {cost:6.1f}%", flush=True)
    for server in servers:
        server.communicate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
