# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a config end a run before its first step, in words; a sound one says its plan."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import FlexibleRunner, Runner
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample

from pic_plugin.engine import preflight
from pic_plugin.engine.hooks import instance_bank_hook
from toys.training import ToyImages, make_config, train

PIXELS = dict(type='ToyPixels')
PACK = dict(type='PackInputs', meta_keys=('sample_idx', ))
TOY = dict(type='ToyImages', pipeline=[PIXELS, PACK])


def build(work_dir, loader=None, model=None, **kwargs):
    """A runner of one epoch, with changes to its data loader and its model."""
    config = make_config(work_dir, max_epochs=1, **kwargs)
    config['train_dataloader'].update(loader or {})
    config['model'].update(model or {})
    return Runner.from_cfg(Config(config))


def messages_of(runner, monkeypatch):
    """What a run logs."""
    messages = []
    for level in ('info', 'warning'):
        monkeypatch.setattr(runner.logger, level, messages.append)
    runner.train()
    return messages


def assert_stops_before_the_first_step(runner, error, match):
    with pytest.raises(error, match=match):
        runner.train()
    assert runner.iter == 0
    assert not runner.optim_wrapper.optimizer.state


def test_a_runner_that_could_not_resume(work_dir):
    config = make_config(work_dir, strategy=dict(type='SingleDeviceStrategy'), env_cfg=dict())
    with pytest.raises(ValueError, match='a FlexibleRunner does not resume .*leave runner_type'):
        FlexibleRunner.from_cfg(Config(config)).train()


def test_the_hook_twice(work_dir):
    hooks = [dict(type='InstanceBankHook'), dict(type='InstanceBankHook', log_interval=2)]
    assert_stops_before_the_first_step(build(work_dir, custom_hooks=hooks), ValueError,
                                       'more than one InstanceBankHook: leave one')


def test_empty_data_set(work_dir):
    empty = dict(TOY, num_images=0, serialize_data=False)
    loader = dict(dataset=empty, sampler=dict(type='DefaultSampler'))
    with pytest.raises(ValueError, match='data set is empty: check data_root'):
        build(work_dir, loader, param_scheduler=None).train()
    with pytest.raises(ValueError, match='data set is empty'):
        build(work_dir, dict(dataset=empty)).train()


class Joined:
    """Two data sets, each of which counts its images from 0, without a word of it."""

    metainfo = {}

    def __init__(self, dataset):
        self.parts = [DATASETS.build(one) for one in dataset]

    def full_init(self):
        for one in self.parts:
            one.full_init()

    def __len__(self):
        return sum(map(len, self.parts))

    def __getitem__(self, index):
        size = len(self.parts[0])
        return self.parts[index >= size][index % size]


class Miscounted(ToyImages):
    """Its infos are right, and its samples are not."""

    def prepare_data(self, idx):
        sample = super().prepare_data(idx)
        sample['data_samples'].set_metainfo(dict(sample_idx=idx % 10))
        return sample


class SometimesBroken(ToyImages):
    """Takes another image, as data sets do in the place of one that cannot be loaded."""

    def prepare_data(self, idx):
        return None if idx % 2 else super().prepare_data(idx)


@pytest.fixture(params=[Joined, Miscounted, SometimesBroken])
def own_dataset(request):
    DATASETS.register_module(module=request.param)
    yield request.param.__name__
    DATASETS.module_dict.pop(request.param.__name__)


def test_ids_that_only_samples_show_to_collide(work_dir, own_dataset):
    dataset = dict(TOY, type=own_dataset, num_images=50)
    if own_dataset == 'Joined':
        dataset = dict(type='Joined', dataset=[dict(TOY, num_images=25)] * 2)
    runner = build(work_dir, dict(dataset=dataset))
    if own_dataset == 'SometimesBroken':
        runner.train()
        assert runner.iter == 7
    else:
        assert_stops_before_the_first_step(
            runner, ValueError, f'{own_dataset} gives image .* that of another image')


def toy_images(num_images):
    return ToyImages(num_images, pipeline=[])


def test_plain_data_sets_are_accepted():
    assert preflight.check_dataset_ids(toy_images(1000), None) == 1000
    assert preflight.check_dataset_ids(range(1000), 1200) == 1200


