# SPDX-License-Identifier: Apache-2.0
"""Numbers of images that do not go with the batch: the right thing, and a word of it."""
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn

from pic_plugin.engine.train_loader import build_train_loader
from toys.training import ToyBackbone, make_config


@MODELS.register_module()
class NormedToyBackbone(ToyBackbone):
    """With BatchNorm, which raises for one image."""

    def __init__(self, dropout=0.0):
        super().__init__(dropout)
        self.norm = nn.BatchNorm1d(16)
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return (self.norm(super().forward(images)[0]), )


@pytest.fixture
def said(monkeypatch):
    texts = []
    for level in ('warning', 'info'):
        monkeypatch.setattr(MMLogger, level, lambda self, text, *args: texts.append(str(text)))
    return texts


def run(work_dir, num_images, drop_last=False, batch_norm=True, batch_size=8, max_epochs=2,
        hooks=()):
    config = make_config(work_dir, num_images=num_images, batch_size=batch_size,
                         max_epochs=max_epochs, head=dict(num_negatives=None), seed=0,
                         custom_hooks=[dict(type='InstanceBankHook'), *hooks])
    config['train_dataloader'].update(drop_last=drop_last,
                                      sampler=dict(type='SlidingWindowSampler'))
    if batch_norm:
        config['model']['backbone'] = dict(type='NormedToyBackbone')
    runner = Runner.from_cfg(Config(config))
    build_train_loader(runner)
    runner.train()
    return runner


def test_hooks_find_a_loss_where_a_batch_was_left_out(work_dir):
    runner = run(work_dir, 9, max_epochs=1, hooks=[dict(type='RecordLoss')])
    assert len(runner.losses) == 2 and runner.losses[0] == runner.losses[1]


def test_a_last_batch_of_one_does_not_go_with_accumulation(work_dir):
    config = make_config(work_dir, num_images=9, batch_size=8, accumulate=2)
    config['model']['backbone'] = dict(type='NormedToyBackbone')
    with pytest.raises(ValueError, match='accumulated over batches: set .*drop_last=True'):
        Runner.from_cfg(Config(config)).train()


def test_a_last_batch_of_one_is_left_out(work_dir, said):
    # The hook finds no features there.
    runner = run(work_dir, 9, hooks=[dict(type='OnlineMeasuresHook', interval=1)])
    assert len(runner.message_hub.get_scalar('train/effective_rank').data[0]) == 2
    assert runner.model.backbone.batches == [8, 8]
    assert runner.iter == 4  # so that schedules end where they should
    assert runner.model.head.bank.step == 2
    texts = [text for text in said if 'left out of its epoch' in text]
    assert len(texts) == 1 and '9 images in batches of 8 leave a last batch of one' in texts[0]
    assert runner.optim_wrapper.param_groups[0]['lr'] < 0.1
    assert torch.isfinite(runner.model.head.class_weights(range(9))).all()


def test_one_image_that_the_rest_of_an_epoch_leaves(work_dir, said):
    """26 images in batches of 8, of which two are done when batches of 3 go on."""
    options = dict(num_images=26, max_epochs=1, param_scheduler=[], seed=0)
    config = make_config(work_dir, **options)
    config['default_hooks']['checkpoint'].update(by_epoch=False, interval=2)
    config['model']['backbone'] = dict(type='NormedToyBackbone')
    Runner.from_cfg(Config(config)).train()
    config['train_dataloader'].update(batch_size=3)
    config.update(resume=True, load_from=f'{work_dir}/iter_2.pth', experiment_name='rest')
    runner = Runner.from_cfg(Config(config))
    runner.train()
    assert runner.model.backbone.batches == [3, 3, 3]
    assert (runner.iter, runner.model.head.bank.step) == (6, 5)
    text, = [text for text in said if 'left out of its epoch' in text]
    assert '10 images in batches of 3 leave a last batch of one' in text


@pytest.mark.parametrize('num_images, options, batches', [
    (10, {}, [8, 2, 8, 2]), (16, {}, [8, 8, 8, 8]), (9, dict(drop_last=True), [8, 8])])
def test_other_last_batches_are_trained_on(work_dir, said, num_images, options, batches):
    assert run(work_dir, num_images, **options).model.backbone.batches == batches
    assert not [text for text in said if 'left out of its epoch' in text]


def test_without_batch_norm_one_image_is_trained_on(work_dir, said):
    assert run(work_dir, 9, batch_norm=False).model.head.bank.step == 4
    assert not [text for text in said if 'left out of its epoch' in text]


def test_one_image(work_dir):
    with pytest.raises(ValueError, match='data set has one image'):
        run(work_dir, 1)


def test_a_plain_runner_says_that_there_is_no_batch(work_dir):
    config = make_config(work_dir, num_images=6, batch_size=8, param_scheduler=[],
                         custom_hooks=[dict(type='InstanceBankHook')])
    config['train_dataloader'].update(drop_last=True, sampler=dict(type='SlidingWindowSampler'))
    with pytest.raises(ValueError, match='leaves nothing of 6 images in batches of 8: set'):
        Runner.from_cfg(Config(config)).train()


def test_an_endless_sampler_fills_its_batches(work_dir):
    config = make_config(work_dir, num_images=6, batch_size=8, param_scheduler=[],
                         head=dict(num_negatives=None),
                         train_cfg=dict(type='IterBasedTrainLoop', max_iters=4),
                         custom_hooks=[dict(type='InstanceBankHook')])
    config['train_dataloader'].update(
        drop_last=True, sampler=dict(type='SlidingWindowSampler', endless=True))
    runner = Runner.from_cfg(Config(config))
    runner.train()
    assert runner.model.head.bank.step == 4


@pytest.mark.parametrize('drop_last', [False, True])
def test_fewer_images_than_a_batch(work_dir, said, drop_last):
    runner = run(work_dir, 6, drop_last=drop_last)
    assert runner.model.backbone.batches == [6, 6]
    assert bool([text for text in said if 'drop_last=False is used' in text]) == drop_last
    plan, = [text for text in said if 'PIC: ' in text]
    assert 'batch 8 on one process, more than the 6 images: a step has all of them' in plan
    assert 'window 3 images, stride 1' in plan


def test_num_negatives_beside_few_images(work_dir, said):
    runner = Runner.from_cfg(Config(make_config(work_dir, max_epochs=1, seed=0)))
    runner.model.head.num_negatives = 65536
    runner.train()
    plan, = [text for text in said if 'PIC: ' in text]
    assert '50 instances, softmax over all of them (num_negatives=65,536 is no fewer).' in plan
