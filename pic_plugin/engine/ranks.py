# SPDX-License-Identifier: Apache-2.0
"""What the processes of a training have to tell each other."""
from __future__ import annotations

from typing import Callable, List, Optional, Tuple

import mmengine.dist as dist
import numpy as np
import torch
from torch import Tensor

from pic_plugin.bank import SlotShards
from pic_plugin.collectives import exchange_rows, gather_rows
from pic_plugin.models.global_batch import GlobalBatch


def gather_batch(ids: np.ndarray, pending: bool) -> Tuple[GlobalBatch, bool]:
    """Tell all processes of this one's batch.

    Args:
        ids (np.ndarray): (B_r,) int64 instance classes of this process's batch.
        pending (bool): Whether its rows hold a gradient that the optimizer has not applied.

    Returns:
        tuple[GlobalBatch, bool]: The batch of all, and whether rows of any hold such a gradient:
        the rows of one may be those of classes that were never trained.
    """
    if dist.get_world_size() == 1:
        return GlobalBatch(ids, [len(ids)]), pending
    ones = [1] * dist.get_world_size()
    told = gather_rows(torch.tensor([[len(ids), int(pending)]]), ones, 'ids')
    sizes = told[:, 0].tolist()
    everyones = gather_rows(torch.from_numpy(ids), sizes, 'ids')
    return GlobalBatch(everyones.numpy(), sizes, dist.get_rank()), bool(told[:, 1].any())


def move_rows(rows: Tensor, sent: List[int], received: List[int]) -> Tensor:
    """Rows of class weights and momenta, from process to process: see ``exchange_rows``."""
    return exchange_rows(rows, sent, received, 'rows')


def share_slots() -> SlotShards:
    """Slots of the head shared out among all processes."""
    return SlotShards(dist.get_rank(), dist.get_world_size(), move_rows)


def on_all_ranks(work: Callable[[], None]) -> None:
    """Do work that may fail on some processes, and fail on all of them if it does."""
    error: Optional[BaseException] = None
    try:
        work()
    except Exception as caught:
        error = caught
    failures = dist.all_gather_object(None if error is None else repr(error))
    if error is not None:
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None:
            raise RuntimeError(f'process {rank} could not save or restore: {failure}')
