# SPDX-License-Identifier: MIT
"""For engines with actors, but without a collective operation: one actor that gathers what all ranks send."""

import asyncio


class Hub:
    """Collects the messages of all ranks, and returns them when all are there."""

    def __init__(self, size):
        self.size, self.rounds = size, {}

    async def allgather(self, number, rank, data):
        messages, complete = self.rounds.setdefault(number, ({}, asyncio.Event()))
        messages[rank] = data
        if len(messages) == self.size:
            del self.rounds[number]
            complete.set()
        await complete.wait()
        return [messages[each] for each in range(self.size)]


class HubComm:
    """The hub as a communicator. ``call`` calls its method from a rank, and waits for the result."""

    def __init__(self, rank, size, call):
        self.rank, self.size, self._call, self._number = rank, size, call, 0

    def allgather(self, data):
        self._number += 1
        return self._call(self._number, self.rank, data)
