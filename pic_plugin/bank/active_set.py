# SPDX-License-Identifier: Apache-2.0
"""Which instance classes are in the soft-max, and in which slot of the head each one is."""
from __future__ import annotations

from typing import Dict, NamedTuple, Optional

import numpy as np


class Swap(NamedTuple):
    """Classes that change places before a step.

    Attributes:
        leaving_ids (np.ndarray): (L,) int64, classes to store.
        leaving_slots (np.ndarray): (L,) int64, the slots that hold them until then.
        entering_ids (np.ndarray): (E,) int64, classes to bring in.
        entering_slots (np.ndarray): (E,) int64, the slots to put them in, maybe just left.
    """

    leaving_ids: np.ndarray
    leaving_slots: np.ndarray
    entering_ids: np.ndarray
    entering_slots: np.ndarray


class ActiveSet:
    """The K most recently sampled distinct classes, and their slots.

    A class that is pushed out while its row holds a gradient that the optimizer has not applied
    (gradient accumulation) is *parked*: out of the soft-max, but still in its slot.

    Each update costs O(batch), amortised: the classes are in a queue in the order of sampling, and
    a class that is sampled again leaves its old entry behind, to be passed over.

    Args:
        num_negatives (int): K.
        num_slots (int): K and room for parked classes.
    """

    def __init__(self, num_negatives: int, num_slots: int) -> None:
        if num_slots < num_negatives:
            raise ValueError(f'{num_slots} slots cannot hold {num_negatives} active classes.')
        self.num_negatives = num_negatives
        self.ids = np.full(num_slots, -1, dtype=np.int64)  # class in each slot, -1: free
        self.stamps = np.zeros(num_slots, dtype=np.int64)  # when it was last sampled
        self.active = np.zeros(num_slots, dtype=bool)  # in the soft-max; else parked or free
        self._clock = 0
        self._head, self._tail = 0, 0  # the part of the queue that is in use
        self._rebuild()

    def __len__(self) -> int:
        """Number of classes in the soft-max."""
        return self._num_active

    def update(self, ids: np.ndarray, pending: bool = False) -> Swap:
        """Sample a batch: its classes become the most recent ones.

        Args:
            ids (np.ndarray): (B,) int64 classes of the global batch in order; of a class that is
                repeated the last place counts.
            pending (bool): Whether rows hold gradients that the optimizer has not applied.

        Returns:
            Swap: Rows to move, leaving ones first.

        Raises:
            ValueError: If the batch has more than K classes, or the slots are too few for the
                rows with pending gradients. Nothing has changed then.
        """
        # Of the reversed batch np.unique keeps each class's first place: its last in the batch.
        distinct, from_end = np.unique(ids[::-1], return_index=True)
        if len(distinct) > self.num_negatives:
            raise ValueError(
                f'a global batch of {len(distinct)} instances does not fit num_negatives='
                f'{self.num_negatives} active classes: choose num_negatives >= the batch size on '
                'all processes together.')
        slots = np.array([self._slot_of.get(i, -1) for i in distinct.tolist()], dtype=np.int64)
        inside = slots >= 0
        parked = np.empty(0, dtype=np.int64)
        if self._num_parked and not pending:
            parked = np.setdiff1d(np.flatnonzero((self.ids >= 0) & ~self.active), slots)
        num_entering = int((~inside).sum())
        num_returning = int((~self.active[slots[inside]]).sum())
        num_leaving = max(self._num_active + num_returning + num_entering - self.num_negatives, 0)
        room = len(self._free) + len(parked) + (0 if pending else num_leaving)
        if num_entering > room:
            raise ValueError(
                f'{num_entering} classes of this batch find only {room} slots that hold no '
                'gradient waiting for the optimizer: set PICHead(pending_rows=...) to at least '
                '(accumulative_counts - 1) * global batch size.')

        stamps = self._clock + len(ids) - from_end  # 1-based: 0 is before all
        self._clock += len(ids)
        self.stamps[slots[inside]] = stamps[inside]
        self.active[slots[inside]] = True
        self._num_active += num_returning
        self._num_parked -= num_returning

        pushed_out = self._oldest(num_leaving)
        self.active[pushed_out] = False
        self._num_active -= num_leaving
        self._num_parked += num_leaving
        leaving_slots = parked if pending else np.concatenate([parked, pushed_out])
        leaving_ids = self.ids[leaving_slots]
        self._release(leaving_slots)

        entering_slots = self._occupy(distinct[~inside], stamps[~inside])
        slots[~inside] = entering_slots
        self._enqueue(slots, stamps)
        return Swap(leaving_ids, leaving_slots, distinct[~inside], entering_slots)

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Places of classes among the rows of :meth:`softmax_slots`.

        Args:
            ids (np.ndarray): (B,) int64.

        Returns:
            np.ndarray: (B,) int64.

        Raises:
            KeyError: If a class is not in the soft-max.
        """
        slots = np.array([self._slot_of[i] for i in ids.tolist()], dtype=np.int64)
        if not self.active[slots].all():
            raise KeyError(f'classes {ids[~self.active[slots]].tolist()} are not in the soft-max.')
        if self.is_prefix:
            return slots
        return (np.cumsum(self.active) - 1)[slots]

    @property
    def is_prefix(self) -> bool:
        """Whether the active classes fill the first slots without a gap."""
        return bool(self.active[:self._num_active].all())

    @property
    def softmax_slots(self) -> np.ndarray:
        """(A,) int64, slots of the classes in the soft-max, ascending."""
        return np.flatnonzero(self.active)

    def slots_of(self, ids: np.ndarray) -> np.ndarray:
        """(M,) int64: the slot of each class, active or parked, or -1."""
        return np.array([self._slot_of.get(i, -1) for i in ids.tolist()], dtype=np.int64)

    def oldest_ids(self, count: int) -> np.ndarray:
        """At most ``count`` of the longest-unsampled classes: those that will leave next.

        Fewer where the head of the queue is full of entries that are out of date: for use where a
        guess will do.
        """
        end = min(self._head + 2 * count, self._tail)
        slots = self._queue_slots[self._head:end]
        current = self._is_current(slots, self._queue_stamps[self._head:end])
        return self.ids[slots[current][:count]]

    def _oldest(self, count: int) -> np.ndarray:
        """Take the longest-unsampled active classes off the queue: their slots, (count,)."""
        taken = [np.empty(0, dtype=np.int64)]
        while count:
            end = min(self._head + max(count, 64), self._tail)
            assert end > self._head, 'every active class is in the queue'
            slots = self._queue_slots[self._head:end]
            valid = np.flatnonzero(self._is_current(slots, self._queue_stamps[self._head:end]))
            chosen = valid[:count]
            taken.append(slots[chosen].copy())
            self._head = self._head + int(chosen[-1]) + 1 if len(valid) >= count else end
            count -= len(chosen)
        return np.concatenate(taken)

    def _is_current(self, slots: np.ndarray, stamps: np.ndarray) -> np.ndarray:
        return (self.stamps[slots] == stamps) & self.active[slots]

    def _enqueue(self, slots: np.ndarray, stamps: np.ndarray) -> None:
        if self._tail + len(slots) > len(self._queue_slots):
            entries = slice(self._head, self._tail)
            old_slots, old_stamps = self._queue_slots[entries], self._queue_stamps[entries]
            # The batch's own classes are current too: their older entries differ in the stamp.
            keep = self._is_current(old_slots, old_stamps)
            self._fill_queue(old_slots[keep], old_stamps[keep], len(slots))
        order = np.argsort(stamps)
        end = self._tail + len(slots)
        self._queue_slots[self._tail:end] = slots[order]
        self._queue_stamps[self._tail:end] = stamps[order]
        self._tail = end

    def _fill_queue(self, slots: np.ndarray, stamps: np.ndarray, spare: int = 0) -> None:
        size = 4 * len(self.ids) + len(slots) + spare + 64
        self._queue_slots = np.empty(size, dtype=np.int64)
        self._queue_stamps = np.empty(size, dtype=np.int64)
        self._queue_slots[:len(slots)], self._queue_stamps[:len(slots)] = slots, stamps
        self._head, self._tail = 0, len(slots)

    def _occupy(self, ids: np.ndarray, stamps: np.ndarray) -> np.ndarray:
        slots = np.array([self._free.pop() for _ in range(len(ids))], dtype=np.int64)
        self.ids[slots], self.stamps[slots], self.active[slots] = ids, stamps, True
        self._slot_of.update(zip(ids.tolist(), slots.tolist()))
        self._num_active += len(ids)
        return slots

    def _release(self, slots: np.ndarray) -> None:
        for i in self.ids[slots].tolist():
            del self._slot_of[i]
        self.ids[slots] = -1
        self.active[slots] = False
        # The lowest slots are used first, so that without parked classes there are no gaps.
        self._free.extend(sorted(slots.tolist(), reverse=True))
        self._num_parked -= len(slots)

    def state_dict(self) -> Dict[str, np.ndarray]:
        """Arrays that :meth:`load_state_dict` continues from, slot for slot."""
        return dict(ids=self.ids, stamps=self.stamps, active=self.active,
                    free=np.array(self._free, dtype=np.int64))

    def load_state_dict(self, state: Dict[str, np.ndarray]) -> None:
        """Continue from another set's state.

        Raises:
            ValueError: If the number of slots or of active classes does not fit this set.
        """
        if state['ids'].shape != self.ids.shape or state['active'].sum() > self.num_negatives:
            raise ValueError(
                f'{int(state["active"].sum())} active classes in {len(state["ids"])} slots do not '
                f'fit a set of {self.num_negatives} in {len(self.ids)}.')
        self.ids[:], self.stamps[:] = state['ids'], state['stamps']
        self.active[:] = state['active']
        self._clock = int(self.stamps.max(initial=0))
        self._rebuild(state['free'].tolist())

    def _rebuild(self, free: Optional[list] = None) -> None:
        """Derive everything else from ids, stamps and active."""
        held = np.flatnonzero(self.ids >= 0)
        self._slot_of = dict(zip(self.ids[held].tolist(), held.tolist()))
        self._free = list(range(len(self.ids) - 1, -1, -1)) if free is None else free
        self._num_active = int(self.active.sum())
        self._num_parked = len(held) - self._num_active
        order = self.softmax_slots[np.argsort(self.stamps[self.softmax_slots])]
        self._fill_queue(order, self.stamps[order])
