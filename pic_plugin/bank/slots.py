# SPDX-License-Identifier: Apache-2.0
"""Slots of the head's parameter, and which process holds which where they are sharded."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pic_plugin.communication import Communicator


class Slots:
    """Slot s is row ``s // num_shards`` of the parameter in process ``s % num_shards``.

    The numbering of slots is that of a parameter in one piece, so all processes agree on who holds
    what without asking, and each holds an equal number of active classes. Unsharded, every process
    holds every slot, and slot s is row s.

    Args:
        num_slots (int): Slots of all processes together.
        processes (Communicator, optional): Of the training. Defaults to None: this one alone.
        sharded (bool): Whether each process holds a part of the slots. Defaults to False.

    Attributes:
        num_shards (int): Processes that share the slots out; 1 if each holds all of them.
        shard (int): The part that this process holds.
    """

    def __init__(self, num_slots: int, processes: Communicator | None = None,
                 sharded: bool = False) -> None:
        self.num_slots = num_slots
        self.processes = processes or Communicator()
        self.num_shards = self.processes.size if sharded else 1
        self.shard = self.processes.rank if sharded else 0

    @property
    def is_sharded(self) -> bool:
        """Whether other processes hold slots that this one does not."""
        return self.num_shards > 1

    @property
    def num_rows(self) -> int:
        """Rows that the parameter of every process needs."""
        return -(-self.num_slots // self.num_shards)

    def held(self, num_slots: int) -> np.ndarray:
        """(R,) int64: those of the first ``num_slots`` slots that are held here, in order."""
        return np.arange(self.shard, num_slots, self.num_shards, dtype=np.int64)

    def num_held(self, num_slots: int) -> int:
        """Number of the first ``num_slots`` slots that are held here."""
        return len(range(self.shard, num_slots, self.num_shards))

    def holds(self, slots: np.ndarray) -> np.ndarray:
        """(R,) bool: whether each of the slots (R,) is held here."""
        return slots % self.num_shards == self.shard

    def rows(self, slots: np.ndarray) -> np.ndarray:
        """(R,) int64: rows of slots (R,) in the parameters that hold them."""
        return slots // self.num_shards

    def holders(self, slots: np.ndarray) -> np.ndarray:
        """(R,) int64: the processes that hold slots (R,)."""
        return slots % self.num_shards

    def owners(self, ids: np.ndarray) -> np.ndarray:
        """(R,) int64: the processes that store the rows of classes (R,) outside the active set."""
        return ids % self.processes.size

    def owns(self, ids: np.ndarray) -> np.ndarray:
        """(R,) bool: whether this process stores the rows of classes (R,)."""
        return self.owners(ids) == self.processes.rank

    def sends(self, ids: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """(R,) bool: rows that :meth:`to_owners` takes from here, for classes and their slots."""
        return self._senders(ids, slots) == self.processes.rank

    def to_owners(self, values: Tensor, ids: np.ndarray, slots: np.ndarray) -> Tensor:
        """Bring rows (S, ...), those that :meth:`sends` says, to the processes that store them.

        Classes and slots (R,) int64 are the same in all processes, here and below.

        Returns:
            Tensor: (T, ...), the rows of classes that this process stores, in their order in
            ``ids``; on the device of ``values`` where nothing had to be sent.
        """
        return self._route(values, self._senders(ids, slots), self.owners(ids))

    def to_holders(self, values: Tensor, ids: np.ndarray, slots: np.ndarray) -> Tensor:
        """Bring rows (S, ...), of classes that this process stores, to the holders of their slots.

        Returns:
            Tensor: (T, ...), the rows for the slots that are held here, in their order.
        """
        if self.is_sharded:
            return self._route(values, self.owners(ids), self.holders(slots))
        return self.share(values, self.owners(ids))

    def from_holders(self, values: Tensor, slots: np.ndarray) -> Tensor:
        """(R, ...), in the order of ``slots``: rows of all, of which (S, ...) are held here."""
        return self.share(values, self.holders(slots)) if self.is_sharded else values

    def _senders(self, ids: np.ndarray, slots: np.ndarray) -> np.ndarray:
        # Where every process holds every slot, the one that stores a row has it already.
        return self.holders(slots) if self.is_sharded else self.owners(ids)

    def _route(self, values: Tensor, senders: np.ndarray, receivers: np.ndarray) -> Tensor:
        """Send rows (S, ...) of this process, as ``senders`` (R,) and ``receivers`` (R,) say.

        Returns:
            Tensor: (T, ...), the rows for this process, in their order in ``receivers``.
        """
        if np.array_equal(senders, receivers):
            return values  # in all processes alike
        values = values.cpu()
        rank, size = self.processes.rank, self.processes.size
        targets = receivers[senders == rank]
        sources = senders[receivers == rank]
        outgoing = values[torch.from_numpy(np.argsort(targets, kind='stable'))]
        incoming = self.processes.exchange_rows(
            outgoing, np.bincount(targets, minlength=size).tolist(),
            np.bincount(sources, minlength=size).tolist(), 'rows')
        rows = torch.empty_like(incoming)
        rows[torch.from_numpy(np.argsort(sources, kind='stable'))] = incoming
        return rows

    def share(self, rows: Tensor, owners: np.ndarray) -> Tensor:
        """(R, ...), in the order of ``owners`` (R,): rows of all, (S, ...) of this process."""
        rank, size = self.processes.rank, self.processes.size
        if size == 1:
            return rows
        counts = np.bincount(owners, minlength=size).tolist()
        # Each row goes out once to each process: half of what a sum with zeros would send.
        incoming = self.processes.exchange_rows(torch.cat([rows] * size), [counts[rank]] * size,
                                                counts, 'rows')
        shared = torch.empty_like(incoming)
        shared[torch.from_numpy(np.argsort(owners, kind='stable'))] = incoming
        return shared
