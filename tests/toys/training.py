# SPDX-License-Identifier: Apache-2.0
"""A training through the real Runner that takes a second, and all of its state to compare."""
import hashlib
import os
import random
import resource
import shutil
import signal
import uuid
from pathlib import Path

import mmengine.config.config
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from torch import nn

import pic_plugin  # noqa: F401
from pic_plugin.bank import read_bank
from pic_plugin.datasets import SlidingWindowSampler

FEAT_DIM = 8


def remember(format_code):
    """Format each text once: a run formats its config for each checkpoint, at half its cost."""
    known = {}

    def remembered(text, **options):
        if text not in known:
            known[text] = format_code(text, **options)
        return known[text]

    return remembered


mmengine.config.config.FormatCode = remember(mmengine.config.config.FormatCode)


@MODELS.register_module()
class ToyBackbone(nn.Module):
    """(B, 3, 2, 2) to a tuple of (B, 16)."""

    def __init__(self, dropout=0.1):
        super().__init__()
        self.linear = nn.Linear(12, 16)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images):
        return (self.dropout(self.linear(images.flatten(1)).relu()), )


@MODELS.register_module()
class ToyNeck(nn.Module):
    """A tuple of (B, 16) to a tuple of (B, d)."""

    def __init__(self, out_channels=FEAT_DIM):
        super().__init__()
        self.linear = nn.Linear(16, out_channels)

    def forward(self, features):
        return (self.linear(features[-1]), )


@DATASETS.register_module()
class ToyImages(BaseDataset):
    """N images of noise."""

    def __init__(self, num_images=50, **kwargs):
        self.num_images = num_images
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(key=key, gt_label=key % 3) for key in range(self.num_images)]


@DATASETS.register_module()
class NamedToyImages(ToyImages):
    """Images that depend on their file's name, in the order of the list."""

    def __init__(self, names, folder='/first', **kwargs):
        self.names, self.folder = names, folder
        super().__init__(data_root=folder, **kwargs)

    def load_data_list(self):
        return [dict(img_path=f'{self.folder}/{name}', key=int(name)) for name in self.names]


@TRANSFORMS.register_module()
class ToyPixels:
    """Pixels of an image, augmented with draws from all three random generators."""

    def __init__(self, augment=True):
        self.augment = augment

    def __call__(self, results):
        image = np.random.RandomState(results['key']).rand(2, 2, 3)
        if self.augment:
            image = image * random.uniform(0.9, 1.1) + np.random.uniform(0, 0.1) + (
                0.1 * torch.rand(2, 2, 3).numpy())
        results['img'] = image.astype(np.float32)
        return results


@TRANSFORMS.register_module()
class DieOnce:
    """Kills its process at one image, if a file is not there yet; then it is."""

    def __init__(self, key, marker):
        self.key, self.marker = key, marker

    def __call__(self, results):
        if results['key'] == self.key and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return results


