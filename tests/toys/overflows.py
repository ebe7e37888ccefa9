# SPDX-License-Identifier: Apache-2.0
"""Gradients that overflow, and what a gradient scaler makes of them."""
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmpretrain.registry import HOOKS, OPTIM_WRAPPERS

from toys.processes import train_as_rank

OVERFLOWS = (3, 4, 11)  # iterations


def allow_amp_on_cpu(monkeypatch):
    """mmengine's AmpOptimWrapper is for accelerators; torch's scaler works here too."""
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('torch before 2.3 has a gradient scaler for GPUs alone')
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    monkeypatch.setattr(f'{module}.GradScaler', partial(torch.amp.GradScaler, 'cpu'))


@contextmanager
def no_autocast(**kwargs):
    """In the place of torch's: computes in float32."""
    yield


@HOOKS.register_module()
class BreakGradients(Hook):
    """Overflows the class weights' gradients, or the network's, at some iterations."""

    def __init__(self, of):
        self.of = of

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.of == 'class_weights':
            parameter = runner.model.head.weight
        else:
            parameter = next(runner.model.backbone.parameters())
        if runner.iter in OVERFLOWS:
            self.handle = parameter.register_hook(lambda grad: grad * torch.inf)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter in OVERFLOWS:
            self.handle.remove()


@OPTIM_WRAPPERS.register_module()
class SkipOverflows(OptimWrapper):
    """Takes no step where :class:`BreakGradients` breaks gradients, and looks at none."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_calls = 0

    def step(self, **kwargs):
        if self.num_calls not in OVERFLOWS:
            super().step(**kwargs)
        self.num_calls += 1


@HOOKS.register_module()
class LargeNetwork(Hook):
    """A network whose gradients are small beside those of the class weights."""

    def before_train(self, runner):
        model = runner.model.module
        with torch.no_grad():
            for parameter in [*model.backbone.parameters(), *model.neck.parameters()]:
                parameter.mul_(100)


def steps_with_a_scaler(work_dir, kwargs):
    """In one of several processes: train with a gradient scaler; steps of the class weights."""
    with pytest.MonkeyPatch.context() as patch:
        allow_amp_on_cpu(patch)
        return train_as_rank(work_dir, **kwargs).model.module.head.bank.step
