# SPDX-License-Identifier: Apache-2.0
"""What is checked and said before the first step."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, List, Optional

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from pic_plugin.engine.head_setup import find_model
from pic_plugin.models.augment import AugmentPreprocessor
from pic_plugin.models.augment.host_operations import doubled_operations
from pic_plugin.models.pic_head import PICHead, instance_ids

NUM_PROBES = 64


def check_dataset_ids(dataset: Any, num_instances: Optional[int]) -> int:
    """Make sure that a sample's id is its index in the training data set.

    Args:
        dataset: The training data set.
        num_instances (int, optional): N of the config.

    Returns:
        int: N.

    Raises:
        ValueError: If the data set is empty, is larger than N, or gives other ids: those of
            wrappers that join or repeat data sets collide.
    """
    length = len(dataset)
    if length == 0:
        raise ValueError('the training data set is empty: check data_root, data_prefix and the '
                         'extensions of the images.')
    if num_instances is not None and num_instances < length:
        raise ValueError(f'num_instances={num_instances}, but the training data set has {length} '
                         'images: set num_instances to that, or leave it out.')
    if hasattr(dataset, 'get_data_info'):
        # Ends of joined data sets are where ids jump; evenly spread probes find repeated ones.
        ends = np.cumsum([len(part) for part in getattr(dataset, 'datasets', [])])
        probes = {*np.linspace(0, length - 1, NUM_PROBES).astype(int).tolist(),
                  *(int(index) for end in ends for index in (end - 1, end) if index < length)}
        for index in sorted(probes):
            sample_idx = dataset.get_data_info(index).get('sample_idx')
            if sample_idx != index:
                raise ValueError(
                    f'{type(dataset).__name__} gives image {index} the id {sample_idx}: ids of '
                    'different images collide, and would be trained as one class. Train on one '
                    'data set that lists all images (for folders: their common parent as '
                    'data_root), without ConcatDataset, RepeatDataset or the like.')
    return num_instances or length


def check_first_batch(data_batch: Any, head: PICHead, model: nn.Module) -> None:
    """Find the usual mistakes in a pipeline before they become obscure errors.

    Raises:
        ValueError: If the batch does not hold views (B, 3, H, W) and B samples with ids.
    """
    if not isinstance(data_batch, dict) or not {'inputs', 'data_samples'} <= set(data_batch):
        raise ValueError(
            f"a batch must be a dict of 'inputs' and 'data_samples', not "
            f'{sorted(data_batch) if isinstance(data_batch, dict) else type(data_batch).__name__}: '
            "end the pipeline with dict(type='PackInputs', meta_keys=('sample_idx', )) and set "
            "collate_fn=dict(type='default_collate').")
    samples = data_batch['data_samples']
    ids = instance_ids(samples)
    inputs = data_batch['inputs']
    views = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    for i, view in enumerate(views):
        if not torch.is_tensor(view) or view.dim() != 4 or len(view) != len(samples):
            seen = tuple(view.shape) if torch.is_tensor(view) else type(view).__name__
            raise ValueError(
                f'view {i} of the first batch is {seen}, expected ({len(samples)}, channels, '
                "height, width): set collate_fn=dict(type='default_collate'), give all images of a "
                'view one size (RandomResizedCrop), and let MultiView alone make several views.')
    check_channels(views, model)
    num_update_views = getattr(model, 'num_update_views', 1)
    if num_update_views > len(views):
        raise ValueError(f'num_update_views={num_update_views}, but the pipeline makes '
                         f'{len(views)} views: lower it, or add views with MultiView.')
    head.bank.check_ids(ids)


def loader_notices(runner: Runner) -> List[str]:
    """What about the data loader will surprise."""
    notices = augmentation_notices(runner)
    loader = runner.train_dataloader
    if getattr(loader, 'persistent_workers', False):
        notices.append('persistent_workers=True: their random numbers are not saved, so a resumed '
                       'run draws other augmentations than one that was not interrupted.')
    length, world_size = len(loader.dataset), get_world_size()
    sizes = (length // world_size, -(-length // world_size))  # images of processes
    batch_size = loader.batch_size or 1
    batches = {size // batch_size if loader.drop_last else -(-size // batch_size) for size in sizes}
    if len(batches) > 1 and getattr(loader.sampler, 'round_up', True) is False:
        notices.append(f'round_up=False: {length} images do not divide among {world_size} '
                       'processes, and those with fewer batches make the others wait for ever. '
                       'Set round_up=True.')
    return notices


def augmentation_notices(runner: Runner) -> List[str]:
    """Whether host and device both augment."""
    preprocessor = getattr(find_model(runner.model), 'data_preprocessor', None)
    if not isinstance(preprocessor, AugmentPreprocessor):
        return []
    doubled = doubled_operations(runner.train_dataloader.dataset, preprocessor.recipes)
    if not doubled:
        return []
    return [f'{", ".join(doubled)}: the pipeline does it on the host, and AugmentPreprocessor on '
            'the device once more, so that images are changed twice. Take it out of '
            'train_dataloader.dataset.pipeline, or set it to None or 0 in '
            'model.data_preprocessor.views.']


def check_channels(views: Sequence[torch.Tensor], model: nn.Module) -> None:
    """Make sure that the backbone takes images of as many channels as the loader delivers.

    Raises:
        ValueError: If its first convolution takes another number.
    """
    backbone = getattr(model, 'backbone', None) or nn.Module()
    first = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.groups != 1:
        return
    for i, view in enumerate(views):
        if view.shape[1] != first.in_channels:
            raise ValueError(
                f'view {i} of the first batch has {view.shape[1]} channels, and the first '
                f'convolution of {type(backbone).__name__} takes {first.in_channels}: set '
                f'model.backbone.in_channels={view.shape[1]} (and mean and std of '
                'model.data_preprocessor to as many numbers), or channels='
                f'{first.in_channels} of DecodeRandomCrop.')


def checkpoint_notices(runner: Runner) -> List[str]:
    """What about the saving of checkpoints will surprise."""
    notices = []
    for hook in runner.hooks:
        if getattr(hook, 'max_keep_ckpts', -1) == 1:
            notices.append(
                'max_keep_ckpts=1: mmengine deletes the old checkpoint before it writes the new '
                'one, so a crash in between loses both. Choose max_keep_ckpts=2 or more.')
        if isinstance(hook, CheckpointHook) and not hook.by_epoch and isinstance(
                runner.train_loop, EpochBasedTrainLoop):
            notices.append(
                'CheckpointHook(by_epoch=False) saves within epochs, and mmengine resumes such a '
                'checkpoint at the start of the epoch: its images are trained on again. '
                'by_epoch=True, or an IterBasedTrainLoop, continues exactly.')
    return notices


def schedule_notices(runner: Runner, meta: dict) -> List[str]:
    """Whether saved schedulers, which count iterations, still fit a run that is resumed.

    Args:
        runner (Runner): Of the run that resumes.
        meta (dict): Of the checkpoint: how many epochs and iterations it has seen.
    """
    epochs, iterations = meta.get('epoch', 0), meta.get('iter', 0)
    num_batches = len(runner.train_dataloader)
    if not epochs or iterations == epochs * num_batches or not isinstance(
            runner.train_loop, EpochBasedTrainLoop):
        return []
    return [f'An epoch had {iterations / epochs:.0f} iterations and has {num_batches} now. '
            'Learning-rate schedules go on as they were planned, by iterations, and so end before '
            'or after the training does. To plan them anew, start from the network: '
            'load_from=CHECKPOINT and resume=False, which begins new class weights.']


def describe_plan(runner: Runner, head: PICHead) -> str:
    """What the run is about to do, and what memory the class weights take."""
    bank, loader = head.bank, runner.train_dataloader
    sampler = loader.sampler
    num_active = head.num_instances if bank.active_set is None else bank.active_set.num_negatives
    device = 4 * head.weight.numel()
    # Stored rows hold weight, momentum and a step; pages of rows never visited are not taken.
    host = 0
    if bank.store is not None:
        host = bank.store.num_bytes
    elif not bank.is_full:
        host = -(-bank.num_instances // bank.world_size) * (8 * head.feat_dim + 8)
    window = getattr(sampler, 'window_size', None)
    lines = [
        f'PIC: {head.num_instances:,} instances, soft-max over '
        + ('all of them.' if bank.is_full else f'the {num_active:,} sampled most recently, '
           f'{"with" if bank.correct else "WITHOUT"} weight-update correction.'),
        f'Scheduler: {type(sampler).__name__}'
        + ('' if window is None else f', window {window:,} images, stride {sampler.stride:,}')
        + f'; batch {loader.batch_size} on each of {get_world_size()} processes.',
        f'Class weights: {_megabytes(device)} on {head.weight.device} (gradient and momentum: as '
        'much again each), ' + (f'1 / {bank.shards.num_ranks} of the active ones; '
                                if bank.is_sharded else '')
        + f'up to {_megabytes(host)} in {_place(head)} on the host for '
        'each process, as rows are visited.',
        f'An untrained soft-max over all active classes has a loss of about '
        f'{np.log(max(num_active or 1, 1)):.2f}.'
    ]
    return '\n'.join(lines)


def _place(head: PICHead) -> str:
    if head.storage['type'] == 'memory':
        return 'memory'
    return f'the sparse file {head.bank.path}'


def _megabytes(num_bytes: float) -> str:
    return f'{num_bytes / 1e6:,.1f} MB'