@HOOKS.register_module()
class LimitFileSize(Hook):
    """From an epoch's end on, no file of this process may grow beyond a number of bytes."""

    priority = 'VERY_HIGH'

    def __init__(self, epoch, num_bytes):
        self.epoch, self.num_bytes = epoch, num_bytes

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.num_bytes, resource.RLIM_INFINITY))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Draws random numbers, as real evaluations may."""

    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += [random.random() + float(torch.rand(1)) for _ in data_samples]

    def compute_metrics(self, results):
        return dict(score=float(np.mean(results)))


@HOOKS.register_module()
class RecordLoss(Hook):
    """Keeps the loss of each iteration as ``runner.losses``."""

    def before_train(self, runner):
        runner.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.losses.append(outputs['loss'].item())


@DATA_SAMPLERS.register_module()
class AllRanksSampler(SlidingWindowSampler):
    """What several ranks draw, in the order of their global batches, for one process."""

    def __init__(self, *args, num_ranks, batch_size, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_ranks, self.batch_size = num_ranks, batch_size

    def __iter__(self):
        parts = []
        for rank in range(self.num_ranks):
            part = SlidingWindowSampler(self.dataset, self.window_size, self.stride, self.seed,
                                        round_up=self.round_up)
            part.rank, part.world_size = rank, self.num_ranks
            part.set_epoch(self.epoch)
            parts.append(list(part))
        for start in range(0, len(parts[0]), self.batch_size):
            for part in parts:
                yield from part[start:start + self.batch_size]


def make_config(work_dir, max_epochs=4, num_images=50, batch_size=8, num_workers=0, seed=None,
                augment=True, validate=False, accumulate=1, feat_dim=FEAT_DIM, head=None,
                pipeline=None, **overrides):
    """Config of a toy training; ``overrides`` replace top-level keys."""
    pipeline = pipeline or [
        dict(type='ToyPixels', augment=augment),
        dict(type='PackInputs', meta_keys=('sample_idx', ))
    ]
    dataset = dict(type='ToyImages', num_images=num_images, pipeline=pipeline)
    collate = dict(type='default_collate')
    config = dict(
        default_scope='mmpretrain',
        experiment_name=uuid.uuid4().hex,
        work_dir=str(work_dir),
        model=dict(
            type='PIC',
            backbone=dict(type='ToyBackbone', dropout=0.1 if augment else 0.0),
            neck=dict(type='ToyNeck', out_channels=feat_dim),
            head=dict(dict(type='PICHead', feat_dim=feat_dim, num_negatives=16), **(head or {}))),
        train_dataloader=dict(
            dataset=dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            sampler=dict(type='SlidingWindowSampler', window_size=20, stride=5),
            collate_fn=collate),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-3),
            accumulative_counts=accumulate),
        param_scheduler=[
            # The end is given, since mmengine's saved schedulers keep that of the saved run.
            dict(type='CosineAnnealingLR', T_max=4, end=4, by_epoch=True,
                 convert_to_iter_based=True)
        ],
        custom_hooks=[dict(type='InstanceBankHook'), dict(type='RecordLoss')],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=3),
            checkpoint=dict(type='CheckpointHook', interval=1)),
        log_level='WARNING',
        randomness=dict(seed=seed))
    if validate:
        config.update(
            val_dataloader=dict(
                dataset=dataset, batch_size=10, num_workers=0, collate_fn=collate,
                sampler=dict(type='DefaultSampler', shuffle=False)),
            val_cfg=dict(),
            val_evaluator=dict(type='ToyMetric'))
    config.update(overrides)
    return config


def train(work_dir, **kwargs):
    """Train and return the runner."""
    torch.set_num_threads(1)
    runner = Runner.from_cfg(Config(make_config(work_dir, **kwargs)))
    runner.train()
    return runner


def snapshot(runner):
    """Everything that training has made, as a flat dict of arrays."""
    model = getattr(runner.model, 'module', runner.model)
    head, bank = model.head, model.head.bank
    state = dict(model.state_dict(), active_ids=head.active_ids, step=bank.step,
                 class_weights=head.class_weights(range(bank.num_instances)))
    state.update({
        f'momentum {i}': value['exp_avg' if 'exp_avg' in value else 'momentum_buffer']
        for i, value in runner.optim_wrapper.optimizer.state_dict()['state'].items()
    })
    if bank.store is not None:
        for name, parts in zip(('rows', 'steps', 'values'), zip(*bank.store.written())):
            state[f'stored {name}'] = np.concatenate(parts)
    state.update(bank.correction.state_dict())
    if bank.active_set is not None:
        state.update(bank.active_set.state_dict())
    return {name: np.asarray(value.cpu() if torch.is_tensor(value) else value)
            for name, value in state.items()}


def read_checkpoint(path):
    """Everything in a checkpoint and its bank files that a run goes on from, as a flat dict."""
    path = Path(path)
    checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    bank = checkpoint['pic_bank']
    state = dict(checkpoint['state_dict'], step=bank['step'], **bank.get('active_set', {}))
    state.update({
        f'momentum {i}': value['momentum_buffer']
        for i, value in checkpoint['optimizer']['state'].items()
    })
    for bank_path in bank_paths(path):
        assert bank['token'] in bank_path.name
        for i, (kind, _, arrays) in enumerate(read_bank(bank_path)):
            state.update({f'{kind} {i} {name}': value for name, value in arrays.items()})
    return {name: np.asarray(value) for name, value in state.items()}


def bank_paths(checkpoint):
    """Bank files beside a checkpoint, in the order of their ranks."""
    checkpoint = Path(checkpoint)
    return sorted(checkpoint.parent.glob(f'{checkpoint.stem}.*.bank-*'))


def move_checkpoint(source, folder, name='epoch_2'):
    """A work directory as it was after a checkpoint."""
    folder.mkdir()
    for path in [source / f'{name}.pth', *bank_paths(source / f'{name}.pth')]:
        shutil.copy(path, folder)
    (folder / 'last_checkpoint').write_text(str(folder / f'{name}.pth'))


def hash_files(folder):
    """Checkpoints, banks and what points at them; not the logs, which a failing run writes too."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir() if path.is_file() and path.suffix != '.py'}


def assert_equal(state, expected):
    """Bit for bit."""
    assert state.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)
