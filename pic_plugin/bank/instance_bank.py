# SPDX-License-Identifier: Apache-2.0
"""Class weights of all instances: the active ones in the head, the others stored and owed SGD."""
from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from .active_set import ActiveSet
from .initial_rows import initial_rows
from .lazy_sgd import TransitionLog, advance_rows
from .row_store import RowStore
from .slot_shards import Exchange, SlotShards, share_rows

FILL_ROWS = 65536


class Planes(NamedTuple):
    """Tensors with one row for each slot that move together.

    Attributes:
        weight (Tensor): (S, d) the head's parameter.
        states (list[Tensor]): (S, d) each, what the optimizer keeps for it; none before the
            optimizer has made them.
    """

    weight: Tensor
    states: List[Tensor]


class InstanceBank:
    """Rows of N instance classes, of which the most recently sampled are in the head's parameter.

    The other rows are stored as they were when they left, with the optimizer step at which they
    did. On return a row is multiplied by the transitions that it missed, so that it is what dense
    SGD on all N rows would have made of it (PIC paper, section on weight update correction).

    Several processes: the active rows are the same in all of them, each stores the rows of the
    classes with ``id % world_size == rank``, and tells the others of a row that returns. Or the
    active rows are shared out too, by slot: a row then goes straight from the process that stores
    it to the one that holds its slot, and back.

    Args:
        num_instances (int): N.
        num_negatives (int, optional): K. None, or at least N: all rows are active, in the order of
            their ids, and nothing is ever stored.
        num_slots (int): Rows of the head's parameter.
        feat_dim (int): d.
        seed (int): Of the initial class weights.
        correct (bool): Whether returning rows are owed the transitions they missed. Defaults to
            True.
        num_states (int, optional): Tensors that the optimizer keeps for each row. Defaults to None:
            the momentum buffer if rows are corrected, else as many as there are when the first row
            is stored.
        path (str | Path, optional): Sparse file for the stored rows. Defaults to None: memory.
        dtype (str): What stored rows are rounded to, see :class:`RowCodec`. Defaults to 'float32'.
        rank (int): This process. Defaults to 0.
        world_size (int): Number of processes. Defaults to 1.
        exchange (Callable, optional): Gives each process rows of its own. Defaults to None: there
            is one process.
        shards (SlotShards, optional): How the head's slots are shared out among the processes.
            Defaults to None: each holds all of them.
    """

    def __init__(self,
                 num_instances: int,
                 num_negatives: Optional[int],
                 num_slots: int,
                 feat_dim: int,
                 seed: int,
                 correct: bool = True,
                 num_states: Optional[int] = None,
                 path: Optional[Union[str, Path]] = None,
                 dtype: str = 'float32',
                 rank: int = 0,
                 world_size: int = 1,
                 exchange: Optional[Exchange] = None,
                 shards: Optional[SlotShards] = None) -> None:
        self.num_instances = num_instances
        self.num_slots = num_slots
        self.feat_dim = feat_dim
        self.seed = seed
        self.correct = correct
        self.num_states = 1 if correct and num_states is None else num_states
        self.path, self.dtype = path, dtype
        self.rank, self.world_size = rank, world_size
        self.step = 0  # optimizer steps taken
        self.transitions = TransitionLog()
        self.store: Optional[RowStore] = None  # see open_store
        self.active_set: Optional[ActiveSet] = None
        if num_negatives is not None and num_negatives < num_instances:
            self.active_set = ActiveSet(num_negatives, num_slots)
        self._exchange = exchange or (lambda rows, sent, received: rows)
        self.shards = shards or SlotShards()

    @property
    def is_full(self) -> bool:
        """Whether the soft-max runs over all N classes."""
        return self.active_set is None

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of the head's slots."""
        return self.shards.num_ranks > 1

    def record_step(self, transition: np.ndarray) -> None:
        """Count an optimizer step that was really taken.

        Args:
            transition (np.ndarray): (2, 2) float64, of :func:`sgd_transition`. Not used where rows
                are not corrected or never stored.
        """
        self.step += 1
        if self.correct and not self.is_full:
            self.transitions.append(transition)

    def start(self, planes: Planes) -> None:
        """Fill the head's parameter for a training that begins: zeros, or all initial rows."""
        planes.weight.zero_()
        if self.is_full:
            own = self.shards.slots(self.num_instances)
            for first in range(0, len(own), FILL_ROWS):
                ids = own[first:first + FILL_ROWS]
                planes.weight[first:first + len(ids)] = torch.from_numpy(
                    initial_rows(ids, self.feat_dim, self.seed)).to(planes.weight)

    def sample(self, ids: np.ndarray, planes: Planes, pending: bool = False) -> np.ndarray:
        """Make the classes of a batch the most recent ones, and move rows accordingly.

        Args:
            ids (np.ndarray): (B,) int64, the global batch in order: the same in all processes.
            planes (Planes): The head's rows, changed in place.
            pending (bool): Whether rows hold gradients that the optimizer has not applied.

        Returns:
            np.ndarray: (E,) int64, optimizer steps that each row which returned had missed; where
            the slots are shared out, of the rows only that this process had stored.

        Raises:
            ValueError: If an id is outside [0, N) or the batch does not fit the active set.
        """
        self.check_ids(ids)
        if self.active_set is None:
            return np.empty(0, dtype=np.int64)
        swap = self.active_set.update(ids, pending)
        if len(swap.leaving_ids):
            self._keep(swap.leaving_ids, swap.leaving_slots, planes)
        if not len(swap.entering_ids):
            return np.empty(0, dtype=np.int64)
        if self.is_sharded:
            values, staleness = self._fetch_for_own_slots(swap.entering_ids, swap.entering_slots)
        else:
            values, staleness = self._fetch(swap.entering_ids)
        entered = self.shards.rows(swap.entering_slots[self.shards.holds(swap.entering_slots)])
        slots = torch.from_numpy(entered).to(planes.weight.device)
        rows = torch.from_numpy(values).to(planes.weight.device)
        # A state that no row was stored with yet is zero, as the free slots are.
        for tensor, plane in zip((planes.weight, *planes.states), rows.unbind(dim=1)):
            tensor[slots] = plane.to(tensor.dtype)
        return staleness

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
    def softmax_rows(self) -> Union[slice, Tensor]:
        """Index of the head's rows that are in the soft-max: a slice where they lie together."""
        if self.active_set is None:
            return slice(0, self.shards.num_held(self.num_instances))
        if self.active_set.is_prefix:
            return slice(0, self.shards.num_held(len(self.active_set)))
        slots = self.active_set.softmax_slots
        return torch.from_numpy(self.shards.rows(slots[self.shards.holds(slots)]))

    @property
    def active_ids(self) -> Tensor:
        """(A,) int64, classes in the soft-max, in the order of their slots."""
        if self.active_set is None:
            return torch.arange(self.num_instances)
        return torch.from_numpy(self.active_set.ids[self.active_set.softmax_slots])

    def positions(self, ids: np.ndarray) -> Tensor:
        """(B,) int64: places of classes in :attr:`active_ids`."""
        return torch.from_numpy(
            ids if self.active_set is None else self.active_set.positions(ids))

    def shard_positions(self, ids: np.ndarray) -> Tensor:
        """Places of classes among the rows of the soft-max that this process holds.

        Args:
            ids (np.ndarray): (B,) int64 classes in the soft-max.

        Returns:
            Tensor: (B,) int64, -1 for a class that another process holds.

        Raises:
            KeyError: If a class is not in the soft-max.
        """
        places = self.positions(ids).numpy()
        if self.active_set is None or self.active_set.is_prefix:
            held, rows = self.shards.holds(places), self.shards.rows(places)
        else:
            slots = self.active_set.slots_of(ids)
            held = self.shards.holds(slots)
            active = self.active_set.active[self.shards.slots(self.num_slots)]
            rows = np.zeros_like(slots)
            rows[held] = (np.cumsum(active) - 1)[self.shards.rows(slots[held])]
        return torch.from_numpy(np.where(held, rows, -1))

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
        held = slots >= 0
        index = self.shards.rows(slots[held & self.shards.holds(slots)])
        active = weight.detach()[torch.from_numpy(index).to(weight.device)]
        if self.is_sharded:
            active = self._share(active, slots[held] % self.shards.num_ranks)
        rows = weight.new_zeros(len(ids), self.feat_dim,
                                dtype=torch.promote_types(weight.dtype, torch.float32))
        rows[torch.from_numpy(held).to(weight.device)] = active.to(rows.dtype)
        if not (slots >= 0).all():
            values, _ = self._fetch(ids[slots < 0])
            stored = torch.from_numpy(slots < 0).to(weight.device)
            rows[stored] = torch.from_numpy(values[:, 0]).to(rows)
        return rows

    def _keep(self, ids: np.ndarray, slots: np.ndarray, planes: Planes) -> None:
        """Store the rows that this process owns, and clear all of their slots."""
        # Before the first step a row is its initial value: nothing to remember.
        if self.step > 0:
            own = ids % self.world_size == self.rank
            taken = self.shards.rows(slots[self.shards.holds(slots) if self.is_sharded else own])
            index = torch.from_numpy(taken).to(planes.weight.device)
            values = [tensor[index].float() for tensor in (planes.weight, *planes.states)]
            if self.num_states is None:
                self.num_states = len(planes.states)
            values += [torch.zeros_like(values[0])] * (self.num_states + 1 - len(values))
            leaving = torch.stack(values, dim=1).cpu()
            if self.is_sharded:
                leaving = self.shards.route(leaving, slots % self.shards.num_ranks,
                                            ids % self.world_size)
            steps = np.full(len(leaving), self.step, dtype=np.int64)
            self.put(ids[own], steps, leaving.numpy())
        emptied = self.shards.rows(slots[self.shards.holds(slots)])
        cleared = torch.from_numpy(emptied).to(planes.weight.device)
        for tensor in (planes.weight, *planes.states):
            tensor[cleared] = 0

    def open_store(self) -> None:
        """Make the store now and not when the first row is stored, so that errors come early.

        Without effect while the number of planes is not known, or if nothing is ever stored.

        Raises:
            OSError: If its file cannot be made, or another run uses it.
        """
        if self.store is None and self.num_states is not None and not self.is_full:
            num_rows = -(-self.num_instances // self.world_size)
            self.store = RowStore(num_rows, 1 + self.num_states, self.feat_dim, self.path,
                                  self.dtype)

    def prefetch(self, ids: np.ndarray) -> None:
        """Have stored rows read from disk that will be wanted soon; may run in another thread.

        Args:
            ids (np.ndarray): (R,) int64 classes; those of other processes are passed over.
        """
        if self.store is not None:
            own = ids[ids % self.world_size == self.rank]
            self.store.prefetch(own // self.world_size)

    def next_to_leave(self, count: int) -> np.ndarray:
        """Up to ``count`` classes that will soon be stored, int64."""
        if self.active_set is None:
            return np.empty(0, dtype=np.int64)
        return self.active_set.oldest_ids(count)

    def put(self, ids: np.ndarray, steps: np.ndarray, values: np.ndarray) -> None:
        """Store rows of classes that this process owns.

        Args:
            ids (np.ndarray): (R,) int64, distinct.
            steps (np.ndarray): (R,) int64, optimizer steps that the values are as of.
            values (np.ndarray): (R, P, d) float32.
        """
        if self.store is None:
            self.num_states = values.shape[1] - 1
            self.open_store()
        assert self.store is not None, 'it has just been opened'
        self.store.write(ids // self.world_size, steps, values)

    def _fetch(self, ids: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Rows brought up to date, (R, P, d) float32, and the steps each had missed, (R,)."""
        owners = ids % self.world_size
        values, missed = self._fetch_own(ids[owners == self.rank])
        if self.world_size > 1:
            values = self._share(torch.from_numpy(values), owners).numpy()
            missed = self._share(torch.from_numpy(missed), owners).numpy()
        return values, missed

    def _share(self, rows: Tensor, owners: np.ndarray) -> Tensor:
        return share_rows(rows, owners, self.rank, self.world_size, self._exchange)

    def _fetch_for_own_slots(self, ids: np.ndarray,
                             slots: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Rows, brought up to date, for the slots held here, and what those stored here missed."""
        values, missed = self._fetch_own(ids[ids % self.world_size == self.rank])
        rows = self.shards.route(torch.from_numpy(values), ids % self.world_size,
                                 slots % self.shards.num_ranks)
        return rows.numpy(), missed

    def _fetch_own(self, ids: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """See :meth:`_fetch`, for classes that this process owns."""
        if self.store is not None:
            steps, values = self.store.read(ids // self.world_size)
        else:
            steps = np.full(len(ids), -1, dtype=np.int64)
            values = np.zeros((len(ids), 1 + (self.num_states or 0), self.feat_dim),
                              dtype=np.float32)
        fresh = steps < 0
        values[fresh, 0] = initial_rows(ids[fresh], self.feat_dim, self.seed)
        since = np.maximum(steps, 0)
        if self.correct and self.step > 0:
            values = advance_rows(values, self.transitions.since(since))
        return values, self.step - since
