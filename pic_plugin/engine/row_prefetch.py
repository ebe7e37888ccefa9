# SPDX-License-Identifier: Apache-2.0
"""Reads stored rows that coming batches will want, while the device or the disk has time."""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from pic_plugin.bank import SampledClassWeights
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.engine.ranks import images_of_a_step

LOOKAHEAD = 8  # batches


class RowPrefetcher:
    """Has rows at hand before they are wanted.

    The sampler is a pure function of the place in its stream, so what the next batches of all
    processes hold is known without waiting for their images.

    From a disk: a thread warms the system's cache with the rows of the next batches. Rows about to
    leave the softmax are fetched too: writing one to a page that is not in the cache would first
    read it. For a GPU: the rows of the next batch are computed as soon as an optimizer step has
    been queued, before the loop waits for its loss.

    Args:
        class_weights (SampledClassWeights): Whose rows they are.
        loader (DataLoader): Of the training.
    """

    def __init__(self, class_weights: SampledClassWeights, loader: Any) -> None:
        self.class_weights, self.bank = class_weights, class_weights.bank
        self.sampler = loader.sampler
        self.ids = number_instances(loader.dataset).ids
        self.batch_size = images_of_a_step(loader)
        self._executor = (ThreadPoolExecutor(1, thread_name_prefix='row-prefetch')
                          if _on_disk(class_weights) else None)
        self._pending: Future | None = None
        self._done_until = 0  # position in the stream
        self._next = range(0)  # positions of the next batch
        self._step_hook = (class_weights.optimizer.register_step_post_hook(self._after_step)
                           if _on_gpu(class_weights) else None)

    @staticmethod
    def is_of_use(class_weights: SampledClassWeights, loader: Any) -> bool:
        """Whether rows take time that can be hidden, and the sampler tells which ones."""
        return ((_on_disk(class_weights) or _on_gpu(class_weights))
                and not class_weights.bank.is_full and hasattr(loader.sampler, 'ids_at'))

    def advance(self, epoch: int, batch_idx: int) -> None:
        """Ask for the rows of the next batches, as far as that has not been done.

        Args:
            epoch (int): Epochs before this one.
            batch_idx (int): Batches of it that were trained on.

        Raises:
            Exception: Of the prefetch before, if it failed.
        """
        here = epoch * self.sampler.num_images + batch_idx * self.batch_size
        self._next = self._batch_after(here, (epoch + 1) * self.sampler.num_images)
        if self._executor is None:
            return
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

    def _batch_after(self, here: int, epoch_end: int) -> range:
        """Where the next batch is, but for a rest that the loader drops or fills up."""
        start = here + self.batch_size
        stop = start + self.batch_size
        if getattr(self.sampler, 'endless', False):
            return range(start, stop)
        if start < epoch_end:
            return range(start, min(stop, epoch_end))
        return range(epoch_end, epoch_end + min(self.batch_size, self.sampler.num_images))

    def _classes_at(self, start: int, stop: int) -> np.ndarray:
        images = self.sampler.ids_at(start, stop)
        return images if self.ids is None else self.ids[images]

    def _fetch(self, start: int, stop: int, leaving: np.ndarray) -> None:
        self.bank.stored.prefetch(np.concatenate([self._classes_at(start, stop), leaving]))

    def _after_step(self, *_: Any) -> None:
        self.class_weights.read_ahead(self._classes_at(self._next.start, self._next.stop))

    def close(self) -> None:
        """Wait for what is under way.

        Raises:
            Exception: Of the last prefetch, if it failed.
        """
        if self._step_hook is not None:
            self._step_hook.remove()
        if self._executor is not None:
            self._executor.shutdown()
        if self._pending is not None:
            self._pending.result()


def _on_disk(class_weights: SampledClassWeights) -> bool:
    return class_weights.bank.stored.storage.path is not None


def _on_gpu(class_weights: SampledClassWeights) -> bool:
    return class_weights.weight.device.type != 'cpu'
