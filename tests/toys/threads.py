# SPDX-License-Identifier: Apache-2.0
"""Threads in the place of processes: the exchange of rows without a process group."""
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from pic_plugin.bank import Slots
from pic_plugin.communication import Communicator


class Threads(Communicator):
    """The exchange of rows between as many threads as there are ranks."""

    def __init__(self, rank, size, barrier, parts):
        self.rank, self.size, self.barrier, self.parts = rank, size, barrier, parts

    def exchange_rows(self, rows, sent, received, purpose):
        self.parts[self.rank] = rows.split(sent)
        self.barrier.wait()
        incoming = [parts[self.rank] for parts in self.parts]
        assert [len(part) for part in incoming] == received
        self.barrier.wait()
        return torch.cat(incoming)


def on_threads(world_size, num_slots, sharded, work):
    """Results of ``work(slots)`` in each of several threads."""
    barrier, parts = threading.Barrier(world_size, timeout=30), [None] * world_size
    with ThreadPoolExecutor(world_size) as pool:
        futures = [pool.submit(work, Slots(num_slots, Threads(rank, world_size, barrier, parts),
                                           sharded)) for rank in range(world_size)]
        return [future.result() for future in futures]
