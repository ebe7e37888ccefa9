# SPDX-License-Identifier: Apache-2.0
"""A data set without images, images made on the device, and a clock, for benchmark training."""
from __future__ import annotations

import time
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import FUNCTIONS
from mmpretrain.registry import DATASETS, HOOKS, MODELS
from torch.utils.data import Dataset

NUM_CLASSES = 1000
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


class LightSample:
    """An id, and a label for classifiers; mmpretrain's DataSample takes longer to move about."""

    __slots__ = ('gt_label', 'sample_idx')

    def __init__(self, sample_idx: int) -> None:
        self.sample_idx = sample_idx

    def __contains__(self, name: str) -> bool:
        return name == 'gt_label' and hasattr(self, name)


@DATASETS.register_module()
class BenchmarkIds(Dataset):
    """``length`` images that are only numbers."""

    metainfo: dict[str, Any] = {}

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


@FUNCTIONS.register_module()
def benchmark_collate(batch: list[int]) -> dict:
    """Ids as samples, and next to nothing as inputs."""
    return dict(inputs=torch.zeros(len(batch), 3, 1, 1),
                data_samples=[LightSample(int(i)) for i in batch])


@MODELS.register_module()
class BenchmarkImages(BaseDataPreprocessor):
    """Views that lie on the device already, normalised, or augmented from uint8 if asked for.

    Args:
        num_images (int): Of a batch, B.
        num_views (int): Views of an image.
        size (int): Side, pixels.
        as_list (bool): Views as a list, as self-supervised algorithms take them.
        channels_last (bool): Memory format.
        augment (dict, optional): Arguments of ``AugmentPreprocessor``, which then makes the views.
        batch_augments (None): mmpretrain's classifiers pass it.
    """

    def __init__(self, num_images: int, num_views: int, size: int, as_list: bool,
                 channels_last: bool = False, augment: dict | None = None,
                 batch_augments: None = None) -> None:
        super().__init__()
        self.as_list = as_list
        self.num_images = num_images
        shape = (num_images * num_views, 3, size, size)
        self.augment = None
        if augment is not None:
            self.augment = MODELS.build(dict(
                type='AugmentPreprocessor', mean=MEAN, std=STD, to_rgb=True,
                channels_last=channels_last, **augment))
            pool = torch.randint(0, 256, shape, dtype=torch.uint8)
        else:
            pool = torch.randn(shape)
            if channels_last:
                pool = pool.contiguous(memory_format=torch.channels_last)
        self.register_buffer('pool', pool, persistent=False)
        self.register_buffer('labels', torch.arange(num_images) % NUM_CLASSES, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """The same views in each step."""
        samples = data['data_samples']
        views = list(self.pool.split(self.num_images))
        if self.augment is not None:
            views = self.augment(dict(inputs=views), training)['inputs']
        if not self.as_list:
            for sample, label in zip(samples, self.labels.split(1)):
                sample.gt_label = label
        return dict(inputs=views if self.as_list else views[0], data_samples=samples)


@HOOKS.register_module()
class BenchmarkClock(Hook):
    """Seconds between two steps, with the device's work done, and what the host does for rows.

    Args:
        first (int): Step at whose start the clock starts.
        last (int): Step at whose start it stops.
    """

    priority = 'VERY_LOW'

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.marks: list[float] = []
        self.row_seconds: list[float] = []
        self.peak_bytes = 0

    def before_train(self, runner: Any) -> None:
        """Time how long the host moves rows."""
        for hook in runner.hooks:
            if type(hook).__name__ == 'InstanceBankHook':
                hook.class_weights.sample = self._timed(hook.class_weights.sample)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Start or stop the clock."""
        if runner.iter not in (self.first, self.last):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.peak_bytes = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        self.marks.append(time.perf_counter())

    def _timed(self, method: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = method(*args, **kwargs)
            self.row_seconds.append(time.perf_counter() - begin)
            return result

        return timed
