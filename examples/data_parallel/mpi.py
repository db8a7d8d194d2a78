# SPDX-License-Identifier: MIT
"""Data parallel training by MPI: ``mpiexec -n 3 python -m mpi4py mpi.py``. The communicator of mpi4py fits as it is.

``-m mpi4py`` ends all processes if one fails. The other programs of this folder need an adapter of a few lines.
"""

from mpi4py import MPI
from task import train

digest = train(MPI.COMM_WORLD)
print(f"rank {MPI.COMM_WORLD.rank}: {digest}\n", end="", flush=True)  # in one write: the ranks share a terminal
