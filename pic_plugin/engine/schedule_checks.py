# SPDX-License-Identifier: Apache-2.0
"""Whether learning-rate schedules fit the length of the training, and where they end."""
from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import PARAM_SCHEDULERS
from torch import nn

from pic_plugin.engine.checkpoint.schedules import FURTHER
from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.engine.type_names import type_name

NEVER = 10**9  # mmengine's end of a schedule that has none
MAX_STEPS = 20_000  # simulated, a tenth of a second
LONG_BEFORE = 0.9  # of the training


class Rates(NamedTuple):
    """Learning rates that a schedule leads to.

    Attributes:
        peak (float): The highest.
        end (float): In the last iteration.
    """

    peak: float
    end: float


def scheduled_rates(runner: Runner) -> Rates | None:
    """Simulate the schedules of the config, in at most :data:`MAX_STEPS` steps.

    An epoch of many iterations is simulated with fewer, which moves the result by less than what a
    step changes.

    Returns:
        Rates | None: None where the config does not say enough, or a schedule depends on losses.
    """
    if hasattr(runner.optim_wrapper, 'items'):
        return None  # two optimizers, each with rates of its own
    cfg, rate = runner.cfg.get('param_scheduler'), _base_rate(runner)
    cfgs = [cfg] if isinstance(cfg, dict) and 'type' in cfg else cfg
    if not cfgs:
        return Rates(rate, rate)
    if isinstance(cfgs, dict) or any(type_name(one) == 'ReduceOnPlateauLR' for one in cfgs):
        return None
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    epochs = loop.max_epochs if by_epoch else 1
    length = len(runner.train_dataloader)
    steps = length if by_epoch else loop.max_iters
    # A schedule that is given in iterations, or a loop that counts them, cannot be shortened.
    if by_epoch and all(one.get('by_epoch', True) for one in cfgs):
        steps = length = max(1, min(length, MAX_STEPS // max(epochs, 1)))
    if epochs * steps > MAX_STEPS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of an optimizer that takes no steps
        return _simulate(cfgs, rate, epochs, steps, length)


def _base_rate(runner: Runner) -> float:
    """The optimizer's learning rate before schedules, and before what groups make of it."""
    wrapper = runner.optim_wrapper
    base = getattr(wrapper, 'base_param_settings', None)
    if base is None:
        group = wrapper.param_groups[0]
        return float(group.get('initial_lr', group['lr']))
    rate = float(base.get('initial_lr', base['lr']))
    # mmengine scales the groups, and not what it logs as base_lr.
    scale = runner.auto_scale_lr or {}
    if scale.get('enable'):
        rate *= images_of_a_step(runner.train_dataloader) / scale['base_batch_size']
    return rate


def _simulate(cfgs: list[dict], rate: float, epochs: int, steps: int, length: int) -> Rates:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    schedulers = []
    for one in cfgs:
        arguments = {key: value for key, value in one.items() if key not in ('type', '_scope_')}
        kind = one['type']
        cls: Any = kind if isinstance(kind, type) else PARAM_SCHEDULERS.get(kind)
        if arguments.pop('convert_to_iter_based', False):
            schedulers.append(cls.build_iter_from_epoch(
                **arguments, optimizer=optimizer, epoch_length=length))
        else:
            schedulers.append(cls(optimizer=optimizer, **arguments))
    peak = end = optimizer.param_groups[0]['lr']
    for _ in range(epochs):
        for _ in range(steps):
            end = optimizer.param_groups[0]['lr']
            peak = max(peak, end)
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return Rates(peak, end)


def schedule_length_notices(runner: Runner) -> list[str]:
    """Schedules that end after the training does, or long before.

    Returns:
        list[str]: A sentence for each.
    """
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        schedulers = [one for part in schedulers.values() for one in part]
    loop, notices, ends = runner.train_loop, [], []
    for scheduler in schedulers:
        total = loop.max_epochs if scheduler.by_epoch else loop.max_iters
        end = _end_of(scheduler, total)
        ends.append(1.0 if end is None else end / total)
        if end is not None and end > total:
            notices.append(
                f'{type(scheduler).__name__} ends after {_time(runner, scheduler, end)}, and the '
                f'training after {_time(runner, scheduler, total)}: it is cut off'
                f'{_rate_at_end(runner)}. Give both the same length: in the configs of this '
                'package --cfg-options max_epochs=... sets both, train_cfg.max_epochs the '
                'training alone.')
    if ends and max(ends) < LONG_BEFORE:
        last = schedulers[ends.index(max(ends))]
        total = loop.max_epochs if last.by_epoch else loop.max_iters
        end = _end_of(last, total)
        assert end is not None, 'else its share were 1'
        notices.append(
            f'{type(last).__name__} ends after {_time(runner, last, end)}, long before the '
            f'training, which ends after {_time(runner, last, total)}: for the rest the rate stays '
            f'as it is then. Give the last schedule the length of the training; a run that is '
            f'resumed keeps its schedules: to train it further, {FURTHER}.')
    return notices


def _end_of(scheduler: Any, total: int) -> int | None:
    """Steps after which a schedule changes nothing; None if that cannot be said."""
    if hasattr(scheduler, 'T_max'):  # mmengine's default of `end` is that of the training
        return int(scheduler.begin + scheduler.T_max)
    milestones = list(getattr(scheduler, 'milestones', []))
    if milestones and max(milestones) > total:
        return int(max(milestones))
    return None if milestones or scheduler.end >= NEVER else int(scheduler.end)


def _time(runner: Runner, scheduler: Any, steps: int) -> str:
    if scheduler.by_epoch:
        return f'{steps} epochs'
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'{steps / len(runner.train_dataloader):g} epochs ({steps} iterations)'
    return f'{steps} iterations'


def _rate_at_end(runner: Runner) -> str:
    rates = scheduled_rates(runner)
    return '' if rates is None else f', with a learning rate of {rates.end:.3g} at the end'
