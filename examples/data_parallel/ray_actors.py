# SPDX-License-Identifier: MIT
"""Data parallel training by Ray: a task for each rank, and an actor that gathers what they send."""

import os

import ray
import task
from hub import Hub, HubComm

RANKS = 3


@ray.remote
def train(hub, rank, size):
    return task.train(HubComm(rank, size, lambda *message: ray.get(hub.allgather.remote(*message), timeout=600)))


if __name__ == "__main__":
    folders = [os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH", "")]
    modules = {"env_vars": {"PYTHONPATH": os.pathsep.join(folders)}}
    ray.init(num_cpus=RANKS, include_dashboard=False, runtime_env=modules)
    hub = ray.remote(num_cpus=0)(Hub).remote(RANKS)
    for rank, digest in enumerate(ray.get([train.remote(hub, rank, RANKS) for rank in range(RANKS)])):
        print(f"rank {rank}: {digest}")
