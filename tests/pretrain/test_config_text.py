# SPDX-License-Identifier: Apache-2.0
"""Each plan becomes a config whose parts build, and whose numbers are the plan's."""
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, MODELS

from pic_plugin.pretrain import rules
from pic_plugin.pretrain.config_text import LINE, Sources, config_text, schedule
from pic_plugin.pretrain.machine import Machine
from pic_plugin.pretrain.networks import look_at
from pic_plugin.pretrain.plan import make_plan
from pic_plugin.pretrain.rules import Facts, Wishes
from toys.pictures import write_pictures

CPU = Machine(num_cores=2, host_bytes=2**34, disk_bytes=2**37)
GPU = Machine('cuda', 'A GPU', 2**36, 1, 1, 8, 2**37, 2**39, True)


def plan_of(num_images=500, machine=CPU, name='resnet18', size=32, **wishes):
    asked = Wishes(backbone=name, image_size=size, **wishes)
    facts = Facts(num_images, size, machine)
    return make_plan(facts, asked, look_at(name, size), rules.choose_image_size(facts, asked),
                     rules.choose_backbone(facts, asked, size))


def read(plan, sources=None, logs=()):
    return Config.fromstring(config_text(plan, sources or Sources('/data', '/w/list.txt'), logs),
                             '.py')


@pytest.mark.parametrize('name, size, neck', [
    ('resnet18', 32, 'NonLinearNeck'), ('vit-deit-tiny', 96, 'NonLinearNeck'),
    ('convnext-atto', 64, 'NonLinearNeck')])
def test_the_model_builds(name, size, neck):
    plan = plan_of(name=name, size=size)
    cfg = read(plan)
    model = MODELS.build(cfg.model)
    assert type(model.neck).__name__ == neck
    assert cfg.optim_wrapper.optimizer.type == plan.optimizer


def test_a_long_run_has_the_papers_recipe():
    plan = plan_of(1_000_000, GPU, 'resnet50', 224)
    cfg = read(plan)
    assert cfg.model.neck.type == 'MoCoV2Neck' and cfg.model.backbone.zero_init_residual
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-4
    assert cfg.optim_wrapper.optimizer.lr == 0.03
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.dtype == 'bfloat16'
    assert cfg.model.head.num_negatives == 65536
    assert cfg.param_scheduler[0].end == 10 and cfg.param_scheduler[1].end == 200
    assert cfg.param_scheduler[1].eta_min == 1e-6


def test_numbers_of_window_and_length_are_written_out():
    plan = plan_of(5000, epochs=3)
    cfg = read(plan)
    assert cfg.train_dataloader.sampler == dict(
        type='SlidingWindowSampler', window_size=500, stride=15)
    assert cfg.train_cfg.max_epochs == 3 and cfg.train_dataloader.batch_size == 64
    ends = [part.end for part in cfg.param_scheduler]
    assert ends == [3 / 20, 3] and cfg.param_scheduler[1].begin == ends[0]
    part = read(plan_of(5000, images_seen=1000))
    assert part.train_cfg.max_iters == 16 and part.param_scheduler[-1].end == 16


@pytest.mark.parametrize('images_seen', [1, 64, 200, 256, 400, 10_000])
def test_a_schedule_never_begins_where_it_ends(images_seen):
    for part in schedule(plan_of(images_seen=images_seen)):
        assert part['begin'] < part['end']


def test_processes_and_storage():
    plan = plan_of(3000, GPU._replace(num_devices=2, num_processes=2))
    assert read(plan).model.head.num_instances == 3000
    assert read(plan._replace(storage='disk')).model.head.storage == dict(type='mmap')
    half = read(plan._replace(storage='disk-half', num_negatives=100))
    assert half.model.head.storage == dict(type='mmap', dtype='bfloat16')


def test_the_data_set_reads_names_with_blanks_and_other_letters(tmp_path):
    folder = write_pictures(tmp_path / 'my pictures ü', 3)
    listed = tmp_path / 'list.txt'
    listed.write_text('0000.png\n0001.png\n0002.png\n', encoding='utf-8')
    cfg = read(plan_of(), Sources(str(folder), str(listed)))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 3
    assert dataset[2]['inputs'].shape == (3, 32, 32)
    assert dataset[2]['data_samples'].sample_idx == 2


def test_labels_and_logs():
    sources = Sources('/d', '/l', '/references.txt', '/queries.txt', 50)
    cfg = read(plan_of(), sources, ('tensorboard', 'mlflow'))
    assert cfg.val_evaluator.topk == (20, 50)
    assert [one.type for one in cfg.custom_hooks] == [
        'InstanceBankHook', 'OnlineMeasuresHook', 'CompareWithUntrainedHook',
        'SaveOnInterruptHook']
    assert [one.type for one in cfg.visualizer.vis_backends] == [
        'LocalVisBackend', 'TensorboardVisBackend', 'MLflowVisBackend']
    assert 'val_dataloader' not in read(plan_of())


def test_the_seed():
    assert read(plan_of(), Sources('/d', '/l', seed=5)).randomness.seed == 5


def test_lines_are_not_long():
    assert max(map(len, config_text(plan_of(), Sources('/d', '/l')).splitlines())) <= LINE + 4


def test_parts_of_the_device_pipeline():
    plan = plan_of(size=32)
    cfg = read(plan)
    assert [step.type for step in cfg.train_dataloader.dataset.pipeline] == [
        'DecodeRandomCrop', 'PackInputs']
    assert cfg.model.data_preprocessor == dict(
        type='AugmentPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        to_rgb=True, channels_last=False, views=dict(blur=None))
    large = read(plan._replace(image_size=224, memory_format='channels_last'))
    assert large.model.data_preprocessor.channels_last
    assert 'views' not in large.model.data_preprocessor
