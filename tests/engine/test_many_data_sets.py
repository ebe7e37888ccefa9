# SPDX-License-Identifier: Apache-2.0
"""Training on joined and repeated data sets, and on images that share a class."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from pic_plugin.models.pic_head import instance_ids
from toys.processes import run_ranks, train_rank
from toys.training import assert_equal, make_config, snapshot, train

NAMES = [f'{i:03d}' for i in range(50)]


@HOOKS.register_module()
class RecordIds(Hook):
    """Keeps the ids of all batches as ``runner.ids``."""

    def before_train(self, runner):
        runner.ids = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.ids += instance_ids(data_batch['data_samples']).tolist()


HOOKS_OF_RUN = [dict(type='InstanceBankHook'), dict(type='RecordLoss'), dict(type='RecordIds')]


def options(work_dir, dataset, **kwargs):
    """Arguments of ``train`` with another data set, which takes the usual pipeline."""
    kwargs = dict(dict(seed=3, custom_hooks=HOOKS_OF_RUN), **kwargs)
    loader = make_config(work_dir, **kwargs)['train_dataloader']
    return dict(kwargs, train_dataloader=dict(
        loader, dataset=dataset(loader['dataset']['pipeline'])))


def named(names, folder='/first'):
    return lambda pipeline: dict(type='NamedToyImages', names=names, folder=folder,
                                 pipeline=pipeline)


def joined(*parts):
    return lambda pipeline: dict(type='ConcatDataset', datasets=[part(pipeline) for part in parts])


def repeated(part, times=2):
    return lambda pipeline: dict(type='RepeatDataset', dataset=part(pipeline), times=times)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_joined_data_sets_train_as_one_list(tmp_path, num_workers):
    one = train(tmp_path / 'one', **options(tmp_path, named(NAMES), max_epochs=2,
                                            num_workers=num_workers))
    both = train(tmp_path / 'both', **options(
        tmp_path, joined(named(NAMES[:20]), named(NAMES[20:])), max_epochs=2,
        num_workers=num_workers))
    assert both.ids == one.ids and both.losses == one.losses
    assert_equal(snapshot(both), snapshot(one))


@pytest.mark.parametrize('persistent', [False, True])
def test_workers_that_an_iteration_based_loop_has_started(tmp_path, persistent):
    loop = dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=7), param_scheduler=None,
                num_workers=2)
    one, both = (options(tmp_path, dataset, **loop) for dataset in (
        named(NAMES), joined(named(NAMES[:20]), named(NAMES[20:]))))
    for arguments in (one, both):
        arguments['train_dataloader']['persistent_workers'] = persistent
    one, both = train(tmp_path / 'one', **one), train(tmp_path / 'both', **both)
    assert both.ids == one.ids and max(both.ids) > 30
    assert both.losses == one.losses


def test_copies_of_an_image_are_one_class(tmp_path):
    arguments = options(tmp_path, repeated(joined(named(NAMES), named(NAMES[:10]))), max_epochs=1)
    arguments['train_dataloader']['sampler'] = dict(type='DefaultSampler', shuffle=True)
    runner = train(tmp_path, **arguments)
    assert runner.model.head.num_instances == 50
    assert np.bincount(runner.ids).tolist() == [4] * 10 + [2] * 40


@pytest.mark.parametrize('storage', [dict(type='memory'), dict(type='mmap')])
def test_resume_is_exact(tmp_path, storage):
    dataset = joined(named(NAMES[:20]), repeated(named(NAMES[15:], '/first')))
    arguments = options(tmp_path, dataset, num_workers=2,
                        head=dict(num_negatives=16, storage=storage))
    whole = train(tmp_path / 'whole', **arguments)
    train(tmp_path / 'parts', **dict(arguments, train_cfg=dict(by_epoch=True, max_epochs=2)))
    parts = train(tmp_path / 'parts', resume=True, **arguments)
    assert_equal(snapshot(parts), snapshot(whole))


def test_a_data_set_joins_a_training(tmp_path):
    train(tmp_path, **options(tmp_path, named(NAMES[:30], '/a'), max_epochs=2))
    before = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['pic_bank']['instance_keys']
    runner = train(tmp_path, resume=True, **options(
        tmp_path, joined(named(NAMES[30:], '/b'), named(NAMES[:30], '/a')), max_epochs=3))
    after = torch.load(tmp_path / 'epoch_3.pth', weights_only=True)['pic_bank']['instance_keys']
    assert after[20:].tolist() == before.tolist() and runner.model.head.num_instances == 50


def test_several_processes(tmp_path):
    states = []
    for name, dataset in (('one', named(NAMES)),
                          ('both', joined(named(NAMES[:20]), named(NAMES[20:])))):
        kwargs = options(tmp_path, dataset, max_epochs=1, batch_size=4,
                         head=dict(num_negatives=16, num_instances=50),
                         custom_hooks=HOOKS_OF_RUN[:2])
        results = run_ranks(train_rank, 2, str(tmp_path / name), kwargs)
        assert all(isinstance(result, tuple) for result in results), results
        states.append([result[1]['class_weights'] for result in results])
    np.testing.assert_array_equal(states[0], states[1])


PIPELINE = [
    dict(type='LoadImageOrSkip', to_float32=True), dict(type='CenterCrop', crop_size=2),
    dict(type='Normalize', mean=[127.0] * 3, std=[127.0] * 3),
    dict(type='PackInputs', meta_keys=('sample_idx', 'img_path'))]


def write_videos(folder, num_videos=12, frames=4):
    for video in range(num_videos):
        (folder / f'v{video:02d}').mkdir(parents=True)
        for frame in range(frames):
            pixels = np.random.default_rng([video, frame]).integers(0, 256, (4, 4, 3), np.uint8)
            cv2.imwrite(str(folder / f'v{video:02d}' / f'{frame}.png'), pixels)
    return folder


@pytest.mark.parametrize('num_workers', [0, 2])
def test_frames_of_a_video_are_one_class_and_resume_is_exact(tmp_path, num_workers):
    folder = write_videos(tmp_path / 'videos')
    arguments = dict(
        seed=1, num_workers=num_workers, batch_size=4, pipeline=PIPELINE,
        custom_hooks=HOOKS_OF_RUN, head=dict(num_negatives=8))
    loader = make_config(tmp_path, **arguments)['train_dataloader']
    loader['dataset'] = dict(type='ImageFiles', data_root=str(folder), pipeline=PIPELINE,
                             instance_key=dict(pattern=r'(v\d+)/'))
    loader['sampler'] = dict(type='SlidingWindowSampler', window_size=6, stride=2)
    arguments['train_dataloader'] = loader
    whole = train(tmp_path / 'whole', **arguments)
    assert whole.model.head.num_instances == 12
    train(tmp_path / 'parts', **dict(arguments, train_cfg=dict(by_epoch=True, max_epochs=2)))
    parts = train(tmp_path / 'parts', resume=True, **arguments)
    assert parts.losses == whole.losses[len(whole.losses) // 2:]
    assert_equal(snapshot(parts), snapshot(whole))
    keys = torch.load(tmp_path / 'whole/epoch_4.pth', weights_only=True)['pic_bank']
    assert keys['instance_keys'].shape == (12, )
