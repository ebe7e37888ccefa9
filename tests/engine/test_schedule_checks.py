# SPDX-License-Identifier: Apache-2.0
"""Schedules that do not fit the training are warned of, and the plan says where the rate ends."""
import logging

import pytest
from mmengine.config import Config
from mmengine.config.lazy import LazyObject
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from pic_plugin.engine.schedule_checks import schedule_length_notices, scheduled_rates
from toys.training import make_config, train

COSINE = dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, convert_to_iter_based=True)
WARMUP = dict(type='LinearLR', start_factor=0.01, begin=0, end=2, by_epoch=True,
              convert_to_iter_based=True)


def prepare(work_dir, schedulers, max_epochs=8, **kwargs):
    """A runner as it is before the first step, learning rate 0.1, 7 iterations an epoch."""
    runner = Runner.from_cfg(Config(make_config(
        work_dir, max_epochs=max_epochs, param_scheduler=schedulers, **kwargs)))
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.param_schedulers and runner.build_param_scheduler(
        runner.param_schedulers)
    return runner


def real_rates(work_dir, schedulers, **kwargs):
    """Rates that the optimizer really had."""
    rates, runner = [], None

    class Spy(logging.Handler):
        pass

    runner = Runner.from_cfg(Config(make_config(work_dir, param_scheduler=schedulers, **kwargs)))
    step = runner.model.train_step
    runner.model.train_step = lambda data, optim_wrapper: (
        rates.append(optim_wrapper.param_groups[0]['lr']), step(data, optim_wrapper))[1]
    runner.train()
    return rates


@pytest.mark.parametrize('schedulers, kwargs', [
    ([WARMUP, dict(COSINE, begin=2, end=4)], dict(max_epochs=4)),
    ([WARMUP, dict(COSINE, begin=2, end=40)], dict(max_epochs=4)),
    ([dict(type=LazyObject('mmengine.optim', 'MultiStepLR'), milestones=[1, 2])],
     dict(max_epochs=3)),
    ([dict(type='MultiStepLR', milestones=[1, 2], by_epoch=True)], dict(max_epochs=3)),
    ([dict(type='CosineAnnealingLR', T_max=9, by_epoch=False)],
     dict(train_cfg=dict(by_epoch=False, max_iters=9))),
    (None, dict(max_epochs=1)),
])
def test_rates_are_those_of_the_optimizer(work_dir, monkeypatch, schedulers, kwargs):
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    expected = real_rates(work_dir, schedulers, **kwargs)
    kwargs = dict(kwargs)
    found = scheduled_rates(prepare(work_dir, schedulers, **kwargs))
    assert found.end == pytest.approx(expected[-1], rel=1e-9)
    assert found.peak == pytest.approx(max(expected), rel=1e-9)


def test_groups_with_rates_of_their_own(work_dir):
    options = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.01)}))
    runner = prepare(work_dir, None)
    wrapper = dict(make_config(work_dir)['optim_wrapper'], **options)
    runner.optim_wrapper = runner.build_optim_wrapper(wrapper)
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.001)
    assert scheduled_rates(runner).peak == pytest.approx(0.1)
    runner.auto_scale_lr = dict(enable=True, base_batch_size=2)  # of 8
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.004)
    assert scheduled_rates(runner).peak == pytest.approx(0.4)


def test_long_epochs_are_shortened(work_dir, monkeypatch):
    schedulers = [WARMUP, dict(COSINE, begin=2, end=8)]
    exact = scheduled_rates(prepare(work_dir, schedulers))
    monkeypatch.setattr('pic_plugin.engine.schedule_checks.MAX_STEPS', 32)
    coarse = scheduled_rates(prepare(work_dir, schedulers))
    assert exact.end < coarse.end < 0.02 and exact.peak == pytest.approx(coarse.peak)


@pytest.mark.parametrize('schedulers, expected', [
    ([WARMUP, dict(COSINE, begin=2, end=8)], []),
    ([WARMUP, dict(COSINE, begin=2, end=200)],
     ['CosineAnnealingLR ends after 200 epochs (1400 iterations), and the training after 8 epochs '
      '(56 iterations): it is cut off, with a learning rate of 0.0998 at the end']),
    ([dict(type='CosineAnnealingLR', T_max=9, by_epoch=True)],
     ['CosineAnnealingLR ends after 9 epochs, and the training after 8 epochs']),
    ([WARMUP], ['LinearLR ends after 2 epochs (14 iterations), long before the training, which ends'
                ' after 8 epochs (56 iterations)']),
    ([WARMUP, dict(COSINE, begin=2, end=4)], ['CosineAnnealingLR ends after 4 epochs']),
    ([dict(type='MultiStepLR', milestones=[4, 12], by_epoch=True)],
     ['MultiStepLR ends after 12 epochs']),
    ([dict(type='ConstantLR', factor=1.0, by_epoch=True, end=8)], []),
    ([dict(type='ExponentialLR', gamma=0.9)], []),
    (None, []),
])
def test_schedules_of_another_length_than_the_training(work_dir, schedulers, expected):
    notices = schedule_length_notices(prepare(work_dir, schedulers))
    assert len(notices) == len(expected)
    for text, start in zip(notices, expected):
        assert text.startswith(start)


def test_a_schedule_that_is_over_says_how_to_train_further(work_dir):
    notice, = schedule_length_notices(prepare(work_dir, [WARMUP]))
    assert 'keeps its schedules' in notice and '`pretrain DATA --from WORK --out NEW`' in notice


def test_the_run_says_it(tmp_path, monkeypatch):
    warnings, infos = [], []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: warnings.append(str(text)))
    monkeypatch.setattr(MMLogger, 'info', lambda self, text, *args: infos.append(str(text)))
    train(tmp_path, max_epochs=1, param_scheduler=[WARMUP, dict(COSINE, begin=2, end=200)])
    assert any('CosineAnnealingLR ends after 200 epochs' in text for text in warnings)
    plan, = [text for text in infos if 'PIC: ' in text]
    # Seven of fourteen steps of the warm-up.
    assert 'Learning rate: 0.0467 at its highest, 0.0467 at the end of the run.' in plan
