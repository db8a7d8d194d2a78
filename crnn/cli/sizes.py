# SPDX-License-Identifier: MIT
"""How large a model is going to be, known before it is made."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import crnn
from crnn.cli.common import say
from crnn.models.outputs.blocks import rows_of_block
from crnn.nn.params import Parameters
from crnn.optim.named import optimizer_from

__all__ = ["available_memory", "readable", "say_sizes"]


def say_sizes(arguments: argparse.Namespace, corpus: crnn.TextCorpus, options: Mapping[str, Any]) -> None:
    """Say how large a language model with these options is and how much memory its training needs.

    Raises MemoryError if that is more than this process may use.
    """
    vocab = corpus.vocab
    parameters, needed = memory_for_training(arguments, vocab, options)
    say(
        f"{len(corpus.train):,} {vocab.unit}s to learn from, {len(vocab):,} different; cell {options['cell']}, "
        f"{parameters:,} parameters, about {readable(needed)} of memory"
    )
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"the model is too large: {len(vocab):,} {vocab.unit}s make {parameters:,} parameters, and training needs "
            f"about {readable(needed)}, more than can be allocated here ({readable(available)}); smaller with "
            "a lower max_size, a higher min_count, or a lower hidden_size, embedding_size or batch_size"
        )


def memory_for_training(
    arguments: argparse.Namespace, vocab: crnn.Vocab, options: Mapping[str, Any]
) -> tuple[int, int]:
    """Number of parameters of a language model with these options, and about how many bytes its training needs."""
    shapes = crnn.LanguageModel.shapes_of(options, vocab=vocab)
    parameters = Parameters.count(shapes)
    of_head = [name for name in shapes if name == "W_hy" or name.startswith("tail")] or ["embedding"]
    head = Parameters.count({name: shapes[name] for name in of_head})
    arrays = len(optimizer_from("optimizer", arguments.optimizer).array_names)
    copies = 3 + arrays  # values, gradients, best values, and the optimizer's
    itemsize = 8 if options["dtype"] == "float64" else 4
    columns = shapes["b_y"][0]
    rows = arguments.batch_size * arguments.bptt
    of_block = rows_of_block(rows, columns, itemsize)
    whole = of_block == rows or any(name.startswith("tail") for name in shapes)  # else see `crnn.models.outputs.panels`
    packed = 2 * head if whole else 0
    return parameters, itemsize * (copies * parameters + packed + columns * of_block)


def available_memory() -> int | None:
    """Bytes that this process may use at most, of the machine, its group and its limits; None if that is unknown."""
    found: list[int] = []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    with contextlib.suppress(ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit)
    return min((size for size in found if size > 0), default=None)


def readable(size: float) -> str:
    """A number of bytes as text.

    Examples
    --------
    >>> readable(999), readable(12_345_678)
    ('999 bytes', '12 MB')
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.1f} {unit}" if size < 9.95 and unit != "bytes" else f"{size:,.0f} {unit}"
