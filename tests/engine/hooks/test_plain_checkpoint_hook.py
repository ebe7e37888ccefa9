# SPDX-License-Identifier: Apache-2.0
"""Trainings of other algorithms: interrupted and resumed they are what they would have been."""
import multiprocessing
import random

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

import pic_plugin  # noqa: F401


def config(work_dir, epochs, **kwargs):
    """A classifier of CIFAR-10's images, with random flips."""
    return dict(
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=64)),
        data_preprocessor=dict(num_classes=10, mean=[125, 123, 114], std=[63, 62, 67]),
        train_dataloader=dict(
            batch_size=8, num_workers=0,
            dataset=dict(type='ImageGrid', img_file='cifar10_test_1000.webp', indices=24,
                         pipeline=[dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]),
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        custom_hooks=[dict(type='PlainCheckpointHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=0), default_scope='mmpretrain', work_dir=str(work_dir), **kwargs)


def train(*args, seed=0, **kwargs):
    """The runner after training, and what each step drew from each random generator."""
    draws = []
    given = {**config(*args, **kwargs), 'randomness': dict(seed=seed)}
    runner = Runner(**given, experiment_name=f'{args}{kwargs}{seed}')
    step = runner.model.train_step

    def train_step(data, optim_wrapper):
        draws.append((torch.rand(()).item(), np.random.rand(), random.random()))
        return step(data, optim_wrapper)

    runner.model.train_step = train_step
    runner.train()
    return runner, draws


def test_two_epochs_and_two_more_are_four(work_dir, tmp_path):
    whole, draws = train(work_dir, 4)
    whole = whole.model.state_dict()
    train(tmp_path / 'parts', 2)
    resumed, later_draws = train(tmp_path / 'parts', 4, resume=True)
    assert resumed.epoch == 4
    assert later_draws == draws[6:]
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole[key]), key
    # The same from epoch 1 on would be no resume.
    other = torch.load(tmp_path / 'parts' / 'epoch_2.pth')['state_dict']['head.fc.weight']
    assert not torch.equal(other, whole['head.fc.weight'])


def test_no_worker_outlives_the_training(work_dir):
    given = config(work_dir, 1)
    given['train_dataloader'].update(num_workers=1, persistent_workers=True)
    before = set(multiprocessing.active_children())
    Runner(**given, experiment_name='workers').train()
    assert set(multiprocessing.active_children()) <= before


def test_another_network_is_refused(work_dir):
    train(work_dir, 1)
    changed = config(work_dir, 2, resume=True)
    changed['model']['backbone']['base_channels'] = 16
    changed['model']['head']['in_channels'] = 128
    with pytest.raises(ValueError, match='cannot be resumed: it is of another .* Set model'):
        Runner(**changed, experiment_name='another network').train()


def test_another_optimizer_is_refused(work_dir):
    train(work_dir, 1)
    changed = config(work_dir, 2, resume=True)
    changed['optim_wrapper'] = dict(optimizer=dict(type='AdamW', lr=0.01))
    with pytest.raises(ValueError, match='dampening, .* and AdamW of this run has amsgrad, betas'):
        Runner(**changed, experiment_name='another optimizer').train()


def test_without_averages_the_trained_weights_go_on(work_dir, tmp_path):
    def run(folder, epochs, *more, **kwargs):
        given = config(folder, epochs, **kwargs)
        given['custom_hooks'] += more
        runner = Runner(**given, experiment_name=f'{folder}{epochs}{more}')
        runner.train()
        return runner.model.state_dict()

    ema = dict(type='EMAHook', momentum=0.1)
    run(work_dir, 1, ema)
    rest, whole = run(work_dir, 2, resume=True), run(tmp_path / 'whole', 2)
    assert all(torch.equal(rest[name], whole[name]) for name in whole)


def test_a_checkpoint_is_resumed_from_on_the_host(work_dir, monkeypatch):
    train(work_dir, 1)
    runner = Runner(**config(work_dir, 2, resume=True), experiment_name='on the host')
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cuda')
    runner.train()
    assert runner.epoch == 2


def test_checkpoint_holds_no_objects_and_history_comes_back(work_dir, tmp_path):
    train(work_dir, 1)
    content = torch.load(work_dir / 'epoch_1.pth', weights_only=True)
    assert content['meta']['epoch'] == 1
    resumed, _ = train(work_dir, 2, resume=True)
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 6


def test_epochs_differ_from_each_other_and_by_seed(work_dir):
    draws = train(work_dir, 2)[1] + train(work_dir, 2, seed=1)[1]
    for kind in zip(*draws):
        assert len(set(kind)) == len(kind) == 12