def test_a_wrapper_that_nothing_is_known_of_stops_a_run(work_dir, monkeypatch):
    get = ToyImages.get_data_info
    monkeypatch.setattr(ToyImages, 'get_data_info', lambda self, index: dict(
        get(self, index), sample_idx=index // 2))
    assert_stops_before_the_first_step(build(work_dir), ValueError,
                                       'ToyImages gives image .* the id .*: ids of different')


def test_plan_says_what_data_it_has(work_dir, monkeypatch):
    joined = dict(type='RepeatDataset', times=2, dataset=TOY)
    text = '\n'.join(map(str, messages_of(build(work_dir, dict(dataset=joined)), monkeypatch)))
    assert 'RepeatDataset shows 50 images as 100 samples: copies of an image are one class' in text


def test_num_instances_too_small(work_dir):
    runner = build(work_dir, head=dict(num_instances=49))
    assert_stops_before_the_first_step(runner, ValueError,
                                       'num_instances=49, .* has 50 images: set num_instances')


def test_num_instances_of_the_data_set_or_more(work_dir):
    assert train(work_dir, max_epochs=1).model.head.num_instances == 50
    assert train(work_dir, max_epochs=1, head=dict(num_instances=60)).model.head.num_instances == 60


def test_missing_sample_idx(work_dir):
    runner = build(work_dir, pipeline=[PIXELS, dict(type='PackInputs', meta_keys=())])
    assert_stops_before_the_first_step(runner, ValueError, "no sample_idx.*meta_keys=.'sample_idx'")


def test_pseudo_collate(work_dir):
    runner = build(work_dir, dict(collate_fn=dict(type='pseudo_collate')))
    assert_stops_before_the_first_step(runner, ValueError,
                                       r'view 0 .* \(3, 2, 2\), expected \(8,.*default_collate')


def test_batch_without_samples(work_dir):
    runner = build(work_dir, pipeline=[PIXELS])
    assert_stops_before_the_first_step(runner, ValueError, 'end the pipeline with .*PackInputs')


def zeros(shape):
    return torch.zeros(shape) if isinstance(shape, tuple) else shape


def make_batch(views, num_samples=4):
    return dict(inputs=views, data_samples=[
        DataSample(metainfo=dict(sample_idx=i)) for i in range(num_samples)])


@pytest.mark.parametrize('views, match', [
    ([np.zeros((4, 3, 2, 2))], 'view 0 .* ndarray, expected'),
    ([(4, 3, 2, 2), (3, 3, 2, 2)], r'view 1 .*\(3, 3, 2, 2\), expected \(4,'),
    ([(4, 3, 2, 2), (4, 3, 2)], r'view 1 .*\(4, 3, 2\).*one size'),
    ([[(4, 3, 2, 2)], (4, 3, 2, 2)], 'view 0 .* list.*MultiView alone'),
])
def test_views_that_differ(work_dir, views, match):
    runner = train(work_dir, max_epochs=1)
    batch = make_batch([zeros(view) for view in views])
    with pytest.raises(ValueError, match=match):
        preflight.check_first_batch(batch, runner.model.head, runner.model)
    preflight.check_first_batch(make_batch(torch.zeros(4, 3, 2, 2)), runner.model.head,
                                runner.model)


MULTI_VIEW = dict(type='MultiView', num_views=[2], transforms=[[PIXELS]])


def test_num_update_views_too_large(work_dir):
    runner = build(work_dir, pipeline=[MULTI_VIEW, PACK], model=dict(num_update_views=3))
    assert_stops_before_the_first_step(runner, ValueError,
                                       'num_update_views=3, but the pipeline makes 2 views')


def test_several_views_are_accepted(work_dir):
    runner = build(work_dir, pipeline=[MULTI_VIEW, PACK], model=dict(num_update_views=2))
    runner.train()
    assert runner.iter == 7  # 50 images in batches of 8


def test_no_hook(work_dir):
    runner = build(work_dir, custom_hooks=[])
    assert_stops_before_the_first_step(
        runner, RuntimeError, r"custom_hooks = \[dict\(type='InstanceBankHook'\)\]")


@pytest.mark.parametrize('options, match', [
    (dict(optim_wrapper=dict(optimizer=dict(type='RMSprop', lr=0.1))),
     'exact for torch.optim.SGD and torch.optim.AdamW only.*RMSprop.*correct_weights=False'),
    (dict(head=dict(num_negatives=7)), '8 instances does not fit num_negatives=7'),
])
def test_sizes_and_optimizer(work_dir, options, match):
    assert_stops_before_the_first_step(build(work_dir, **options), ValueError, match)


def test_plan_is_said_once(work_dir, monkeypatch):
    messages = messages_of(build(work_dir), monkeypatch)
    plan, = [text for text in messages if 'softmax over the' in str(text)]
    assert '50 instances' in plan and 'the 16 sampled most recently' in plan
    assert 'with weight-update correction' in plan
    assert 'SlidingWindowSampler, window 20 images, stride 5; batch 8 on one process' in plan
    assert 'MB on cpu' in plan and 'in memory on the host' in plan
    assert f'a loss of about {np.log(16):.2f}' in plan
    assert not [text for text in messages if 'persistent' in str(text) or 'round_up' in str(text)
                or 'max_keep_ckpts' in str(text)]


@pytest.mark.parametrize('head, expected', [
    (dict(num_negatives=None), ['all of them', 'up to 0.0 MB', f'about {np.log(50):.2f}']),
    (dict(correct_weights=False), ['WITHOUT weight-update correction']),
    (dict(storage=dict(type='mmap')),
     ['in the sparse file ', 'class_weights.bank-0of1 on the host']),
])
def test_plan_of_variants(work_dir, monkeypatch, head, expected):
    plan, = [text for text in messages_of(build(work_dir, head=head), monkeypatch)
             if 'softmax over ' in str(text) and 'PIC: ' in str(text)]
    for text in expected:
        assert text in plan


def test_memory_in_the_plan(work_dir):
    runner = train(work_dir, max_epochs=1, head=dict(num_instances=1_000_000))
    # 1e6 rows of 8 float32 weights and momenta and one int64
    assert 'up to 72.0 MB in memory' in preflight.describe_plan(runner, runner.model.head)


def test_persistent_workers_are_noticed(work_dir):
    shuffled = dict(sampler=dict(type='DefaultSampler', shuffle=True))
    notices = [preflight.loader_notices(build(work_dir, dict(
        loader, num_workers=1, persistent_workers=on))) for on, loader in (
            (False, shuffled), (True, shuffled), (True, {}))]
    assert notices[0] == []
    assert ['persistent_workers=True' in text for text in notices[1]] == [True]
    # Each sample of a sliding window has random numbers of its own.
    assert notices[2] == []


@pytest.mark.parametrize('endless', [False, True])
def test_a_loader_that_ends_in_an_iteration_based_loop_is_noticed(work_dir, endless):
    sampler = dict(type='SlidingWindowSampler', window_size=20, stride=5, endless=endless)
    notices = preflight.loader_notices(build(
        work_dir, dict(sampler=sampler), train_cfg=dict(by_epoch=False, max_iters=3)))
    assert ['endless=True' in text for text in notices] == [True] * (not endless)


@pytest.mark.parametrize('round_up, world_size, noticed', [
    (False, 3, True), (False, 2, False), (True, 3, False),
    (False, 4, False),  # 13 and 12 images: two batches of up to 8 for everyone
])
def test_uneven_ranks_are_noticed(work_dir, monkeypatch, round_up, world_size, noticed):
    # Which processes there are; test_distributed.py starts real ones.
    monkeypatch.setattr(preflight, 'get_world_size', lambda: world_size)
    sampler = dict(type='SlidingWindowSampler', window_size=20, stride=5, round_up=round_up)
    notices = preflight.loader_notices(build(work_dir, dict(sampler=sampler)))
    assert ['round_up=False: 50 images' in text for text in notices] == [True] * noticed


def test_notices_are_logged(work_dir, monkeypatch):
    monkeypatch.setattr(instance_bank_hook, 'loader_notices', lambda runner: ['mind the gap'])
    assert messages_of(build(work_dir), monkeypatch).count('mind the gap') == 1


@pytest.mark.parametrize('max_keep_ckpts, warned', [(1, True), (2, False), (-1, False)])
def test_single_keep_is_warned_of(work_dir, monkeypatch, max_keep_ckpts, warned):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1,
                                 max_keep_ckpts=max_keep_ckpts))
    messages = messages_of(build(work_dir, default_hooks=hooks), monkeypatch)
    assert len([text for text in messages if 'Choose max_keep_ckpts=2' in str(text)]) == warned


def test_hook_arguments():
    with pytest.raises(ValueError, match='log_interval must be at least 1 iteration, not 0'):
        instance_bank_hook.InstanceBankHook(log_interval=0)


@pytest.mark.parametrize('weight_decay, options, expected', [
    (1e-3, dict(), 0), (2.0, dict(), 1), (2.0, dict(correct_weights=False), 0),
    (2.0, dict(num_negatives=None), 0)])
def test_rows_that_return_as_nothing_are_noticed_once(tmp_path, monkeypatch, weight_decay, options,
                                                      expected):
    messages = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: messages.append(text))
    sgd = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=weight_decay)
    train(tmp_path, head=options, seed=0, optim_wrapper=dict(optimizer=sgd))
    found = [text for text in messages if 'have missed' in text]
    assert len(found) == expected
    assert all("{'head.weight': dict(decay_mult=0)}" in text for text in found)
