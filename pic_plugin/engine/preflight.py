# SPDX-License-Identifier: Apache-2.0
"""Checks before the first step, and the plan that a training prints there."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmpretrain.utils import get_ori_model
from torch import nn

from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.datasets.plan import describe_data
from pic_plugin.datasets.sliding_window_sampler import SlidingWindowSampler
from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.engine.schedule_checks import scheduled_rates
from pic_plugin.models.augment import AugmentPreprocessor
from pic_plugin.models.augment.host_operations import doubled_operations
from pic_plugin.models.pic_head import PICHead, instance_ids

LOADS = 5  # of an image whose id is another one's, before it is held against the data set


def check_runner(runner: Any, hook: Hook) -> None:
    """Refuse a runner that could train, and not go on from its own checkpoints.

    Raises:
        ValueError: If it is not mmengine's Runner, or has two hooks of the kind.
    """
    name = type(hook).__name__
    if not isinstance(runner, Runner):
        raise ValueError(
            f"{name} works with mmengine's Runner, and a {type(runner).__name__} does not resume "
            'class weights: leave runner_type and strategy out of the config.')
    if sum(isinstance(one, type(hook)) for one in runner.hooks) > 1:
        raise ValueError(f'custom_hooks has more than one {name}: leave one.')


def check_dataset_ids(dataset: Any, num_instances: int | None) -> int:
    """Make sure that each image of the training data set has one id, and no two the same.

    Data sets that join or repeat others are numbered through.

    Returns:
        int: N.

    Raises:
        ValueError: If the data set is empty, has more images than N, or gives ids that may collide.
    """
    found = number_instances(dataset).num_instances
    if num_instances is not None and num_instances < found:
        raise ValueError(f'num_instances={num_instances}, but the training data set has {found} '
                         'images: set num_instances to that, or leave it out.')
    return num_instances or found


def check_batches(loader: Any) -> None:
    """Refuse a loader without a batch, of which mmengine would train nothing in silence.

    Raises:
        ValueError: If ``drop_last`` leaves nothing.
    """
    # An endless sampler fills batches across the ends of epochs.
    if not len(loader) and not getattr(loader.sampler, 'endless', False):
        raise ValueError(
            f'drop_last=True leaves nothing of {len(loader.dataset)} images in batches of '
            f'{loader.batch_size}: set train_dataloader.drop_last=False, or a smaller batch_size. '
            '(The command `train` does so by itself.)')


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


def check_drawn_ids(runner: Runner, epoch: int, batch: int, ids: np.ndarray) -> None:
    """Make sure that samples of the first batch have the ids of the images that were drawn.

    A data set that nothing is known of may give the same id to several images, which would be
    trained as one class. One that takes another image in the place of a broken one does not.

    Args:
        runner (Runner): With a SlidingWindowSampler; else nothing is checked.
        epoch (int): By the sampler's count.
        batch (int): In that epoch.
        ids (np.ndarray): (B,) int64, of this process's samples.

    Raises:
        ValueError: If an image has the id of another one whenever it is loaded.
    """
    loader = runner.train_dataloader
    sampler, size = loader.sampler, images_of_a_step(loader)
    if not isinstance(sampler, SlidingWindowSampler) or sampler.num_images < 2 * LOADS:
        return
    start = epoch * sampler.num_images + batch * size
    drawn = sampler.ids_at(start, start + size)[
        (get_rank() - start) % get_world_size()::get_world_size()][:len(ids)]
    known = number_instances(loader.dataset).ids
    expected = drawn if known is None else known[drawn]
    for place in np.flatnonzero(expected != ids[:len(expected)])[:LOADS].tolist():
        index, given = int(drawn[place]), int(ids[place])
        # A stand-in for a broken image is another one each time.
        if all(_id_of(loader.dataset[index]) == given for _ in range(LOADS)):
            raise ValueError(
                f'{type(loader.dataset).__name__} gives image {index} the id {given}, which is '
                f'that of another image: they would be trained as one class. Let sample_idx be the '
                'place of the image in the data set. To join or repeat data sets use ConcatDataset '
                'and RepeatDataset, whose images get unique ids.')


def _id_of(sample: Any) -> Any:
    return instance_ids([sample['data_samples']])[0] if isinstance(sample, dict) else None


def loader_notices(runner: Runner) -> list[str]:
    """What about the data loader will surprise.

    Raises:
        ValueError: If it has no batch.
    """
    check_batches(runner.train_dataloader)
    notices = augmentation_notices(runner)
    loader = runner.train_dataloader
    seeds_samples = getattr(loader.sampler, 'seeds_samples', False)
    if getattr(loader, 'persistent_workers', False) and not seeds_samples:
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
    if isinstance(runner.train_loop, IterBasedTrainLoop) and (
            getattr(loader.sampler, 'endless', None) is False):
        notices.append(f'In an iteration-based loop mmengine waits for two seconds whenever the '
                       f'data loader ends, every {len(loader)} iterations: set '
                       'train_dataloader.sampler.endless=True.')
    return notices


def augmentation_notices(runner: Runner) -> list[str]:
    """Whether host and device both augment."""
    preprocessor = getattr(get_ori_model(runner.model), 'data_preprocessor', None)
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


def checkpoint_notices(runner: Runner) -> list[str]:
    """What about the saving of checkpoints will surprise."""
    notices = []
    seeds_samples = getattr(runner.train_dataloader.sampler, 'seeds_samples', False)
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            notices.append(
                'EMAHook averages the network, and that is what is evaluated. Class weights have '
                'no averages: their places in the softmax change hands. In its checkpoints '
                '`state_dict` is the averaged network; tools of this package take the trained '
                'one, and say so.')
        if getattr(hook, 'max_keep_ckpts', -1) == 1:
            notices.append(
                'max_keep_ckpts=1: mmengine deletes the old checkpoint before it writes the new '
                'one, so a crash in between loses both. Choose max_keep_ckpts=2 or more.')
        if isinstance(hook, CheckpointHook) and not hook.by_epoch and not seeds_samples and (
                isinstance(runner.train_loop, EpochBasedTrainLoop)):
            notices.append(
                'CheckpointHook(by_epoch=False) saves within epochs, and mmengine resumes such a '
                'checkpoint at the start of the epoch: its images are trained on again. '
                'by_epoch=True, an IterBasedTrainLoop or a SlidingWindowSampler continues '
                'exactly.')
    return notices


def describe_plan(runner: Runner, head: PICHead) -> str:
    """What the run is about to do, and what memory the class weights take."""
    bank, loader = head.bank, runner.train_dataloader
    sampler = loader.sampler
    num_active = head.num_instances if bank.active_set is None else bank.active_set.num_negatives
    device = 4 * head.weight.numel()
    # Pages of rows never visited are not taken.
    host = 0 if bank.store is None else bank.store.num_bytes
    if bank.store is None and not bank.is_full:
        # What the optimizer keeps for a row is not known yet: a weight, one state and a step.
        host = -(-bank.num_instances // bank.slots.processes.size) * (8 * head.feat_dim + 8)
    window = getattr(sampler, 'window_size', None)
    global_batch = images_of_a_step(loader)
    rates = scheduled_rates(runner)
    why_all = '' if head.num_negatives is None else (
        f' (num_negatives={head.num_negatives:,} is no fewer)')
    lines = [
        *describe_data(loader.dataset),
        f'PIC: {head.num_instances:,} instances, softmax over '
        + (f'all of them{why_all}.' if bank.is_full else
           f'the {num_active:,} sampled most recently, '
           f'{"with" if bank.correction.corrects else "WITHOUT"} weight-update '
           'correction.'),
        f'Scheduler: {type(sampler).__name__}'
        + ('' if window is None else f', window {window:,} images, stride {sampler.stride:,}')
        + f'; batch {loader.batch_size} on '
        + ('one process' if get_world_size() == 1 else f'each of {get_world_size()} processes')
        + ('.' if global_batch <= len(loader.dataset) else
           f', more than the {len(loader.dataset):,} images: a step has all of them.'),
        f'Class weights: {_megabytes(device)} on {head.weight.device} (gradient and momentum: as '
        'much again each), ' + (f'1 / {bank.slots.num_shards} of the active ones; '
                                if bank.slots.is_sharded else '')
        + f'up to {_megabytes(host)} in {_place(head)} on the host for '
        'each process, as rows are visited.',
        *([] if rates is None else [
            f'Learning rate: {rates.peak:.3g} at its highest, {rates.end:.3g} at the end of the '
            'run.']),
        f'An untrained softmax over all active classes has a loss of about '
        f'{np.log(max(num_active or 1, 1)):.2f}.'
    ]
    return '\n'.join(lines)


def _place(head: PICHead) -> str:
    if head.storage['type'] == 'memory':
        return 'memory'
    return f'the sparse file {head.bank.stored.storage.path}'


def _megabytes(num_bytes: float) -> str:
    return f'{num_bytes / 1e6:,.1f} MB'
