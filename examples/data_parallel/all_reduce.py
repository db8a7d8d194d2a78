# SPDX-License-Identifier: MIT
"""For engines whose only operation is a sum of integers over all ranks: each rank fills its own slot of zeros."""

import numpy as np


class AllReduced:
    """A communicator from ``all_reduce(array)``, which returns the sum of int64 arrays of all ranks."""

    def __init__(self, rank, size, all_reduce):
        self.rank, self.size, self._all_reduce = rank, size, all_reduce

    def allgather(self, data):
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(data)
        lengths = self._all_reduce(lengths)
        slots = np.zeros((self.size, -(-int(lengths.max()) // 8)), np.int64)
        slots[self.rank].view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        found = self._all_reduce(slots.reshape(-1)).reshape(slots.shape)
        return [found[rank].tobytes()[: lengths[rank]] for rank in range(self.size)]
