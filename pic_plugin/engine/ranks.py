# SPDX-License-Identifier: Apache-2.0
"""Work that several processes do together, and that fails on all of them or on none."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import mmengine.dist as dist
from torch.utils.data import DataLoader

T = TypeVar('T')


def images_of_a_step(loader: DataLoader) -> int:
    """Images that all processes together take in an iteration."""
    return (loader.batch_size or 1) * dist.get_world_size()


def on_all_ranks(work: Callable[[], T]) -> T:
    """Do work that may fail on some processes, and fail on all of them if it does."""
    error: BaseException | None = None
    try:
        result = work()
    except Exception as caught:
        error = caught
    failures = dist.all_gather_object(None if error is None else repr(error))
    if error is not None:
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None:
            raise RuntimeError(f'process {rank} failed, so all processes end: {failure}')
    return result


def agree(value: Any) -> Any:
    """The main process's value, in all processes."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
