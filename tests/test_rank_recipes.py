# SPDX-License-Identifier: MIT
"""The programs of examples/data_parallel, each with several processes of its engine: the weights of one process."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rank_tools import fitted, on_ranks, weights_hash
from test_mpi import MPIEXEC, PATH

import crnn

FOLDER = Path(__file__).parents[1] / "examples" / "data_parallel"
PYTHON = [sys.executable, "-W", "ignore"]
RECIPES = {
    "mpi4py": [MPIEXEC or "mpiexec", "-n", "3", *PYTHON, "-m", "mpi4py", "mpi.py"],
    "torch": [*PYTHON, "-m", "torch.distributed.run", "--nproc-per-node", "2", "torch_gloo.py"],
    "distributed": [*PYTHON, "dask_actors.py"],
    "ray": [*PYTHON, "ray_actors.py"],
    "pyspark": [*PYTHON, "spark_barrier.py"],
}


def module(name):
    """A module of the examples."""
    spec = importlib.util.spec_from_file_location(f"data_parallel_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.interop
@pytest.mark.parametrize("library", RECIPES)
def test_a_recipe_gives_the_weights_of_one_process_on_every_rank(library):
    if importlib.util.find_spec(library) is None or (library == "mpi4py" and MPIEXEC is None):
        pytest.skip(f"needs {library}")
    paths = os.pathsep.join([str(Path(crnn.__file__).parents[1]), str(FOLDER)])
    env = os.environ | {"PATH": PATH, "PYTHONPATH": paths, "PYSPARK_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        RECIPES[library], cwd=FOLDER, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    digests = dict(re.findall(r"(rank \d): ([0-9a-f]{64})", done.stdout))
    size = 2 if library == "torch" else 3
    assert digests == {f"rank {rank}": module("task").train() for rank in range(size)}


def test_sums_of_integers_are_enough():
    AllReduced = module("all_reduce").AllReduced

    def train(comm):
        def all_reduce(array):
            assert array.dtype == np.int64
            return sum(comm.allgather(array))

        return fitted("language", shards=4, comm=AllReduced(comm.rank, comm.size, all_reduce))

    assert [weights_hash(model) for model in on_ranks(3, train)] == [weights_hash(fitted("language", shards=4))] * 3
