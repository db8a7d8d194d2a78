# SPDX-License-Identifier: MIT
"""`python -m benchmarks.compression`: sizes and speed of archives, beside those of other compressors.

    CRNN_DATA=folder python -m benchmarks.compression          # tinyshakespeare, alice29, world192, if they are there
    python -m benchmarks.compression a.log b.txt --threads 1
    python -m benchmarks.compression book.txt --halves         # the second half, when the first one is known

crnn runs as a command, whose start counts. With ``--halves`` it compresses the second half after the first one
(``--after``), with a model that it has trained on the first (``--model``), and with both; the size of others is that of
the whole file less that of the first half. zstandard and pyppmd are left out if they are not installed. PPMd (variant
H) has the best of some orders, and the time of that one.
"""

from __future__ import annotations

import argparse
import bz2
import lzma
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

FILES = ("tinyshakespeare.txt", "alice29.txt", "world192.txt")
PPMD_ORDERS, PPMD_MEMORY = (5, 6, 8, 12), 64 << 20
TRAINING = ["--unit", "byte", "--hidden", "256", "--epochs", "10", "--batch", "16", "--valid", "0.05", "--test", "none"]

Pack = Callable[[bytes], bytes]
Measured = tuple[int, float, float]  # bytes, seconds to compress, seconds to decompress


def peers() -> dict[str, list[tuple[Pack, Pack]]]:
    """Functions that compress and decompress, by the command that does the same; of several the best counts."""
    found: dict[str, list[tuple[Pack, Pack]]] = {
        "xz -9e": [(lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress)],
        "bzip2 -9": [(lambda data: bz2.compress(data, 9), bz2.decompress)],
    }
    if find_spec("zstandard"):
        import zstandard

        compressor, decompressor = zstandard.ZstdCompressor(level=22), zstandard.ZstdDecompressor()
        found["zstd --ultra -22"] = [(compressor.compress, decompressor.decompress)]
    if find_spec("pyppmd"):
        found["PPMd"] = [ppmd(order) for order in PPMD_ORDERS]
    return found


def ppmd(order: int) -> tuple[Pack, Pack]:
    """PPMd of one order. Its archives do not say how large the content is: four bytes do, as in a file of it."""
    import pyppmd

    def compress(data: bytes) -> bytes:
        encoder = pyppmd.Ppmd7Encoder(order, PPMD_MEMORY)
        return len(data).to_bytes(4, "little") + bytes(encoder.encode(data) + encoder.flush())

    def decompress(archive: bytes) -> bytes:
        size = int.from_bytes(archive[:4], "little")
        return bytes(pyppmd.Ppmd7Decoder(order, PPMD_MEMORY).decode(archive[4:], size))

    return compress, decompress


def measured(pack: Pack, unpack: Pack, data: bytes, known: bytes = b"") -> Measured:
    """What one of the peers makes of data, behind what is known."""
    begin = time.perf_counter()
    archive = pack(known + data)
    middle = time.perf_counter()
    if unpack(archive) != known + data:
        raise RuntimeError("expected that the same bytes come back, got others")
    return len(archive) - (len(pack(known)) if known else 0), middle - begin, time.perf_counter() - middle


def crnn_measured(data: bytes, known: bytes, threads: int) -> Iterator[tuple[str, Measured, float]]:
    """The same of crnn, by its options; and the peak of memory of both commands in MB."""
    starts: list[list[str]] = [[]]
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder, "data"), str(Path(folder, "model"))
        path.write_bytes(data)
        common = ["--threads", str(threads), "-q"]
        if known:
            before = Path(folder, "known")
            before.write_bytes(known)
            run(["train", str(before), "-o", model, *TRAINING, *common])
            after = ["--after", str(before)]
            starts = [after, ["--model", model], ["--model", model, *after]]
        for start in starts:
            packing, most = run(["compress", str(path), "--overwrite", *start, *common])
            size = Path(folder, "data.crz").stat().st_size
            again = ["-o", f"{path}.again", "--overwrite"]
            unpacking, more = run(["decompress", f"{path}.crz", *again, *start, *common])
            if Path(folder, "data.again").read_bytes() != data:
                raise RuntimeError("expected that the same bytes come back, got others")
            name = " ".join(["crnn", *(word for word in start if word.startswith("--"))])
            yield name, (size, packing, unpacking), max(most, more)


def run(words: list[str]) -> tuple[float, float]:
    """Run a command of crnn: its seconds, and its peak of memory in MB."""
    begin = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "crnn", *words], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"crnn {' '.join(words)}: expected status 0, got {status}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def find(name: str) -> Path | None:
    """A file in the folder that CRNN_DATA names, or one folder below."""
    root = Path(os.environ.get("CRNN_DATA", "."))
    return next((path for path in (root / name, *root.glob(f"*/{name}")) if path.is_file()), None)


def row(name: str, compressor: str, size: int, found: Measured, rest: str = "") -> str:
    """A row of the table. Speeds are in kB of the content per second."""
    packed, packing, unpacking = found
    return (
        f"| {name} | {compressor} | {packed:,} | {8 * packed / size:.3f} | {size / packing / 1000:,.0f} | "
        f"{size / unpacking / 1000:,.0f} | {rest} |"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print a table. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help=f"if none, {', '.join(FILES)} in CRNN_DATA")
    parser.add_argument("--threads", type=int, default=2, help="of crnn")
    parser.add_argument("--halves", action="store_true", help="compress the second half, when the first one is known")
    options = parser.parse_args(arguments)
    files = options.files or [path for path in map(find, FILES) if path is not None]
    if not files:
        parser.error(f"files: expected some, or a folder with {FILES[0]} in CRNN_DATA")
    columns = ["file", "compressor", "bytes", "bits per byte", "kB/s", "kB/s back", "memory"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    totals: dict[str, list[int]] = {}
    for path in files:
        content = path.read_bytes()
        half = len(content) // 2 if options.halves else 0
        known, data = content[:half], content[half:]
        best = {name: min(measured(*each, data, known) for each in some) for name, some in peers().items()}
        for name, found in best.items():
            print(row(path.name, name, len(data), found), flush=True)
        for name, found, peak in crnn_measured(data, known, options.threads):
            print(row(path.name, f"{name}, {options.threads} threads", len(data), found, f"{peak:.0f} MB"), flush=True)
            best[name] = found
        for name, found in best.items():
            totals.setdefault(name, []).append(found[0])
    print(*(f"{name}: {sum(sizes):,} bytes in all" for name, sizes in totals.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
