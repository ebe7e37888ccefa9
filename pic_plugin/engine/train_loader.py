# SPDX-License-Identifier: Apache-2.0
"""The data loader of a training: built with what its data set tells, and what it had to skip."""
from __future__ import annotations

import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from pic_plugin.communication import communicator
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.datasets.transforms import LoadImageOrSkip
from pic_plugin.engine.ranks import on_all_ranks
from pic_plugin.engine.runner_private import (
    ranks_draw_differently,
    replace_train_loader,
    train_loader_config,
)
from pic_plugin.wording import counted


def build_train_loader(runner: Runner) -> None:
    """Build the loader before the runner does, and mend what would leave an epoch without a batch.

    Where one of several processes cannot, as without space for its cache, all fail, and none waits
    for it.

    Args:
        runner (Runner): Before ``train()``; its config of a loader is replaced by the loader.
    """
    cfg = train_loader_config(runner)
    if cfg is None:
        return

    def build(**changes: bool) -> DataLoader:
        return runner.build_dataloader(dict(cfg, **changes), seed=runner.seed,
                                       diff_rank_seed=ranks_draw_differently(runner))

    loader = on_all_ranks(build)
    num_images = len(loader.sampler)  # type: ignore[arg-type]
    if loader.drop_last and num_images and not len(loader):
        runner.logger.warning(
            f'drop_last=True would leave nothing of {num_images} images in batches of '
            f'{loader.batch_size}: drop_last=False is used, and each step has all of them.')
        loader = build(drop_last=False)
    replace_train_loader(runner, loader)


def skipped_notice(loader: DataLoader) -> str | None:
    """What was left out of a training because it could not be loaded; all processes ask together.

    Returns:
        str: The numbers of files and of loads, and what to do; None if all could be loaded.
    """
    # Subsets of one data set share their count.
    counts = {id(transform.skipped): transform.skipped
              for dataset in number_instances(loader.dataset).leaves
              for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
              if isinstance(transform, LoadImageOrSkip)}
    loads = torch.tensor([sum(count.value for count in counts.values())])
    files = torch.zeros(1, dtype=torch.int64)
    for count in counts.values():
        files = torch.maximum(files, count.seen.to(torch.int64))
    num_loads = int(communicator().sum(loads, 'logging'))
    num_files = int(communicator().max(files, 'logging').sum())
    if not num_loads:
        return None
    return (f'{counted(num_files, "file")} could not be loaded, {counted(num_loads, "time")} in '
            'all; a warning named each at its first time, and other images took their places. Mend '
            'or remove them: an image that is never loaded is a class that is never trained.')
