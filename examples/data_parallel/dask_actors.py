# SPDX-License-Identifier: MIT
"""Data parallel training by Dask: a task for each rank, and an actor that gathers what they send."""

import task
from dask.distributed import Client, LocalCluster
from hub import Hub, HubComm

RANKS = 3


def train(hub, rank, size):
    return task.train(HubComm(rank, size, lambda *message: hub.allgather(*message).result(timeout=600)))


if __name__ == "__main__":
    cluster = LocalCluster(n_workers=RANKS, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        hub = client.submit(Hub, RANKS, actor=True).result()
        workers = list(client.scheduler_info()["workers"])  # one rank on each: they wait for each other
        futures = [
            client.submit(train, hub, rank, RANKS, workers=[workers[rank]], pure=False) for rank in range(RANKS)
        ]
        for rank, digest in enumerate(client.gather(futures)):
            print(f"rank {rank}: {digest}")
