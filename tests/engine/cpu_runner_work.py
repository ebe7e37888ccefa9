# SPDX-License-Identifier: Apache-2.0
"""One step of CPURunner on different data in each process; prints the weight."""
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS, RUNNERS
from torch import nn

import pic_plugin  # noqa: F401

os.environ['CUDA_VISIBLE_DEVICES'] = ''


@MODELS.register_module()
class Toy(BaseModel):

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.norm = nn.SyncBatchNorm(1)

    def forward(self, inputs, mode):
        normed = self.norm(torch.stack([*inputs, *inputs]).view(-1, 1))
        return dict(loss=(self.weight * torch.stack(inputs)).mean() + 0 * normed.sum())


@HOOKS.register_module()
class SlowEnd(Hook):
    """The first process has more to do at the end, as when it saves."""

    def after_run(self, runner):
        if dist.get_rank() == 0:
            time.sleep(1)
            (Path(sys.argv[1]) / 'ended').touch()


cfg = Config(dict(
    runner_type='CPURunner', model=dict(type='Toy'), work_dir=sys.argv[1], launcher='pytorch',
    custom_hooks=[dict(type='SlowEnd')],
    train_dataloader=dict(
        batch_size=1, dataset=[dict(inputs=torch.tensor(value)) for value in (1., 3.)],
        sampler=dict(type='DefaultSampler', shuffle=False)),
    train_cfg=dict(by_epoch=True, max_epochs=1),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)), default_scope='mmengine'))
runner = RUNNERS.build(cfg)
runner.train()
print(f'rank {dist.get_rank()} of {dist.get_world_size()} {dist.get_backend()}: '
      f'{type(runner).__name__} {runner.model.module.weight.item()} '
      f'ended {(Path(sys.argv[1]) / "ended").is_file()}')
