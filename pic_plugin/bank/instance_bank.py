# SPDX-License-Identifier: Apache-2.0
"""Class weights of all instances: the active ones in the head, the others stored and owed SGD."""
from __future__ import annotations

from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from .active_set import ActiveSet
from .initial_rows import initial_rows
from .lazy_sgd import TransitionLog, advance_rows
from .row_store import RowStore

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
    classes with ``id % world_size == rank``, and a row that returns is summed over all (all but one
    give zeros).

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
        sum_over_ranks (Callable, optional): Sums a float32 tensor over the processes. Defaults to
            None: there is one.
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
                 sum_over_ranks: Optional[Callable[[Tensor], Tensor]] = None) -> None:
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
        self._sum_over_ranks = sum_over_ranks or (lambda tensor: tensor)

    @property
    def is_full(self) -> bool:
        """Whether the soft-max runs over all N classes."""
        return self.active_set is None

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
            for first in range(0, self.num_instances, FILL_ROWS):
                ids = np.arange(first, min(first + FILL_ROWS, self.num_instances))
                planes.weight[first:first + len(ids)] = torch.from_numpy(
                    initial_rows(ids, self.feat_dim, self.seed)).to(planes.weight)

    def sample(self, ids: np.ndarray, planes: Planes, pending: bool = False) -> np.ndarray:
        """Make the classes of a batch the most recent ones, and move rows accordingly.

        Args:
            ids (np.ndarray): (B,) int64, the global batch in order: the same in all processes.
            planes (Planes): The head's rows, changed in place.
            pending (bool): Whether rows hold gradients that the optimizer has not applied.

        Returns:
            np.ndarray: (E,) int64, optimizer steps that each row which returned had missed.

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
        values, staleness = self._fetch(swap.entering_ids)
        slots = torch.from_numpy(swap.entering_slots).to(planes.weight.device)
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
            return slice(0, self.num_instances)
        if self.active_set.is_prefix:
            return slice(0, len(self.active_set))
        return torch.from_numpy(self.active_set.softmax_slots)

    @property
    def active_ids(self) -> Tensor:
        """(A,) int64, classes in the soft-max, in the order of :attr:`softmax_rows`."""
        if self.active_set is None:
            return torch.arange(self.num_instances)
        return torch.from_numpy(self.active_set.ids[self.active_set.softmax_slots])

    def positions(self, ids: np.ndarray) -> Tensor:
        """(B,) int64: places of classes among the rows of the soft-max."""
        return torch.from_numpy(
            ids if self.active_set is None else self.active_set.positions(ids))

    def class_weights(self, ids: np.ndarray, weight: Tensor) -> Tensor:
        """Rows as dense training would hold them after the last optimizer step.

        Args:
            ids (np.ndarray): (M,) int64, the same in all processes.
            weight (Tensor): (S, d) the head's parameter.

        Returns:
            Tensor: (M, d) float32 or wider, on the device of ``weight``, detached.

        Raises:
            ValueError: If an id is outside [0, N).
        """
        self.check_ids(ids)
        slots = ids if self.active_set is None else self.active_set.slots_of(ids)
        held = torch.from_numpy(slots >= 0).to(weight.device)
        rows = weight.detach()[torch.from_numpy(slots).to(weight.device).clamp(min=0)]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if not (slots >= 0).all():
            values, _ = self._fetch(ids[slots < 0])
            rows[~held] = torch.from_numpy(values[:, 0]).to(rows)
        return rows

    def _keep(self, ids: np.ndarray, slots: np.ndarray, planes: Planes) -> None:
        """Store the rows that this process owns, and clear all of their slots."""
        # Before the first step a row is its initial value: nothing to remember.
        if self.step > 0:
            own = ids % self.world_size == self.rank
            index = torch.from_numpy(slots[own]).to(planes.weight.device)
            values = [tensor[index].float() for tensor in (planes.weight, *planes.states)]
            if self.num_states is None:
                self.num_states = len(planes.states)
            values += [torch.zeros_like(values[0])] * (self.num_states + 1 - len(values))
            steps = np.full(len(index), self.step, dtype=np.int64)
            self.put(ids[own], steps, torch.stack(values, dim=1).cpu().numpy())
        cleared = torch.from_numpy(slots).to(planes.weight.device)
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
        own = ids % self.world_size == self.rank
        steps = np.full(len(ids), -1, dtype=np.int64)
        values = np.zeros((len(ids), 1 + (self.num_states or 0), self.feat_dim), dtype=np.float32)
        if self.store is not None:
            steps[own], values[own] = self.store.read(ids[own] // self.world_size)
        fresh = own & (steps < 0)
        values[fresh, 0] = initial_rows(ids[fresh], self.feat_dim, self.seed)
        since = np.maximum(steps, 0)
        if self.correct and self.step > 0:
            values[own] = advance_rows(values[own], self.transitions.since(since[own]))
        missed = np.where(own, self.step - since, 0)
        if self.world_size > 1:
            values = self._sum_over_ranks(torch.from_numpy(values)).numpy()
            missed = self._sum_over_ranks(torch.from_numpy(missed)).numpy()
        return values, missed
