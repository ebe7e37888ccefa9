# SPDX-License-Identifier: Apache-2.0
"""The active set: the instance classes in the softmax, and the slot of the head that holds each."""
from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import NamedTuple

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
    (gradient accumulation) *waits*: it is out of the softmax, but still in its slot.

    Each update costs O(batch): the classes are in an ordered dict, the longest-unsampled first.

    Args:
        num_negatives (int): K.
        num_slots (int): K and room for waiting classes.

    Attributes:
        num_negatives (int): K.
        ids (np.ndarray): (num_slots,) int64, the class in each slot, -1 for a free one.
        last_sampled (np.ndarray): (num_slots,) int64, number of samples up to and including the
            last one of that class.
        active (np.ndarray): (num_slots,) bool, whether it is in the softmax; else waiting or free.
    """

    def __init__(self, num_negatives: int, num_slots: int) -> None:
        if num_slots < num_negatives:
            raise ValueError(f'{num_slots} slots cannot hold {num_negatives} active classes.')
        self.num_negatives = num_negatives
        self.ids = np.full(num_slots, -1, dtype=np.int64)
        self.last_sampled = np.zeros(num_slots, dtype=np.int64)
        self.active = np.zeros(num_slots, dtype=bool)
        self._restore(list(range(num_slots - 1, -1, -1)))

    def __len__(self) -> int:
        """Number of classes in the softmax."""
        return len(self._recent)

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
        slots = self.slots_of(distinct)
        entering = slots < 0
        returning = ~entering & ~self.active[slots]
        released = np.empty(0, dtype=np.int64)  # slots of waiting classes that may go now
        if self._waiting and not pending:
            released = np.setdiff1d(np.array(list(self._waiting.values())), slots)
        num_pushed_out = max(len(self) + int((entering | returning).sum()) - self.num_negatives, 0)
        room = len(self._free) + len(released) + (0 if pending else num_pushed_out)
        if entering.sum() > room:
            raise ValueError(
                f'this batch brings {entering.sum()} classes into the softmax, and only {room} '
                'slots hold no gradient that the optimizer has yet to apply: set '
                'PICHead(pending_rows=...) to at least (accumulative_counts - 1) * global batch '
                'size. In a loop of your own: call '
                'optimizer.zero_grad(), which sets gradients to None unless told otherwise, before '
                'sample(), or give the parameter that many more rows.')

        for i in distinct[returning].tolist():
            del self._waiting[i]
        order, recent = np.argsort(-from_end), self._recent  # in the order of sampling
        for i, slot in zip(distinct[order].tolist(), slots[order].tolist()):
            recent[i] = slot  # -1 until a class that enters has one
            recent.move_to_end(i)  # beyond the reach of what is pushed out
        pushed_out = [recent.popitem(last=False) for _ in range(num_pushed_out)]
        pushed_out_slots = np.array([slot for _, slot in pushed_out], dtype=np.int64)
        self.active[pushed_out_slots] = False
        if pending:
            self._waiting.update(pushed_out)
        for i in self.ids[released].tolist():
            del self._waiting[i]
        leaving_slots = released if pending else np.concatenate([released, pushed_out_slots])
        leaving_ids = self.ids[leaving_slots]
        self.ids[leaving_slots] = -1
        # The lowest slots are used first, so that without waiting classes there are no gaps.
        self._free.extend(sorted(leaving_slots.tolist(), reverse=True))

        entering_ids, entering_slots = distinct[entering], [
            self._free.pop() for _ in range(int(entering.sum()))]
        recent.update(zip(entering_ids.tolist(), entering_slots))
        slots[entering] = entering_slots
        self.ids[slots], self.active[slots] = distinct, True
        self.last_sampled[slots] = self._num_sampled + len(ids) - from_end
        self._num_sampled += len(ids)
        return Swap(leaving_ids, leaving_slots, entering_ids, slots[entering])

    def softmax_slots_of(self, ids: np.ndarray) -> np.ndarray:
        """(B,) int64: slots of classes in the softmax.

        Raises:
            KeyError: If a class is not in the softmax.
        """
        try:
            return np.array([self._recent[i] for i in ids.tolist()], dtype=np.int64)
        except KeyError:
            absent = [i for i in ids.tolist() if i not in self._recent]
            raise KeyError(f'classes {absent} are not in the softmax: sample their ids before the '
                           'loss.') from None

    @property
    def is_prefix(self) -> bool:
        """Whether the active classes fill the first slots without a gap."""
        return bool(self.active[:len(self)].all())

    @property
    def softmax_slots(self) -> np.ndarray:
        """(A,) int64, slots of the classes in the softmax, ascending."""
        return np.flatnonzero(self.active)

    def slots_of(self, ids: np.ndarray) -> np.ndarray:
        """(M,) int64: the slot of each class, active or waiting, or -1."""
        recent, waiting = self._recent, self._waiting
        slots = [recent.get(i, -1) for i in ids.tolist()]
        if waiting:
            slots = [waiting.get(i, -1) if slot < 0 else slot
                     for i, slot in zip(ids.tolist(), slots)]
        return np.array(slots, dtype=np.int64)

    def oldest_ids(self, count: int) -> np.ndarray:
        """At most ``count`` of the longest-unsampled classes, those that will leave next: int64."""
        return np.array(list(islice(self._recent, count)), dtype=np.int64)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Arrays that :meth:`load_state_dict` continues from, slot for slot."""
        # The name of version 0.1.0, whose checkpoints are read too.
        return dict(ids=self.ids, stamps=self.last_sampled, active=self.active,
                    free=np.array(self._free, dtype=np.int64))

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Continue from another set's state, which may have fewer slots: the rest are free.

        Raises:
            ValueError: If the number of slots or of active classes does not fit this set.
        """
        saved = len(state['ids'])
        if saved > len(self.ids) or state['active'].sum() > self.num_negatives:
            raise ValueError(
                f'{int(state["active"].sum())} active classes in {len(state["ids"])} slots do not '
                f'fit a set of {self.num_negatives} in {len(self.ids)}.')
        self.ids[saved:], self.last_sampled[saved:], self.active[saved:] = -1, 0, False
        self.ids[:saved], self.last_sampled[:saved] = state['ids'], state['stamps']
        self.active[:saved] = state['active']
        self._restore([*range(len(self.ids) - 1, saved - 1, -1), *state['free'].tolist()])

    def _restore(self, free: list[int]) -> None:
        """Derive everything else from ids, last_sampled and active."""
        self._free = free
        self._num_sampled = int(self.last_sampled.max(initial=0))
        slots = self.softmax_slots
        slots = slots[np.argsort(self.last_sampled[slots])]
        self._recent = OrderedDict(zip(self.ids[slots].tolist(), slots.tolist()))
        waiting = np.flatnonzero((self.ids >= 0) & ~self.active)
        self._waiting = dict(zip(self.ids[waiting].tolist(), waiting.tolist()))
