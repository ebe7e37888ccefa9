# SPDX-License-Identifier: Apache-2.0
"""Finds the head and what trains it, and makes them fit the data set, before the first step."""
from __future__ import annotations

from pathlib import Path

import mmengine.dist as dist
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from pic_plugin.bank import Refresh, SampledClassWeights, Storage, no_correction_for
from pic_plugin.datasets.sliding_window_sampler import SlidingWindowSampler
from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.engine.runner_private import accumulative_counts, find_wrapper
from pic_plugin.models.pic_head import PICHead


def find_head(model: nn.Module, user: str = 'InstanceBankHook') -> PICHead:
    """The model's PICHead, for what is named in the message.

    Raises:
        ValueError: If there is not exactly one.
    """
    heads = [module for module in model.modules() if isinstance(module, PICHead)]
    if len(heads) != 1:
        raise ValueError(f'{user} needs a model with one PICHead, this one has {len(heads)}: use '
                         'it with model=dict(type="PIC", head=dict(type="PICHead"), ...) only.')
    return heads[0]


def resize_head(head: PICHead, num_instances: int, pending_rows: int, wrapped: bool) -> None:
    """Give the head's parameter the number of rows that the data set asks for.

    Raises:
        ValueError: If DistributedDataParallel has fixed a number that does not do.
    """
    head.num_instances = num_instances
    if head.is_full:
        pending_rows = 0
    # Of a sharded head DistributedDataParallel knows nothing.
    if not wrapped or head.slots.is_sharded:
        head.pending_rows = max(pending_rows, head.pending_rows)
        num_rows = head.slots.num_rows
        if len(head.weight) != num_rows:
            # The same Parameter object, since the optimizer holds it already.
            head.weight.data = head.weight.data.new_zeros(num_rows, head.feat_dim)
    elif len(head.weight) < head.num_slots:
        raise ValueError(
            f'the head was wrapped for distributed training with {len(head.weight)} rows and needs '
            f'{head.num_slots}: give PICHead(num_instances={num_instances}), the length of the '
            'training data set, in the config.')
    elif pending_rows > head.pending_rows:
        raise ValueError(
            f'gradient accumulation with several processes needs PICHead(pending_rows='
            f'{pending_rows}) or more, (accumulative_counts - 1) * global batch size.')


def sample_class_weights(runner: Runner, head: PICHead,
                         optimizer: Optimizer) -> SampledClassWeights:
    """Make what keeps the head's parameter, its optimizer and the stored rows in step.

    Raises:
        ValueError: If no correction is exact for the optimizer, and one is needed.
    """
    path = None
    if head.storage['type'] == 'mmap':
        base = head.storage.get('path') or f'{runner.work_dir}/class_weights.bank'
        path = Path(f'{base}-{dist.get_rank()}of{dist.get_world_size()}')
    assert head.num_instances is not None, 'resize_head has set it'
    class_weights = SampledClassWeights(
        head.weight,
        optimizer,
        head.num_instances,
        head.num_negatives,
        seed=runner.seed,
        correction=None if head.correct_weights else no_correction_for(optimizer, head.weight),
        storage=Storage(path, head.storage.get('dtype', 'float32')),
        slots=head.slots)
    class_weights.refresh_with(Refresh(head.refresh_returning))
    return class_weights


def absence(runner: Runner, head: PICHead) -> int:
    """Optimizer steps of absence beyond which an image was away; the window has to be known."""
    if head.returning_after is not None:
        return head.returning_after
    loader = runner.train_dataloader
    sampler = loader.sampler
    if not isinstance(sampler, SlidingWindowSampler) or sampler.window_size == sampler.num_images:
        return 0
    step_images = (images_of_a_step(loader)
                   * accumulative_counts(find_wrapper(runner, head.weight)))
    return -(-2 * sampler.window_size // step_images)
