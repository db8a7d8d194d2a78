# SPDX-License-Identifier: MIT
"""``mpiexec -n 4 crnn train ...``: several processes that run one command, of which one writes and prints."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from crnn.cli.common import STANDARD, cores
from crnn.cli.configuration import given
from crnn.training.communicator import Ranks

__all__ = ["files_of_rank", "ranks_of_environment", "run_on_ranks"]

# Numbers of the processes of a command, and of those on this machine: Open MPI, MPICH and Intel MPI, MVAPICH.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")


def ranks_of_environment() -> Ranks | None:
    """The ranks of this process, None if it is the only one.

    Raises ValueError if it is one of several that cannot work together: each would write the same files.
    """
    size = _number(SIZES)
    if size < 2:
        return None
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ValueError(
            f'expected mpi4py, by which the {size} processes of this command work together: pip install "crnn[mpi]"; '
            f"got {error}"
        ) from None
    if size != MPI.COMM_WORLD.size:
        raise ValueError(
            f"expected mpi4py with the MPI that has started these {size} processes, got one that knows "
            f"{MPI.COMM_WORLD.size} of them: {MPI.Get_library_version().splitlines()[0]}"
        )
    return Ranks(MPI.COMM_WORLD)


def _number(names: Iterable[str]) -> int:
    """The first of these environment variables that is a number; 0 if none is."""
    values = [os.environ.get(name, "") for name in names]
    return next((int(value) for value in values if value.isdecimal()), 0)


def run_on_ranks(ranks: Ranks, arguments: argparse.Namespace, run: Callable[[], int]) -> int:
    """Run a command on all ranks. Returns the exit status; raises what ``run`` raises, on rank 0 alone."""
    if "threads" not in given(arguments, ["threads"]) and cores() == os.cpu_count():  # not bound to some of them
        arguments.threads = max(1, cores() // max(1, _number(LOCAL_SIZES)))
    silence = contextlib.nullcontext() if ranks.leads else contextlib.redirect_stderr(io.StringIO())
    try:
        with silence, ranks.together():
            return run()
    except Exception:
        if ranks.lost:
            _abort_at_exit(ranks)
        elif not ranks.leads:  # rank 0 says it
            return 1
        raise
    except BaseException:
        if ranks.lost:
            _abort_at_exit(ranks)
        raise


def _abort_at_exit(ranks: Ranks) -> None:
    """End the others when this process ends, after its message: they wait for data that never come."""
    abort = getattr(ranks.comm, "Abort", None)
    if abort is not None:
        atexit.register(abort, 1)


def files_of_rank(
    ranks: Ranks | None,
    arguments: argparse.Namespace,
    reads: Mapping[str, Iterable[Path]],
    written: Mapping[str, Path | None],
    writes: Callable[[], Mapping[str, Path | None]],
) -> dict[str, Path | None]:
    """The files that this rank writes: rank 0 those of the run, each its own ids. ``writes``: those of the task.

    Raises ValueError for standard input, which only one process can read.
    """
    if ranks is not None:
        for name, paths in reads.items():
            if STANDARD in map(Path, paths):
                raise ValueError(f"{name}: expected files, which all {ranks.size} processes read, got standard input")
    if ranks is None or ranks.leads:
        return {**written, **writes()}
    if getattr(arguments, "ids_path", None) is not None:
        arguments.ids_path = arguments.ids_path.with_name(f"{arguments.ids_path.name}.{ranks.rank}")
    return dict(writes())
