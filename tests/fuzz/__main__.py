# SPDX-License-Identifier: MIT
"""Feed mutated files to crnn: python -m tests.fuzz models --seconds 60

Every input is ``mutate`` of a file of the corpus with random numbers of (seed, number), so that it can be repeated:
``--seed S --first N --inputs 1``. Prints what became of the inputs, the slowest in CPU seconds, and the peak of memory.
Exits with 1 after the first input that was neither refused by the right error nor loaded as it should be, or
that took more than a second (an archive 20) or 200 MB; the input is then kept in the current folder.
"""

import argparse
import collections
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from .mutate import mutate
from .targets import TARGETS, inputs

MOST_SECONDS, MOST_MEGABYTES = 1.0, 200
MOST_SECONDS_OF = {"archives": 20.0}  # which take time in proportion to the size that they claim


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="stop after this many inputs")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000_000, help="default: the time")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    arguments = parser.parse_args()
    warnings.simplefilter("error")  # an overflow that NumPy warns of was not foreseen
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(arguments, Path(folder))


def fuzz(arguments: argparse.Namespace, folder: Path) -> int:
    corpus, check = TARGETS[arguments.target](folder)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = (0.0, 0)
    begin = time.monotonic()
    number, end = arguments.first, arguments.first + arguments.inputs
    print(f"{arguments.target}: {len(corpus)} files, --seed {arguments.seed}", flush=True)
    while number < end and time.monotonic() - begin < arguments.seconds:
        name, original, other, rng = inputs(corpus, arguments.seed, number)
        content, digest = mutate(rng, original, other)
        start = time.process_time()
        try:
            outcomes[check(content, name, digest)] += 1
            slowest = max(slowest, (time.process_time() - start, number))
            assert slowest[0] < MOST_SECONDS_OF.get(arguments.target, MOST_SECONDS), f"{slowest[0]:.2f} s"
            assert peak_megabytes() < MOST_MEGABYTES, f"{peak_megabytes()} MB"
        except BaseException as error:
            kept = Path(f"fuzz-{arguments.target}-{arguments.seed}-{number}")
            kept.write_bytes(content)
            print(*[line[:1000] for line in traceback.format_exc().splitlines()], sep="\n")
            print(f"input {number} of seed {arguments.seed}, a mutation of {name}, its digest {digest}: {kept}")
            if isinstance(error, Exception):
                return 1
            raise
        number += 1
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(
        f"{arguments.target}: {number - arguments.first} inputs in {time.monotonic() - begin:.0f} s: {counts}; "
        f"slowest {slowest[0]:.3f} s of CPU (number {slowest[1]}), peak {peak_megabytes()} MB"
    )
    return 0


def peak_megabytes() -> int:
    """The largest resident size of this process so far; 0 where the system does not say."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
