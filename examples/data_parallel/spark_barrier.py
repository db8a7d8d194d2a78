# SPDX-License-Identifier: MIT
"""Data parallel training by Spark: the tasks of a stage in barrier mode, which start together and fail together."""

import base64
import os

from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

RANKS = 3


class Barrier:
    """The context of a task as a communicator. Spark's allGather takes text."""

    def __init__(self, context):
        self.rank, self.size, self._context = context.partitionId(), len(context.getTaskInfos()), context

    def allgather(self, data):
        found = self._context.allGather(base64.b64encode(data).decode())
        return [base64.b64decode(each) for each in found]


def train(_):
    import task  # from the folder of this file, which every executor has

    comm = Barrier(BarrierTaskContext.get())
    yield comm.rank, task.train(comm)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    spark = SparkSession.builder.master(f"local[{RANKS}]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.addPyFile(os.path.join(here, "task.py"))
    stage = spark.sparkContext.parallelize(range(RANKS), RANKS).barrier()
    for rank, digest in sorted(stage.mapPartitions(train).collect()):
        print(f"rank {rank}: {digest}")
    spark.stop()
