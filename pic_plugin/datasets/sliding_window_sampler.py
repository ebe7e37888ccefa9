# SPDX-License-Identifier: Apache-2.0
"""PIC's data scheduler: a window that slides over an endless stream of the data set."""
from __future__ import annotations

import itertools
import logging
import operator
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from mmpretrain.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from pic_plugin.datasets.permutation import derive_keys, permute
from pic_plugin.datasets.stream_index import StreamIndex, seed_by_index
from pic_plugin.datasets.window_cache import caches_of

CHUNK = 8192  # indices made at a time: 64 KiB arrays stay in the cache
PASS_ORDER, WINDOW_ORDER, SAMPLE_DRAWS = 0, 1, 2  # purposes of the keys

# The defaults of version 0.1.0, whose checkpoints do not say what they were.
OLD_WINDOW_SIZE, OLD_STRIDE = 131072, 16384


def default_window(num_images: int, global_batch: int = 1) -> int:
    """Images of a window, where the config does not say.

    The authors' proportion, a tenth of the data set; where that would be few steps, four of them;
    and never more than half, beyond which an image hardly returns sooner than in plain epochs (the
    paper's Table 4 has those as the worst).

    Args:
        num_images (int): N.
        global_batch (int): Images of a step, of all processes together. Defaults to 1: not known.

    Returns:
        int: From 1 to N.
    """
    return max(1, min(max(num_images // 10, 4 * global_batch), num_images // 2))


def default_stride(window_size: int) -> int:
    """Images by which a window moves, where the config does not say: an eighth of it."""
    return max(1, window_size // 8)


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

    The random numbers of a sample, those of its augmentation, are a function of (seed, position in
    the window stream) too, where the data set is one of mmengine's or ``endless``: see
    ``stream_index.py``.

    Args:
        dataset (Sized): The data set, of N samples.
        window_size (int, optional): Images. One that exceeds N becomes N, and the log warns of one
            that exceeds N / 2. Defaults to None: a tenth of N, at least four global batches (if
            :meth:`set_global_batch` says how many images that is) and at most half of N.
        stride (int, optional): Images by which the window moves, at most ``window_size``; an image
            is visited window_size / stride times in a row of windows. One that exceeds N becomes N.
            Defaults to None: an eighth of the window, at least 1.
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
        endless (bool): For iteration-based loops: ``iter()`` goes on along the window stream for
            ever, so that no data loader ends (mmengine sleeps two seconds whenever one does) and no
            worker has to start again. ``len()`` remains that of an epoch. Defaults to False.

    Attributes:
        seed (int): See above.
        epoch (int): See :meth:`set_epoch`.
        offset (int): See :meth:`start_at`.
        rank (int): This process.
        world_size (int): Number of processes.
        window_size (int): Images, at most N.
        stride (int): Images, at most N.

    Raises:
        TypeError: If ``window_size``, ``stride`` or ``seed`` is not an integer.
        ValueError: If the data set is empty, ``window_size`` or ``stride`` is below 1, or
            ``stride`` exceeds ``window_size``.

    Example:
        >>> train_dataloader = dict(sampler=dict(type='SlidingWindowSampler'), ...)
        >>> train_dataloader = dict(
        ...     sampler=dict(type='SlidingWindowSampler', window_size=131072, stride=16384), ...)
    """

    def __init__(self,
                 dataset: Sized,
                 window_size: int | None = None,
                 stride: int | None = None,
                 seed: int | None = None,
                 reshuffle: bool = True,
                 round_up: bool = True,
                 endless: bool = False) -> None:
        self._given_window = _to_integer_or_none('window_size', window_size)
        self._given_stride = _to_integer_or_none('stride', stride)
        self.num_images = len(dataset)
        if self.num_images < 1:
            raise ValueError('the data set is empty: there is nothing to sample; check its path, '
                             'annotation file and filters.')
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else _to_integer('seed', seed)
        self.reshuffle = reshuffle
        self.round_up = round_up
        self.endless = endless
        self.epoch = 0
        self.offset = 0
        self._set_window(self._given_window, self._given_stride)
        if 2 * self.window_size > self.num_images and self._given_window is not None:
            _warn_of_large_window(self.num_images, self._given_window, self.stride)
        # What is no data set of mmengine's has no pipeline that would draw random numbers.
        self.seeds_samples = (endless or hasattr(dataset, 'get_data_info')) and (
            seed_by_index(dataset))

    def __iter__(self) -> Iterator[int]:
        """Indices into the data set, each in range(N), of this rank in this epoch."""
        positions = self._positions(self.offset)
        if self.endless:
            positions = range(positions.start, 2**62, self.world_size)
        chunks = self._make_chunks(_to_integer('seed', self.seed), positions)
        return itertools.chain.from_iterable(chunks)

    def __len__(self) -> int:
        """Number of samples of this rank in this epoch, from its start to its end."""
        return len(self._positions(0))

    @property
    def num_left(self) -> int:
        """Number of samples of this rank in this epoch, from :attr:`offset` to its end."""
        return len(self._positions(self.offset))

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of another stretch of the stream; takes effect at the next ``iter()``.

        Args:
            epoch (int): Epochs before it, 0 or more. The present one changes nothing.

        Raises:
            TypeError: If ``epoch`` is not an integer.
            ValueError: If ``epoch`` is negative.
        """
        epoch = _to_integer('epoch', epoch)
        if epoch < 0:
            raise ValueError(f'epoch {epoch} is negative: the stream starts with epoch 0.')
        if epoch != self.epoch:
            self.epoch, self.offset = epoch, 0

    def start_at(self, epoch: int, offset: int) -> None:
        """Go on within an epoch; takes effect at the next ``iter()``.

        Args:
            epoch (int): As in :meth:`set_epoch`; 0 for an endless sampler.
            offset (int): Positions of the window stream between the start of the epoch and the
                first one to visit, of all processes together.

        Raises:
            TypeError: If one is not an integer.
            ValueError: If one is negative.
        """
        self.set_epoch(epoch)
        offset = _to_integer('offset', offset)
        if offset < 0:
            raise ValueError(f'offset {offset} is negative: an epoch starts at 0.')
        self.offset = offset

    def set_global_batch(self, num_images: int) -> None:
        """Say how many images a step has, for a window whose size the config leaves open.

        A sampler is built before anything that knows this; to be called before ``iter()``.

        Args:
            num_images (int): Of all processes together, without gradient accumulation.
        """
        self._set_window(self._given_window, self._given_stride, num_images)

    def state_dict(self) -> dict[str, int]:
        """What the stream depends on, to save with a checkpoint.

        Returns:
            dict[str, int]: ``seed``, ``window_size`` and ``stride``.
        """
        return dict(seed=_to_integer('seed', self.seed), window_size=self.window_size,
                    stride=self.stride)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a stream; takes effect at the next ``iter()``.

        Numbers that the config gives keep their meaning. Where it gives none, they are the saved
        ones, or the defaults of version 0.1.0 if none were saved.

        Args:
            state (dict): Of :meth:`state_dict`. Without ``window_size`` and ``stride`` it is of
                version 0.1.0.
        """
        if state.get('seed') is not None:
            self.seed = _to_integer('seed', state['seed'])
        window_size, stride = self._given_window, self._given_stride
        if window_size is None:
            window_size = state.get('window_size', OLD_WINDOW_SIZE)
        if stride is None:
            stride = min(state.get('stride', OLD_STRIDE), window_size)
        self._set_window(window_size, stride)
        saved = state.get('window_size', self.window_size), state.get('stride', self.stride)
        if saved != (self.window_size, self.stride):
            print_log(
                f'SlidingWindowSampler: the checkpoint was saved with window_size {saved[0]} and '
                f'stride {saved[1]}, and this run has {self.window_size} and {self.stride}: from '
                'here on images come in another order than they would have. Leave both out of the '
                'config to go on with the saved ones.',
                logger='current',
                level=logging.WARNING)

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

    def _set_window(self, window_size: int | None, stride: int | None,
                    global_batch: int = 1) -> None:
        if window_size is None:
            window_size = default_window(self.num_images, global_batch)
        if stride is None:
            stride = default_stride(min(window_size, self.num_images))
        _check_window(window_size, stride)
        self.window_size = min(window_size, self.num_images)
        self.stride = min(stride, self.num_images)
        for cache in caches_of(self.dataset):
            cache.follow(self.window_size, -(-self.window_size // self.stride), self.world_size)

    def _positions(self, offset: int) -> range:
        """Positions in the window stream that this rank visits in this epoch from an offset on."""
        start = self.epoch * self.num_images + offset
        length = max(self.num_images - offset, 0)
        # From the offset on, which another number of processes may have left.
        if self.round_up:
            length += -length % self.world_size
        first = start + (self.rank - start) % self.world_size
        return range(first, start + length, self.world_size)

    def _make_chunks(self, seed: int, positions: range) -> Iterator[list[int]]:
        for begin in range(0, len(positions), CHUNK):
            part = positions[begin:begin + CHUNK]
            part_array = np.arange(part.start, part.stop, part.step, dtype=np.uint64)
            images = self._images_at(seed, part_array).tolist()
            if self.seeds_samples:
                draws = derive_keys(seed, SAMPLE_DRAWS, part_array).tolist()
                images = list(map(StreamIndex, images, draws))
            yield images

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


def _to_integer_or_none(name: str, value: Any) -> int | None:
    return None if value is None else _to_integer(name, value)


def _warn_of_large_window(num_images: int, window_size: int, stride: int) -> None:
    used = '' if window_size <= num_images else (
        f' It is used as window_size {num_images}, stride {stride}.')
    print_log(
        f'SlidingWindowSampler: window_size {window_size} is more than half of the {num_images} '
        'images, so that an image hardly returns sooner than once an epoch: nearly plain epochs, '
        "which train instance classes worst (the paper's Table 4). Leave window_size and stride "
        f'out for a window of {default_window(num_images)} images.{used}',
        logger='current',
        level=logging.WARNING)


def _check_window(window_size: int, stride: int) -> None:
    if window_size < 1:
        raise ValueError(f'window_size {window_size} is below 1: choose the number of images to '
                         'visit before the window moves.')
    if stride < 1:
        raise ValueError(f'stride {stride} is below 1: the window would never move on; choose '
                         f'1 <= stride <= window_size ({window_size}).')
    if stride > window_size:
        raise ValueError(f'stride {stride} exceeds window_size {window_size}: images between '
                         'windows would never be seen; choose stride <= window_size.')
