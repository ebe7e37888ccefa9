# SPDX-License-Identifier: Apache-2.0
"""Which process holds which slot of the head, where the head is shared out among them."""
from __future__ import annotations

from typing import Callable, List, Optional

import numpy as np
import torch
from torch import Tensor

#: Rows for each process, numbers sent to and received from each: the rows that were received.
Exchange = Callable[[Tensor, List[int], List[int]], Tensor]


def share_rows(rows: Tensor, owners: np.ndarray, rank: int, num_ranks: int,
               exchange: Exchange) -> Tensor:
    """Tell all processes the rows of all.

    Args:
        rows (Tensor): (S, ...), those of this process.
        owners (np.ndarray): (R,) int64, for each row of all the process that has it; the same in
            all processes.
        rank (int): This process.
        num_ranks (int): Number of processes.
        exchange (Callable): Gives each process rows of its own.

    Returns:
        Tensor: (R, ...), in the order of ``owners``.
    """
    counts = np.bincount(owners, minlength=num_ranks).tolist()
    # Each row goes out once to each process: half of what a sum with zeros would send.
    incoming = exchange(torch.cat([rows] * num_ranks), [counts[rank]] * num_ranks, counts)
    shared = torch.empty_like(incoming)
    shared[torch.from_numpy(np.argsort(owners, kind='stable'))] = incoming
    return shared


class SlotShards:
    """Slot s is row ``s // num_ranks`` of the head of process ``s % num_ranks``.

    The numbering of slots is that of a head in one piece, so all processes agree on who holds what
    without asking, and each holds an equal number of active classes.

    Args:
        rank (int): This process. Defaults to 0.
        num_ranks (int): Processes that share the slots. Defaults to 1: nothing is shared out.
        exchange (Callable, optional): Gives each process rows of its own. Defaults to None: there
            is one process.
    """

    def __init__(self, rank: int = 0, num_ranks: int = 1,
                 exchange: Optional[Exchange] = None) -> None:
        self.rank, self.num_ranks = rank, num_ranks
        self._exchange = exchange or (lambda rows, sent, received: rows)

    def slots(self, num_slots: int) -> np.ndarray:
        """(R,) int64: those of the first ``num_slots`` slots that are held here, in order."""
        return np.arange(self.rank, num_slots, self.num_ranks, dtype=np.int64)

    def num_held(self, num_slots: int) -> int:
        """How many of the first ``num_slots`` slots are held here."""
        return len(range(self.rank, num_slots, self.num_ranks))

    def holds(self, slots: np.ndarray) -> np.ndarray:
        """(R,) bool: which of the slots (R,) are held here."""
        return slots % self.num_ranks == self.rank

    def rows(self, slots: np.ndarray) -> np.ndarray:
        """(R,) int64: rows of slots (R,) in the heads that hold them."""
        return slots // self.num_ranks

    def route(self, values: Tensor, senders: np.ndarray, receivers: np.ndarray) -> Tensor:
        """Send rows from one process to another each.

        Args:
            values (Tensor): (S, ...), the rows that this process sends, in their order below.
            senders (np.ndarray): (R,) int64, for each row the process that has it; the same in all
                processes, as are ``receivers``.
            receivers (np.ndarray): (R,) int64, for each row the process that gets it.

        Returns:
            Tensor: (T, ...), the rows for this process, in their order in ``receivers``.
        """
        targets = receivers[senders == self.rank]
        sources = senders[receivers == self.rank]
        outgoing = values[torch.from_numpy(np.argsort(targets, kind='stable'))]
        incoming = self._exchange(outgoing,
                                  np.bincount(targets, minlength=self.num_ranks).tolist(),
                                  np.bincount(sources, minlength=self.num_ranks).tolist())
        rows = torch.empty_like(incoming)
        rows[torch.from_numpy(np.argsort(sources, kind='stable'))] = incoming
        return rows


def num_shard_rows(num_slots: int, num_ranks: int) -> int:
    """Rows that the head of every process needs to hold its part of the slots."""
    return -(-num_slots // num_ranks)
