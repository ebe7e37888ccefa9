# SPDX-License-Identifier: Apache-2.0
"""The training's data loader, built with what only its data set can tell."""
from __future__ import annotations

from mmengine.runner import Runner


def build_train_loader(runner: Runner) -> None:
    """Build the loader before the runner does, and mend what would leave an epoch without a batch.

    Args:
        runner (Runner): Before ``train()``; its config of a loader is replaced by the loader.
    """
    cfg = runner._train_dataloader
    if not isinstance(cfg, dict):
        return
    different = runner._randomness_cfg.get('diff_rank_seed', False)

    def build(**changes: bool) -> object:
        return runner.build_dataloader(dict(cfg, **changes), seed=runner.seed,
                                       diff_rank_seed=different)

    loader = build()
    num_images = len(loader.sampler)
    if loader.drop_last and num_images and not len(loader):
        runner.logger.warning(
            f'drop_last=True would leave nothing of {num_images} images in batches of '
            f'{loader.batch_size}: drop_last=False is used, and each step has all of them.')
        loader = build(drop_last=False)
    runner._train_dataloader = loader
