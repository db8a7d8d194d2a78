# SPDX-License-Identifier: MIT
"""``python -m crnn.verification.renew``: write the hashes that this build computes into hashes.py and the README.

Run it in a clone after a change that adds a cell or a kind, or that changes results on purpose, and state it in
CHANGELOG.md. It writes nothing unless all instruction sets of this machine, and 1, 2 and 3 threads, agree.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from crnn._core import dispatch
from crnn.verification.checker import hash_of, using_isa
from crnn.verification.digest import chained
from crnn.verification.hashes import HASHES
from crnn.verification.parts import all_parts

TABLE = Path(__file__).with_name("hashes.py")
README = Path(__file__).parents[2] / "README.md"


def computed(isa: str, threads: int) -> dict[str, str]:
    """The hash of every part. Raises RuntimeError if a part fails."""
    hashes: dict[str, str] = {}
    with using_isa(isa):
        for name, part in all_parts().items():
            hashes[name], error = hash_of(part, threads)
            if error is not None:
                raise RuntimeError(f"{name}: {error}")
    return hashes


def table(hashes: dict[str, str]) -> str:
    """The content of hashes.py."""
    lines = [f'    "{name}": "{each}",\n' for name, each in hashes.items()]
    return (
        "# SPDX-License-Identifier: MIT\n"
        '"""The hash of each part of `crnn.verify`. Written by ``python -m crnn.verification.renew``."""\n\n'
        f"HASHES = {{\n{''.join(lines)}}}\n"
    )


def main() -> int:
    """Renew the table. Returns the exit status: 1 if the results differ between instruction sets or threads."""
    best = dispatch.available_isas()[-1]
    hashes = computed(best, 1)
    for isa, threads in [(isa, 2) for isa in dispatch.available_isas()] + [(best, 3)]:
        others = computed(isa, threads)
        for name in hashes:
            if others[name] != hashes[name]:
                print(f"{name}: {isa}, threads {threads}: differs from {best}, nothing written", file=sys.stderr)
                return 1
    changed = [name for name in {**HASHES, **hashes} if HASHES.get(name) != hashes.get(name)]
    TABLE.write_text(table(hashes), encoding="utf-8")
    if README.exists():
        text = README.read_text("utf-8")
        README.write_text(re.sub(r"\b[0-9a-f]{64}\b", chained(list(hashes.items())), text), encoding="utf-8")
    print("\n".join(changed) or "no change")
    print(chained(list(hashes.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
