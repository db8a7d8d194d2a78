# SPDX-License-Identifier: MIT
"""A long run before a release, no part of the test suite: does memory stay flat, do bits stay right?

    python tests/soak.py                                    # 10^8 steps, then 16 threads x 64 streams: some minutes
    python tests/soak.py --steps 1e6 --rounds 20            # seconds
    python tests/soak.py --interruptions 500                # only this: training interrupted at random, and resumed

Prints what it sees; the exit status is 1 if anything drifted, leaked or failed. Runs with the crnn that is installed,
or that PYTHONPATH names. Worth running on a free-threaded Python too, and once under ThreadSanitizer (CONTRIBUTING).
"""

import argparse
import os
import pickle
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import crnn
from crnn.nn.state import state_arrays

BLOCK = 10_000  # steps between two looks
MOST_GROWTH = 1.0  # MB, after the first tenth


def megabytes() -> float:
    """Resident now; where the system does not say, at its largest so far."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def same(one: object, other: object) -> bool:
    pairs = zip(state_arrays(one), state_arrays(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def many_steps(steps: int) -> list[str]:
    """One stream that never stops, compared with `forward` block by block with its own state carried."""
    net = crnn.RNN(8, 16, cell="lstm", seed=1)
    xs = np.random.default_rng(1).normal(size=(BLOCK, 8)).astype(np.float32)
    rows, out = list(xs), np.empty(16, np.float32)
    stream, state, faults, sizes = net.stream(), None, [], []
    blocks = max(steps // BLOCK, 10)
    started = time.perf_counter()
    for block in range(blocks):
        for x in rows[: BLOCK // 2]:
            stream.step(x, out=out)
        for x in rows[BLOCK // 2 :]:
            y = stream.step(x)
        expected, state = net(xs[:, None], state)
        if y.tobytes() != expected[-1, 0].tobytes() or not same(stream.state, state):
            faults.append(f"after {(block + 1) * BLOCK:,} steps the stream is not where forward is")
            break
        if (block + 1) * 10 % blocks < 10:
            sizes.append(megabytes())
            print(f"  {(block + 1) * BLOCK:>13,} steps  {time.perf_counter() - started:7.1f} s  {sizes[-1]:.2f} MB")
    if sizes and sizes[-1] - sizes[0] > MOST_GROWTH:
        faults.append(f"steps: grew from {sizes[0]:.2f} to {sizes[-1]:.2f} MB")
    return faults


def many_texts(rounds: int) -> list[str]:
    """Streams made, fed, copied, pickled, asked and dropped."""
    model = crnn.LanguageModel(crnn.Vocab.from_text("hello, new world!\n"), "gru", 16, seed=1)
    start, sizes = model.stream().feed("hello"), []
    batch = model.stream_batch(64)
    expected = (start.copy().surprisal(", new world!").tobytes(), start.generate(20, seed=1))
    for number in range(rounds * 10):
        stream = pickle.loads(pickle.dumps(start)) if number % 5 == 0 else start.copy()
        got = (stream.surprisal(", new world!").tobytes(), start.generate(20, seed=1))
        if got != expected:
            return [f"texts: round {number} differs from the first"]
        rows = batch.add(number % 40)
        batch.step(np.zeros(len(batch), np.int32))
        batch.remove(rows)
        if number % rounds == rounds - 1:
            sizes.append(megabytes())
    print(f"  {rounds * 10:,} texts, {sizes[0]:.2f} to {sizes[-1]:.2f} MB")
    return [f"texts: grew from {sizes[0]:.2f} to {sizes[-1]:.2f} MB"] if sizes[-1] - sizes[0] > MOST_GROWTH else []


def many_threads(threads: int, streams: int, rounds: int, H: int) -> list[str]:
    """Threads with separate streams and batches, and weights that all share: each has the bits of forward."""
    net, T = crnn.RNN(16, H, cell="gru", seed=2), 20
    inputs = np.random.default_rng(3).normal(size=(threads, T, streams, 16)).astype(np.float32)
    expected = [net(xs)[0] for xs in inputs]
    meeting, started = threading.Barrier(threads), time.perf_counter()

    def work(number: int) -> list[str]:
        own, batch = [net.stream() for _ in range(streams)], net.stream_batch(streams)
        meeting.wait()
        for turn in range(rounds):
            for x, y in zip(inputs[number], expected[number], strict=True):
                singly = np.array([stream.step(row) for stream, row in zip(own, x, strict=True)])
                if singly.tobytes() != y.tobytes() or batch.step(x).tobytes() != y.tobytes():
                    return [f"thread {number} differs from forward in round {turn}"]
            for stream in own:
                stream.reset()
            batch.reset()
        return []

    with ThreadPoolExecutor(threads) as pool:
        faults = [fault for found in pool.map(work, range(threads)) for fault in found]
    steps = 2 * threads * streams * rounds * T
    print(f"  H {H}: {steps:,} steps of {threads} x {streams} streams in {time.perf_counter() - started:.1f} s")
    return faults


def many_interruptions(number: int, seed: int) -> list[str]:
    """Runs of ``crnn train`` that get signals at random instants: see interruption_tools.py."""
    from interruption_tools import Whole, trial

    faults: list[str] = []
    done = 0
    with tempfile.TemporaryDirectory() as name:
        whole = Whole(Path(name) / "whole")
        while done < number:
            rng = np.random.default_rng([seed, done])
            times = int(rng.integers(1, 4))
            found = trial(whole, Path(name) / f"run{done}", rng, times)
            faults += [f"seed {seed}, {done}: {fault}" for fault in found]
            done += times
            if found or done % 50 < times:
                print(f"  {done} of {number} interruptions, {len(faults)} faults", *found, flush=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=float, default=1e8, help="of one stream")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--streams", type=int, default=64, help="of each thread")
    parser.add_argument("--rounds", type=int, default=1000, help="of 20 steps for every stream of every thread")
    parser.add_argument("--interruptions", type=int, default=0, help="of training; nothing else is then tried")
    parser.add_argument("--seed", type=int, default=0, help="of the interruptions")
    chosen = parser.parse_args()
    kind = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"
    print(f"crnn {crnn.__version__}, {crnn.isa()}, Python {sys.version.split()[0]}{kind}")
    if chosen.interruptions:
        faults = many_interruptions(chosen.interruptions, chosen.seed)
        print("\n".join(faults) or f"{chosen.interruptions} interrupted runs, all as they should be")
        return bool(faults)
    faults = many_steps(int(chosen.steps)) + many_texts(chosen.rounds)
    for H in (16, 160):  # which keep the interpreter's lock in a step, and give it up
        faults += many_threads(chosen.threads, chosen.streams, max(1, chosen.rounds * 16 // H), H)
    print("\n".join(faults) or "all as it should be")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
