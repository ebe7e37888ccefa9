# SPDX-License-Identifier: Apache-2.0
"""PIC's data scheduler: a window that slides over an endless stream of the data set."""
from __future__ import annotations

import itertools
import logging
import operator
from typing import Any, Iterator, List, Optional, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from mmpretrain.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from pic_plugin.datasets.permutation import derive_keys, permute

CHUNK = 8192  # indices made at a time: 64 KiB arrays stay in the cache
PASS_ORDER, WINDOW_ORDER = 0, 1  # purposes of the keys


@DATA_SAMPLERS.register_module()
class SlidingWindowSampler(Sampler[int]):
    """Visits the images of a window again and again while the window slides over the data set.

    The sliding window data scheduler of the PIC paper (arXiv 2006.14618, its Tables 3 and 4).

    - The *image stream* is the data set of N images in random order, over and over; each time is
      a pass.
    - *Window* k covers positions [k * stride, k * stride + window_size) of the image stream.
    - The *window stream* lists the members of window 0 in random order, then those of window 1,
      and so on. Epoch e is its stretch [e * N, (e + 1) * N), so an epoch is N samples as with any
      sampler, although it holds only some of the images, each several times.

    Position q of the window stream goes to rank q mod world size. What a rank gets is a function
    of the seed, the epoch, the rank and the world size alone: resuming needs only
    :meth:`set_epoch` (and :attr:`seed`, which may be set at any time and takes effect at the next
    ``iter()``), and any number of ranks shares out the same stream. No array of N is ever made.

    A window inside one pass holds distinct images. With ``reshuffle=True`` a window that straddles
    two passes takes the end of one and the start of the next, and may hold an image twice.

    Args:
        dataset (Sized): The data set, of N samples.
        window_size (int): Images. One that exceeds N becomes N, with a logged notice.
            Defaults to 131072.
        stride (int): Images by which the window moves, at most ``window_size``; an image is
            visited window_size / stride times in a row of windows. One that exceeds N becomes N.
            Defaults to 16384.
        seed (int, optional): The same in all processes. Defaults to None: a random one, shared
            between the processes.
        reshuffle (bool): Draw a new order for each pass; False repeats one order for ever.
            Defaults to True.
        round_up (bool): Give every rank ceil(N / world size) samples. For that, an epoch reads on
            past its end by fewer than world size positions, and the next epoch has them again.
            With False no position is repeated, and where the world size does not divide N the
            number of samples of a rank may be one less in some epochs: a rank may then have fewer
            batches than another, for which DistributedDataParallel waits for ever.
            Defaults to True.

    Attributes:
        seed (int): See above.
        epoch (int): See :meth:`set_epoch`.
        rank (int): This process.
        world_size (int): Number of processes.
        window_size (int): Images, at most N.
        stride (int): Images, at most N.

    Raises:
        TypeError: If ``window_size``, ``stride`` or ``seed`` is not an integer.
        ValueError: If the data set is empty, ``window_size`` or ``stride`` is below 1, or
            ``stride`` exceeds ``window_size``.

    Example:
        >>> train_dataloader = dict(
        ...     sampler=dict(type='SlidingWindowSampler', window_size=131072, stride=16384), ...)
    """

    def __init__(self,
                 dataset: Sized,
                 window_size: int = 131072,
                 stride: int = 16384,
                 seed: Optional[int] = None,
                 reshuffle: bool = True,
                 round_up: bool = True) -> None:
        window_size = _to_integer('window_size', window_size)
        stride = _to_integer('stride', stride)
        num_images = len(dataset)
        _check_window(num_images, window_size, stride)
        if window_size > num_images:
            print_log(
                f'SlidingWindowSampler: window_size {window_size} exceeds the {num_images} images '
                f'of the data set; using window_size {num_images}, '
                f'stride {min(stride, num_images)}.',
                logger='current',
                level=logging.INFO)
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.num_images = num_images
        self.window_size = min(window_size, num_images)
        self.stride = min(stride, num_images)
        self.seed = sync_random_seed() if seed is None else _to_integer('seed', seed)
        self.reshuffle = reshuffle
        self.round_up = round_up
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        """Indices into the data set, each in range(N), of this rank in this epoch."""
        chunks = self._make_chunks(_to_integer('seed', self.seed), self._positions())
        return itertools.chain.from_iterable(chunks)

    def __len__(self) -> int:
        """Number of samples of this rank in this epoch."""
        return len(self._positions())

    def set_epoch(self, epoch: int) -> None:
        """Move to another stretch of the stream; takes effect at the next ``iter()``.

        Args:
            epoch (int): Epochs before it, 0 or more.

        Raises:
            TypeError: If ``epoch`` is not an integer.
            ValueError: If ``epoch`` is negative.
        """
        epoch = _to_integer('epoch', epoch)
        if epoch < 0:
            raise ValueError(f'epoch {epoch} is negative: the stream starts with epoch 0.')
        self.epoch = epoch

    def ids_at(self, start: int, stop: int) -> np.ndarray:
        """A stretch of the window stream, of all processes: what is visited there.

        In epoch e, batch b of size B on each of W processes is the stretch of B * W from
        e * N + b * B * W on.

        Args:
            start (int): First position, 0 or more.
            stop (int): Position after the last one.

        Returns:
            np.ndarray: (stop - start,) int64 indices into the data set.
        """
        positions = np.arange(start, stop, dtype=np.uint64)
        return self._images_at(_to_integer('seed', self.seed), positions).astype(np.int64)

    def _positions(self) -> range:
        """Positions in the window stream that this rank visits in this epoch."""
        start = self.epoch * self.num_images
        length = self.num_images
        if self.round_up:
            length += -length % self.world_size
        first = start + (self.rank - start) % self.world_size
        return range(first, start + length, self.world_size)

    def _make_chunks(self, seed: int, positions: range) -> Iterator[List[int]]:
        for begin in range(0, len(positions), CHUNK):
            part = positions[begin:begin + CHUNK]
            part_array = np.arange(part.start, part.stop, part.step, dtype=np.uint64)
            yield self._images_at(seed, part_array).tolist()

    def _images_at(self, seed: int, positions: np.ndarray) -> np.ndarray:
        """Indices of the images at positions of the window stream, both (M,) uint64."""
        window_size, num_images = np.uint64(self.window_size), np.uint64(self.num_images)
        window = positions // window_size
        offset = permute(positions - window * window_size, self.window_size,
                         derive_keys(seed, WINDOW_ORDER, window))
        image_position = window * np.uint64(self.stride) + offset
        pass_number = image_position // num_images
        offset = image_position - pass_number * num_images
        if not self.reshuffle:
            pass_number = np.zeros_like(pass_number)
        return permute(offset, self.num_images, derive_keys(seed, PASS_ORDER, pass_number))


def _to_integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, '__index__'):
        raise TypeError(f'{name} must be an integer, got {value!r} of {type(value).__name__}.')
    return operator.index(value)


def _check_window(num_images: int, window_size: int, stride: int) -> None:
    if num_images < 1:
        raise ValueError('the data set is empty: there is nothing to sample; check its path, '
                         'annotation file and filters.')
    if window_size < 1:
        raise ValueError(f'window_size {window_size} is below 1: choose the number of images to '
                         'visit before the window moves.')
    if stride < 1:
        raise ValueError(f'stride {stride} is below 1: the window would never move on; choose '
                         f'1 <= stride <= window_size ({window_size}).')
    if stride > window_size:
        raise ValueError(f'stride {stride} exceeds window_size {window_size}: images between '
                         'windows would never be seen; choose stride <= window_size.')
