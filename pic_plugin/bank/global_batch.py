# SPDX-License-Identifier: Apache-2.0
"""The images of one step, in all processes."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from pic_plugin.communication import Communicator


class GlobalBatch(NamedTuple):
    """Instance classes of a step's images, in all processes.

    Attributes:
        ids (np.ndarray): (B,) int64, process after process, each in the order of its batch.
        sizes (list[int]): Images of each process; they add up to B.
        rank (int): This process.
    """

    ids: np.ndarray
    sizes: list[int]
    rank: int = 0

    @property
    def own(self) -> slice:
        """Where the images of this process are."""
        start = sum(self.sizes[:self.rank])
        return slice(start, start + self.sizes[self.rank])

    @property
    def own_ids(self) -> np.ndarray:
        """(B_r,) int64: instance classes of this process's images."""
        return self.ids[self.own]

    @property
    def loss_factor(self) -> float:
        """Factor that turns the mean over processes of mean losses into the mean over all images.

        DistributedDataParallel averages over processes, each with equal weight. 1 where all
        batches are of one size.
        """
        return self.sizes[self.rank] * len(self.sizes) / sum(self.sizes)


def gather_batch(ids: np.ndarray, pending: bool,
                 processes: Communicator) -> tuple[GlobalBatch, bool]:
    """Tell all processes of this one's batch.

    Args:
        ids (np.ndarray): (B_r,) int64 instance classes of this process's batch.
        pending (bool): Whether its rows hold a gradient that the optimizer has not applied.
        processes (Communicator): Those of the training.

    Returns:
        tuple[GlobalBatch, bool]: The batch of all, and whether rows of any hold such a gradient:
        the rows of one may be those of classes that were never trained.
    """
    if processes.size == 1:
        return GlobalBatch(ids, [len(ids)]), pending
    told = processes.gather_rows(torch.tensor([[len(ids), int(pending)]]), [1] * processes.size,
                                 'ids')
    sizes = told[:, 0].tolist()
    everyones = processes.gather_rows(torch.from_numpy(ids), sizes, 'ids')
    return GlobalBatch(everyones.numpy(), sizes, processes.rank), bool(told[:, 1].any())
