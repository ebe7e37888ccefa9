# SPDX-License-Identifier: Apache-2.0
"""Class weights of all instances: active ones in the head, the others stored and owed steps."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .active_set import ActiveSet, Swap
from .correction import Correction
from .global_batch import GlobalBatch
from .initial_rows import fill_with_initial_rows
from .row_store import RowStore
from .slots import Slots
from .stored_rows import Storage, StoredRows
from .transfers import HostCopy, to_device


class SlotTensors(NamedTuple):
    """Tensors with one row for each slot, whose rows move together.

    Attributes:
        weight (Tensor): (S, d) the head's parameter.
        states (list[Tensor]): (S, d) each, what the optimizer keeps for it; none before the
            optimizer has made them.
    """

    weight: Tensor
    states: list[Tensor]

    def clear(self, rows: Tensor) -> None:
        """Set rows (R,) of all tensors to zero, as rows of free slots are."""
        for tensor in (self.weight, *self.states):
            tensor.index_fill_(0, rows, 0)  # tensor[rows] = 0 would make the host wait for a GPU


class InstanceBank:
    """Rows of N instance classes, of which the most recently sampled are in the head's parameter.

    The other rows are stored as they were when they left, with the optimizer step at which they
    did. When a row returns, the correction brings it up to date with the steps that it missed, so
    that it is what dense training of all N rows would have made of it (PIC paper, section on weight
    update correction).

    Several processes: the active rows are the same in all of them, each stores the rows of the
    classes with ``id % world size == rank``, and tells the others of a row that returns. Or the
    active rows are sharded too, by slot: a row then goes straight from the process that stores it
    to the one that holds its slot, and back.

    Args:
        num_instances (int): N.
        num_negatives (int, optional): K. None, or at least N: all rows are active, in the order of
            their ids, and nothing is ever stored.
        slots (Slots): Places for rows, in this and other processes.
        feat_dim (int): d.
        seed (int): Of the initial class weights.
        correction (Correction): What stored rows are owed.
        storage (Storage): Defaults to memory, in float32.
    """

    def __init__(self,
                 num_instances: int,
                 num_negatives: int | None,
                 slots: Slots,
                 feat_dim: int,
                 seed: int,
                 correction: Correction,
                 storage: Storage = Storage()) -> None:  # noqa: B008  it cannot be changed
        self.num_instances = num_instances
        self.slots = slots
        self.feat_dim = feat_dim
        self.correction = correction
        self.step = 0  # optimizer steps taken
        self.stored = StoredRows(num_instances, feat_dim, slots, seed, correction, storage)
        self.active_set: ActiveSet | None = None
        if num_negatives is not None and num_negatives < num_instances:
            self.active_set = ActiveSet(num_negatives, slots.num_slots)

    @property
    def store(self) -> RowStore | None:
        """Of the stored rows; None before the first one. Waits for those on their way."""
        return self.stored.store

    @property
    def is_full(self) -> bool:
        """Whether the softmax runs over all N classes."""
        return self.active_set is None

    def record_step(self) -> None:
        """Count an optimizer step that was really taken."""
        self.step += 1
        if not self.is_full:
            self.correction.after_step()

    def start(self, tensors: SlotTensors) -> None:
        """Fill the head's parameter for a training that begins: zeros, or all initial rows."""
        tensors.weight.zero_()
        if self.is_full:
            fill_with_initial_rows(tensors.weight, self.slots.held(self.num_instances),
                                   self.stored.seed)

    def sample(self, ids: np.ndarray, tensors: SlotTensors, pending: bool = False) -> np.ndarray:
        """Make the classes of a batch the most recent ones, and move rows accordingly.

        Args:
            ids (np.ndarray): (B,) int64, the global batch in order: the same in all processes.
            tensors (SlotTensors): The head's rows, changed in place.
            pending (bool): Whether rows hold gradients that the optimizer has not applied.

        Returns:
            np.ndarray: (E,) int64, optimizer steps that each row which returned had missed, of
            those that this process had stored.

        Raises:
            ValueError: If an id is outside [0, N) or the batch does not fit the active set.
        """
        self.check_ids(ids)
        if self.active_set is None:
            return np.empty(0, dtype=np.int64)
        # The rows of the step before have long arrived: that is why nothing waits for them here.
        self.stored.arrive()
        swap = self.active_set.update(ids, pending)
        if not len(swap.leaving_ids) + len(swap.entering_ids):
            return np.empty(0, dtype=np.int64)
        rows = [self._held_rows(slots) for slots in (
            swap.leaving_slots[self.slots.sends(swap.leaving_ids, swap.leaving_slots)],
            np.setdiff1d(swap.leaving_slots, swap.entering_slots), swap.entering_slots)]
        # All at once: on a GPU it is the number of operations that takes time.
        leaving, freed, entering = to_device(np.concatenate(rows), tensors.weight.device).split(
            [len(part) for part in rows])
        # Before the first step a row is its initial value: nothing to remember.
        if len(swap.leaving_ids) and self.step > 0:
            self._keep(swap, leaving, tensors)
        if len(freed):
            tensors.clear(freed)
        if not len(swap.entering_ids):
            return np.empty(0, dtype=np.int64)
        fetched, missed = self.stored.fetch_for(swap.entering_ids, swap.entering_slots,
                                                self.step)  # (E, P, d)
        values = to_device(fetched, tensors.weight.device)
        # A state that no row was stored with yet is zero, as the free slots are.
        for tensor, value in zip((tensors.weight, *tensors.states), values.unbind(dim=1)):
            tensor.index_copy_(0, entering, value.to(tensor.dtype))
        return missed

    def check_ids(self, ids: np.ndarray) -> None:
        """Refuse ids that are no instance class.

        Raises:
            ValueError: If an id is outside [0, N).
        """
        outside = ids[(ids < 0) | (ids >= self.num_instances)]
        if len(outside):
            raise ValueError(
                f'sample_idx {outside[:5].tolist()} lie outside the {self.num_instances} instances '
                f'[0, {self.num_instances}): set num_instances to the length of the training data '
                'set, or leave it out.')

    @property
    def softmax_rows(self) -> slice | np.ndarray:
        """Index of the parameter's rows that are in the softmax: a slice if they lie together."""
        if self.active_set is None:
            return slice(0, self.slots.num_held(self.num_instances))
        if self.active_set.is_prefix:
            return slice(0, self.slots.num_held(len(self.active_set)))
        return self._held_rows(self.active_set.softmax_slots)

    @property
    def active_ids(self) -> Tensor:
        """(A,) int64, classes in the softmax, in the order of their slots."""
        if self.active_set is None:
            return torch.arange(self.num_instances)
        return torch.from_numpy(self.active_set.ids[self.active_set.softmax_slots])

    def targets(self, batch: GlobalBatch) -> np.ndarray:
        """See :meth:`positions`, of the images of the batch that was last sampled.

        (B_r,) int64 for those of this process or, where slots are sharded, (B,) for those of all.
        """
        return self.positions(batch.ids if self.slots.is_sharded else batch.own_ids)

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """Places of classes (B,) among the rows of the softmax that this process holds.

        Returns:
            np.ndarray: (B,) int64, -1 for a class that another process holds.

        Raises:
            KeyError: If a class is not in the softmax.
        """
        if self.active_set is None:
            held, rows = self.slots.holds(ids), self.slots.rows(ids)
        else:
            slots = self.active_set.softmax_slots_of(ids)
            held, rows = self.slots.holds(slots), self.slots.rows(slots)
            if not self.active_set.is_prefix:
                active = self.active_set.active[self.slots.held(self.slots.num_slots)]
                rows[held] = (np.cumsum(active) - 1)[rows[held]]
        return np.where(held, rows, -1)

    def rows_of(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where classes (R,) that have a slot are in the parameter.

        Returns:
            tuple[np.ndarray, np.ndarray]: (S,) int64, which of them this process holds, and (S,)
            int64, the rows of those.
        """
        slots = ids if self.active_set is None else self.active_set.slots_of(ids)
        return np.flatnonzero(self.slots.holds(slots)), self._held_rows(slots)

    def class_weights(self, ids: np.ndarray, weight: Tensor) -> Tensor:
        """Rows as dense training would hold them after the last optimizer step.

        Args:
            ids (np.ndarray): (M,) int64, the same in all processes.
            weight (Tensor): (S, d) the head's parameter, or this process's part of it.

        Returns:
            Tensor: (M, d) float32 or wider, on the device of ``weight``, detached.

        Raises:
            ValueError: If an id is outside [0, N).
        """
        self.check_ids(ids)
        slots = ids if self.active_set is None else self.active_set.slots_of(ids)
        in_slot = slots >= 0
        active = self.slots.from_holders(
            weight.detach()[to_device(self._held_rows(slots[in_slot]), weight.device)],
            slots[in_slot])
        rows = weight.new_zeros(len(ids), self.feat_dim,
                                dtype=torch.promote_types(weight.dtype, torch.float32))
        rows[torch.from_numpy(in_slot).to(weight.device)] = active.to(rows.dtype)
        if not in_slot.all():
            self.stored.arrive()
            values = self.stored.fetch(ids[~in_slot], self.step)
            stored = torch.from_numpy(~in_slot).to(weight.device)
            rows[stored] = torch.from_numpy(values[:, 0]).to(rows)
        return rows

    def _held_rows(self, slots: np.ndarray) -> np.ndarray:
        """(R,) int64: rows of the parameter for those of the slots that are held here."""
        return self.slots.rows(slots[self.slots.holds(slots)])

    def _keep(self, swap: Swap, rows: Tensor, tensors: SlotTensors) -> None:
        """Store the leaving rows that this process owns; ``rows`` (S,) are those it sends."""
        values = [tensor[rows].float() for tensor in (tensors.weight, *tensors.states)]
        if self.stored.num_states is None:
            self.stored.num_states = len(tensors.states)
        if len(values) > self.stored.num_states + 1:
            raise ValueError(f'the optimizer keeps {len(values) - 1} tensors for each class weight '
                             f'now, and kept {self.stored.num_states} when rows were first stored: '
                             'take one whose states are all there after its first step.')
        if len(values) <= self.stored.num_states:
            values += [torch.zeros_like(values[0])] * (self.stored.num_states + 1 - len(values))
        kept = self.slots.to_owners(torch.stack(values, dim=1), swap.leaving_ids,
                                    swap.leaving_slots)  # (R, P, d)
        self.stored.leave(swap.leaving_ids[self.slots.owns(swap.leaving_ids)], self.step,
                          HostCopy(kept))

    def next_to_leave(self, count: int) -> np.ndarray:
        """Up to ``count`` classes that will soon be stored, int64."""
        if self.active_set is None:
            return np.empty(0, dtype=np.int64)
        return self.active_set.oldest_ids(count)
