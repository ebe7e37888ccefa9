# SPDX-License-Identifier: Apache-2.0
"""Last batches of one image, with which BatchNorm cannot train."""
from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch import nn

from pic_plugin.engine.runner_private import accumulative_counts

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def leave_out_single_images(runner: Runner) -> str | None:
    """Let a training pass over a last batch of one image, if the network has BatchNorm.

    The variance of one value is none, so that torch raises where a layer gets one value for each
    channel, and elsewhere the running statistics become those of one image. The iteration counts,
    so that schedules keep their length.

    Args:
        runner (Runner): About to train; its model's ``train_step`` is replaced.

    Returns:
        str | None: What to tell the user, if there is such a batch.

    Raises:
        ValueError: If there is no other batch, or gradients are accumulated.
    """
    loader = runner.train_dataloader
    batch_size = loader.batch_size or 1
    if batch_size == 1 or loader.drop_last or getattr(loader.sampler, 'endless', False):
        return None
    # The rest of an epoch that was begun with other batches has a last batch of its own.
    lengths = (len(loader.sampler), getattr(loader.sampler, 'num_left', 0))
    length = next((length for length in lengths if length % batch_size == 1), None)
    if length is None or not _has_batch_norm(runner.model):
        return None
    if len(loader.sampler) == 1:
        raise ValueError('the training data set has one image, and nothing to tell it from: check '
                         'data_root and data_prefix.')
    if accumulative_counts(runner.optim_wrapper) > 1:
        # An iteration without a backward pass would put the count of gradients out of step.
        raise ValueError(f'{length} images in batches of {batch_size} leave a last '
                         'batch of one, with which BatchNorm cannot train, and gradients are '
                         'accumulated over batches: set train_dataloader.drop_last=True.')
    train_step = runner.model.train_step
    last: dict[str, Any] = {}

    def train_step_of_several(data: dict[str, Any], optim_wrapper: Any) -> dict[str, Any]:
        if len(data['data_samples']) > 1:
            # Hooks look at the loss of each iteration: after the one left out, at the last.
            last.update(train_step(data, optim_wrapper))
        return dict(last)

    runner.model.train_step = train_step_of_several
    return (f'{length} images in batches of {batch_size} leave a last batch of one, '
            'with which BatchNorm cannot train: that image is left out of its epoch (each time '
            'another one). train_dataloader.drop_last=True leaves out the batch.')


def _has_batch_norm(model: nn.Module) -> bool:
    synchronised = get_world_size() > 1
    return any(isinstance(module, BATCH_NORMS)
               and not (synchronised and isinstance(module, nn.SyncBatchNorm))
               for module in model.modules())
