# SPDX-License-Identifier: Apache-2.0
"""Which images each step visits, how long each was away, and the learning rate: known beforehand.

The order of visits does not depend on the network, so the set of the K most recent classes and the
absence of each image are tables that are made once, in numpy, and looked up on the device.
"""
from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from pic_plugin.datasets.permutation import derive_keys, permute

PASS_ORDER, WINDOW_ORDER = 0, 1  # purposes of the keys, as in SlidingWindowSampler


class Visits(NamedTuple):
    """What each step visits.

    Attributes:
        ids (np.ndarray): (S, B) int64 images.
        absence (np.ndarray): (S, B) int64 steps since the image's last visit; S or more: never.
        is_first (np.ndarray): (S, B) bool, False where an earlier place of the batch has the image.
    """

    ids: np.ndarray
    absence: np.ndarray
    is_first: np.ndarray


def window_stream(count: int, num_images: int, window_size: int, stride: int,
                  seed: int) -> np.ndarray:
    """First ``count`` images of SlidingWindowSampler's stream, (count,) int64.

    ``window_size=0`` gives plain shuffled epochs.
    """
    if not window_size:
        window_size = stride = num_images
    positions = np.arange(count, dtype=np.uint64)
    window = positions // np.uint64(window_size)
    offset = permute(positions - window * np.uint64(window_size), window_size,
                     derive_keys(seed, WINDOW_ORDER, window))
    image_position = window * np.uint64(stride) + offset
    pass_number = image_position // np.uint64(num_images)
    offset = image_position - pass_number * np.uint64(num_images)
    return permute(offset, num_images, derive_keys(seed, PASS_ORDER, pass_number)).astype(np.int64)


@functools.lru_cache(maxsize=64)
def visits(steps: int, step_images: int, num_images: int, window_size: int, stride: int,
           seed: int) -> Visits:
    """Order of a training."""
    ids = window_stream(steps * step_images, num_images, window_size, stride, seed)
    # In the order of (image, position) each visit stands behind the visit before it.
    order = np.argsort(ids, kind='stable')
    step = np.arange(len(ids)) // step_images
    absence = np.full(len(ids), 2 * steps + 1, dtype=np.int64)
    again = ids[order][1:] == ids[order][:-1]
    gaps = step[order][1:] - step[order][:-1]
    absence[order[1:][again]] = gaps[again]
    shape = (steps, step_images)
    return Visits(ids.reshape(shape), absence.reshape(shape), (absence > 0).reshape(shape))


def repeat_absence(visit: Visits) -> np.ndarray:
    """(S, B) int64: :attr:`Visits.absence`, where a second place of a batch has the first's."""
    absence = visit.absence.copy()
    for step, place in zip(*np.nonzero(absence == 0)):
        first = np.flatnonzero(visit.ids[step] == visit.ids[step, place])[0]
        absence[step, place] = absence[step, first]
    return absence


@functools.lru_cache(maxsize=64)
def recency_thresholds(steps: int, step_images: int, num_images: int, window_size: int,
                       stride: int, seed: int, num_negatives: int) -> np.ndarray:
    """Position from which on a class's last visit makes it one of the K most recent, at each step.

    Returns:
        np.ndarray: (S,) int64. The softmax of step s runs over the classes whose last visit, the
        step's own included, has at least this position in the stream.
    """
    ids = visits(steps, step_images, num_images, window_size, stride, seed).ids.reshape(-1).tolist()
    last = [-1] * num_images
    is_last = bytearray(len(ids))
    oldest, count, thresholds = 0, 0, []
    for position, image in enumerate(ids):
        before = last[image]
        if before < oldest:
            count += 1
        if before >= 0:
            is_last[before] = 0
        last[image], is_last[position] = position, 1
        while count > num_negatives:
            count -= is_last[oldest]
            oldest += 1
        if (position + 1) % step_images == 0:
            thresholds.append(oldest)
    return np.array(thresholds, dtype=np.int64)


def visit_numbers(absence: np.ndarray, ids: np.ndarray, away: float) -> np.ndarray:
    """(S, B) int64: 1 for the visit on which an image returns, 2 for the next, and so on.

    Args:
        absence (np.ndarray): (S, B) int64, see :class:`Visits`.
        ids (np.ndarray): (S, B) int64.
        away (float): Steps of absence beyond which an image has returned.
    """
    current: dict = {}
    numbers = []
    for image, gap in zip(ids.reshape(-1).tolist(), absence.reshape(-1).tolist()):
        current[image] = 1 if gap > away else current.get(image, 0) + (gap > 0)
        numbers.append(current[image])
    return np.array(numbers, dtype=np.int64).reshape(ids.shape)


def learning_rates(steps: int, end: float, warm_share: float = 0.05) -> np.ndarray:
    """(S,) float32 factors: linear warm-up, then a cosine from 1 to ``end``."""
    warm = max(1, round(steps * warm_share))
    factors = [(step + 1) / warm if step < warm else end + (1 - end) * 0.5 *
               (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
               for step in range(steps)]
    return np.array(factors, dtype=np.float32)


def returned_after(window_size: int, step_images: int, num_images: int,
                   windows: float = 2.0) -> float:
    """Steps of absence beyond which an image has been away, not only between two windows.

    Two visits in neighbouring windows lie at most two windows apart, so a longer absence means
    that the window had left the image. With plain epochs each visit comes after an absence.
    """
    return windows * window_size / step_images if window_size else 1.0
