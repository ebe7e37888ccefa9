# SPDX-License-Identifier: Apache-2.0
"""Indices that bring their sample's random numbers along, and data sets that use them.

An augmentation whose random numbers are a function of (seed, position in the stream) is the same
whichever process or worker draws it, after whatever others. A run can then stop and resume between
any two steps without loading again what it has trained on, and workers may live on between epochs.
"""
from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info


class StreamIndex(int):
    """Index of an image, and what to seed the random generators with before it is augmented.

    Args:
        index (int): Index into the data set.
        draws (int): 64 bits, a function of (seed, position in the stream).
    """

    draws: int

    def __new__(cls, index: int, draws: int) -> StreamIndex:
        self = super().__new__(cls, index)
        self.draws = draws
        return self

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        # A data loader pickles indices on their way to its workers.
        return StreamIndex, (int(self), self.draws)


def seed_by_index(dataset: Any) -> bool:
    """Let a data set draw each sample's random numbers from the index it is asked for.

    Goes through torch's ``__getitems__`` protocol, by which a loader asks for a batch, so that it
    works for data sets within data sets as well. ``dataset[index]`` is what it was before.

    Args:
        dataset: Changed in place, if it takes attributes.

    Returns:
        bool: Whether it does.
    """
    try:
        dataset.__getitems__ = SeededSamples(dataset)
    except AttributeError:  # range, tuple, list
        return False
    return True


class SeededSamples:
    """Loads a batch of samples, each from random generators of its own.

    Args:
        dataset: Asked for one sample after the other, with plain integers.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> list[Any]:
        """The samples of a batch."""
        if get_worker_info() is not None:
            return [self._sample(index) for index in indices]
        # In the main process the network draws from the same generators.
        with generators_kept():
            return [self._sample(index) for index in indices]

    def _sample(self, index: int) -> Any:
        if isinstance(index, StreamIndex):
            seed_generators(index.draws)
        return self.dataset[int(index)]


def seed_generators(draws: int) -> None:
    """Seed Python's, NumPy's and torch's generators on the CPU from 64 bits."""
    random.seed(draws)
    np.random.seed([draws & 0xFFFFFFFF, draws >> 32])
    # torch.manual_seed would also walk through the GPUs, for each image.
    torch.default_generator.manual_seed(draws)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave Python's, NumPy's and torch's generators on the CPU as they are found."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
