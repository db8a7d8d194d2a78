# SPDX-License-Identifier: MIT
"""Data parallel training by PyTorch's backend gloo: ``torchrun --nproc-per-node 3 torch_gloo.py``."""

import torch.distributed as dist
from task import train


class Gloo:
    """The process group as a communicator."""

    def __init__(self):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def allgather(self, data):
        found = [None] * self.size
        dist.all_gather_object(found, data)
        return found


dist.init_process_group("gloo")
try:
    digest = train(Gloo())
    print(f"rank {dist.get_rank()}: {digest}\n", end="", flush=True)  # in one write: the ranks share a terminal
finally:
    dist.destroy_process_group()
