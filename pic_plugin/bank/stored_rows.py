# SPDX-License-Identifier: Apache-2.0
"""Rows of classes outside the softmax: where they are kept, and what they are when they return."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .correction import Correction
from .initial_rows import initial_rows
from .row_store import RowStore
from .slots import Slots
from .transfers import HostCopy


class Storage(NamedTuple):
    """Where rows outside the active set are kept.

    Attributes:
        path (Path, optional): Sparse file. Defaults to None: memory.
        dtype (str): Type that they are rounded to, see :class:`RowCodec`. Defaults to 'float32'.
    """

    path: Path | None = None
    dtype: str = 'float32'


class StoredRows:
    """Rows as they were when they left the softmax, with the optimizer step at which they did.

    A process stores the rows of the classes with ``id % world size == rank``. A class that was
    never stored takes no space: its row is a function of the seed and its id.

    Args:
        num_instances (int): N.
        feat_dim (int): d.
        slots (Slots): Says which processes store and hold what.
        seed (int): Of the initial class weights.
        correction (Correction): What stored rows are owed.
        storage (Storage): Where they are kept.
    """

    def __init__(self,
                 num_instances: int,
                 feat_dim: int,
                 slots: Slots,
                 seed: int,
                 correction: Correction,
                 storage: Storage) -> None:
        self.num_instances = num_instances
        self.feat_dim = feat_dim
        self.slots = slots
        self.seed = seed
        self.correction = correction
        self.storage = storage
        #: Tensors that the optimizer keeps for each row; None while that is not known.
        self.num_states = None if correction.state_names is None else len(correction.state_names)
        self._store: RowStore | None = None
        #: Rows that have left and may still be on their way to the host: ids, step and values.
        self._leaving: tuple[np.ndarray, int, HostCopy] | None = None

    @property
    def store(self) -> RowStore | None:
        """Where the rows are; None before the first one. Waits for those on their way."""
        self.arrive()
        return self._store

    def open(self) -> None:
        """Make the store now and not when the first row is stored, so that errors come early.

        Without effect while the number of tensors is not known.

        Raises:
            OSError: If its file cannot be made, or another run uses it.
        """
        if self._store is None and self.num_states is not None:
            num_rows = -(-self.num_instances // self.slots.processes.size)
            self._store = RowStore(num_rows, 1 + self.num_states, self.feat_dim, *self.storage,
                                   self.correction.squares)

    def clear(self) -> None:
        """Forget all rows."""
        self._leaving = None
        if self._store is not None:
            self._store.close()
            self._store = None

    def leave(self, ids: np.ndarray, step: int, values: HostCopy) -> None:
        """See :meth:`put`, of values that need not have arrived yet, all as of one step."""
        self._leaving = ids, step, values

    def arrive(self) -> None:
        """Store the rows that :meth:`leave` has taken."""
        if self._leaving is not None:
            (ids, step, copy), self._leaving = self._leaving, None
            self.put(ids, np.full(len(ids), step, dtype=np.int64), copy.wait().numpy())

    def put(self, ids: np.ndarray, steps: np.ndarray, values: np.ndarray) -> None:
        """Store rows of classes that this process stores.

        Args:
            ids (np.ndarray): (R,) int64, distinct.
            steps (np.ndarray): (R,) int64, optimizer steps that the values are as of.
            values (np.ndarray): (R, P, d) float32.
        """
        if self._store is None:
            self.num_states = values.shape[1] - 1
            self.open()
        assert self._store is not None, 'it has just been opened'
        self._store.write(ids // self.slots.processes.size, steps, values)

    def prefetch(self, ids: np.ndarray) -> None:
        """Have stored rows read from disk that will be wanted soon; may run in another thread.

        Args:
            ids (np.ndarray): (R,) int64 classes; those of other processes are passed over.
        """
        if self._store is not None:  # rows on their way are not on the disk yet
            self._store.prefetch(ids[self.slots.owns(ids)] // self.slots.processes.size)

    def fetch_for(self, ids: np.ndarray, slots: np.ndarray,
                  step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows for slots, as they are after ``step``.

        Args:
            ids (np.ndarray): (R,) int64 classes, the same in all processes, as are ``slots``.
            slots (np.ndarray): (R,) int64, that the classes get.
            step (int): Optimizer steps taken.

        Returns:
            tuple[np.ndarray, np.ndarray]: (T, P, d) float32, rows for the slots that are held here,
            and (S,) int64, steps that each row had missed which this process had stored.
        """
        own = ids[self.slots.owns(ids)]
        values, missed = self._fetch_own(own, step)
        return self.slots.to_holders(torch.from_numpy(values), ids, slots).numpy(), missed

    def fetch(self, ids: np.ndarray, step: int) -> np.ndarray:
        """(R, P, d) float32: rows of classes (R,), as they are after ``step``, in all processes."""
        values, _ = self._fetch_own(ids[self.slots.owns(ids)], step)
        return self.slots.share(torch.from_numpy(values), self.slots.owners(ids)).numpy()

    def _fetch_own(self, ids: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Of classes that this process stores: rows, and the steps that each had missed."""
        if self._store is not None:
            steps, values = self._store.read(ids // self.slots.processes.size)
        else:
            steps = np.full(len(ids), -1, dtype=np.int64)
            values = np.zeros((len(ids), 1 + (self.num_states or 0), self.feat_dim),
                              dtype=np.float32)
        fresh = steps < 0
        values[fresh, 0] = initial_rows(ids[fresh], self.feat_dim, self.seed)
        since = np.maximum(steps, 0)
        if step > 0:
            values = self.correction.advance(values, since)
        return values, step - since
