# SPDX-License-Identifier: Apache-2.0
"""The batch of all processes together."""
from __future__ import annotations

from typing import List, NamedTuple

import numpy as np


class GlobalBatch(NamedTuple):
    """Instance classes of a step's images, in all processes.

    Attributes:
        ids (np.ndarray): (B,) int64, process after process, each in the order of its batch.
        sizes (list[int]): Images of each process; they add up to B.
        rank (int): This process.
    """

    ids: np.ndarray
    sizes: List[int]
    rank: int = 0

    @property
    def own(self) -> slice:
        """Where the images of this process are."""
        start = sum(self.sizes[:self.rank])
        return slice(start, start + self.sizes[self.rank])

    @property
    def loss_factor(self) -> float:
        """What makes the mean over processes of mean losses the mean over all images.

        DistributedDataParallel averages over processes, each with equal weight. 1 where all
        batches are of one size.
        """
        return self.sizes[self.rank] * len(self.sizes) / sum(self.sizes)
