# SPDX-License-Identifier: Apache-2.0
"""Has rows read from the disk before a batch wants them."""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from pic_plugin.bank import SampledClassWeights
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.engine.ranks import images_of_a_step

LOOKAHEAD = 8  # batches


class RowPrefetcher:
    """A thread that warms the system's cache with the rows of the next batches.

    The sampler is a pure function of the place in its stream, so what the next batches of all
    processes hold is known without waiting for their images. Rows about to leave the softmax are
    fetched too: writing one to a page that is not in the cache would first read it.

    Args:
        class_weights (SampledClassWeights): Whose rows they are.
        loader (DataLoader): Of the training.
    """

    def __init__(self, class_weights: SampledClassWeights, loader: Any) -> None:
        self.bank = class_weights.bank
        self.sampler = loader.sampler
        self.ids = number_instances(loader.dataset).ids
        self.batch_size = images_of_a_step(loader)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix='row-prefetch')
        self._pending: Future | None = None
        self._done_until = 0  # position in the stream

    @staticmethod
    def is_of_use(class_weights: SampledClassWeights, loader: Any) -> bool:
        """Whether rows lie on a disk, and the sampler tells which ones."""
        bank = class_weights.bank
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
        here = epoch * self.sampler.num_images + batch_idx * self.batch_size
        if self._pending is not None:
            if not self._pending.done():
                return  # the disk is slower than training: ask for more at once next time
            self._pending.result()
        until = here + LOOKAHEAD * self.batch_size
        # Copied here: the training thread goes on changing the active set.
        leaving = self.bank.next_to_leave(LOOKAHEAD * self.batch_size)
        self._pending = self._executor.submit(self._fetch, max(here, self._done_until), until,
                                              leaving)
        self._done_until = until

    def _fetch(self, start: int, stop: int, leaving: np.ndarray) -> None:
        images = self.sampler.ids_at(start, stop)
        ids = images if self.ids is None else self.ids[images]
        self.bank.stored.prefetch(np.concatenate([ids, leaving]))

    def close(self) -> None:
        """Wait for what is under way.

        Raises:
            Exception: Of the last prefetch, if it failed.
        """
        self._executor.shutdown()
        if self._pending is not None:
            self._pending.result()
