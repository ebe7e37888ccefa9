# SPDX-License-Identifier: Apache-2.0
"""Reads stored rows that coming batches will want, beside the training thread."""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from pic_plugin.bank import InstanceBank
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.engine.ranks import images_of_a_step

LOOKAHEAD = 8  # batches


class RowPrefetcher:
    """Warms the system's cache with the rows of the batches to come.

    The sampler is a pure function of the place in its stream, so what the next batches of all
    processes hold is known without waiting for their images. Rows about to leave the softmax are
    fetched too: writing one to a page that is not in the cache would first read it.

    Args:
        bank (InstanceBank): The bank.
        loader (DataLoader): Of the training.
    """

    def __init__(self, bank: InstanceBank, loader: Any) -> None:
        self.bank = bank
        self.sampler = loader.sampler
        self.ids = number_instances(loader.dataset).ids
        self.batch_size = images_of_a_step(loader)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix='row-prefetch')
        self._pending: Future | None = None
        self._done_until = 0  # position in the stream

    @staticmethod
    def is_of_use(bank: InstanceBank, loader: Any) -> bool:
        """Whether rows come from a disk, and the sampler tells which ones."""
        return (bank.stored.storage.path is not None and not bank.is_full
                and hasattr(loader.sampler, 'ids_at'))

    def advance(self, epoch: int, batch_idx: int) -> None:
        """Ask for the rows of the next batches, as far as that has not been done.

        Args:
            epoch (int): Epochs before this one.
            batch_idx (int): Batches of it that were trained on.

        Raises:
            Exception: Of the prefetch before, if it failed.
        """
        if self._pending is not None:
            if not self._pending.done():
                return  # the disk is slower than training: ask for more at once next time
            self._pending.result()
        here = epoch * self.sampler.num_images + batch_idx * self.batch_size
        until = here + LOOKAHEAD * self.batch_size
        # Copied here: the training thread goes on changing the active set.
        leaving = self.bank.next_to_leave(LOOKAHEAD * self.batch_size)
        self._pending = self._executor.submit(self._fetch, max(here, self._done_until), until,
                                              leaving)
        self._done_until = until

    def _fetch(self, start: int, stop: int, leaving: np.ndarray) -> None:
        ids = self.sampler.ids_at(start, stop)
        if self.ids is not None:
            ids = self.ids[ids]
        self.bank.stored.prefetch(np.concatenate([ids, leaving]))

    def close(self) -> None:
        """Wait for what is under way.

        Raises:
            Exception: Of the last prefetch, if it failed.
        """
        self._executor.shutdown()
        if self._pending is not None:
            self._pending.result()
