# SPDX-License-Identifier: Apache-2.0
"""The training's data loader, built with what only its data set can tell."""
from __future__ import annotations

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from pic_plugin.engine.runner_private import (
    ranks_draw_differently,
    replace_train_loader,
    train_loader_config,
)


def build_train_loader(runner: Runner) -> None:
    """Build the loader before the runner does, and mend what would leave an epoch without a batch.

    Args:
        runner (Runner): Before ``train()``; its config of a loader is replaced by the loader.
    """
    cfg = train_loader_config(runner)
    if cfg is None:
        return

    def build(**changes: bool) -> DataLoader:
        return runner.build_dataloader(dict(cfg, **changes), seed=runner.seed,
                                       diff_rank_seed=ranks_draw_differently(runner))

    loader = build()
    num_images = len(loader.sampler)  # type: ignore[arg-type]
    if loader.drop_last and num_images and not len(loader):
        runner.logger.warning(
            f'drop_last=True would leave nothing of {num_images} images in batches of '
            f'{loader.batch_size}: drop_last=False is used, and each step has all of them.')
        loader = build(drop_last=False)
    replace_train_loader(runner, loader)
