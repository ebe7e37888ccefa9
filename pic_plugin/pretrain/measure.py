# SPDX-License-Identifier: Apache-2.0
"""A short measurement before training: how fast pictures load, and how fast the network steps."""
from __future__ import annotations

import gc
import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, MODELS
from torch import nn

from pic_plugin.analysis.network import quiet_log
from pic_plugin.pretrain.plan import Plan

LOADER_SECONDS, STEP_SECONDS = 2.0, 4.0
LEAST_IMAGES, LEAST_STEPS = 4, 2
CPU_BATCH = 32  # images: a CPU is no faster with more at a time


class Speed(NamedTuple):
    """Speeds of one process.

    Attributes:
        load (float): Images a second that one core loads and augments.
        step (float): Images a second that the network is trained on.
        device_bytes (int): Most memory of the device, bytes; 0 on a CPU.
    """

    load: float
    step: float
    device_bytes: int

    def overall(self, num_workers: int, num_processes: int = 1) -> float:
        """Images a second of the whole training."""
        if num_workers == 0:
            return num_processes / (1 / self.load + 1 / self.step)
        return num_processes * min(self.load * num_workers, self.step)

    def explain(self, plan: Plan) -> str:
        """Lines for people."""
        workers = plan.num_workers
        loads = self.load * max(workers, 1)
        lines = [f'Measured: a core loads {self.load:,.0f} images/s'
                 + (f', {workers} workers {loads:,.0f}' if workers > 1 else '')
                 + f'; the network takes {self.step:,.0f} images/s'
                 + (f' and {self.device_bytes / 2**30:.1f} GiB' if self.device_bytes else '') + '.']
        if loads < self.step:
            lines.append(
                'Loading is the bottleneck: '
                + (f'{self.step / self.load:.0f} cores would keep up with this network. '
                   if self.step > 1.5 * self.load else '')
                + 'Smaller copies of the pictures (a shorter side of '
                f'{round(plan.image_size * 1.25)} pixels), more cores, or several workers '
                '(train_dataloader.num_workers) help.')
        return '\n'.join(lines)


def measure_speed(cfg: Config, plan: Plan, device: str) -> Speed:
    """Load a few pictures and train a few steps, with a copy of the network that is thrown away.

    Args:
        cfg (Config): The training's.
        plan (Plan): Whose batch is used on a GPU.
        device (str): Where the network computes.

    Raises:
        torch.OutOfMemoryError: If a step needs more memory than the device has.
        ValueError: If no picture can be loaded.
    """
    try:
        with quiet_log('ERROR'), torch.random.fork_rng(devices=[]), \
                DefaultScope.overwrite_default_scope('mmpretrain'):
            load = _loader_speed(cfg.train_dataloader.dataset.to_dict())
            step, memory = _step_speed(cfg, plan, device)
    finally:
        gc.collect()
        if device.startswith('cuda'):
            torch.cuda.empty_cache()
    return Speed(load, step, memory)


def _loader_speed(cfg: dict) -> float:
    dataset: Any = DATASETS.build(cfg)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    dataset[order[0]]  # what is set up only once
    begin = time.perf_counter()
    count = 0
    for index in order:
        dataset[index]  # of a broken picture, mmengine's data set takes another one
        count += 1
        if count >= LEAST_IMAGES and time.perf_counter() - begin > LOADER_SECONDS:
            break
    return count / (time.perf_counter() - begin)


def _step_speed(cfg: Config, plan: Plan, device: str) -> tuple[float, int]:
    """Images a second, and most memory: a step from crops to new weights."""
    model = cfg.model.to_dict()
    preprocessor = MODELS.build(model['data_preprocessor']).to(device)
    channels_last = plan.memory_format == 'channels_last'
    network = nn.Sequential(MODELS.build(model['backbone']), MODELS.build(model['neck']))
    network = network.to(device).train()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    classes = plan.num_negatives or plan.num_images
    weight = nn.Parameter(0.01 * torch.randn(classes, 128, device=device))
    optimizer = torch.optim.SGD([*network.parameters(), weight], lr=1e-3, momentum=0.9)
    size = plan.batch_size if device.startswith('cuda') else min(plan.batch_size, CPU_BATCH)
    crops = torch.randint(0, 256, (size, 3, plan.image_size, plan.image_size), dtype=torch.uint8)
    targets = torch.arange(size, device=device) % classes
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats()
    begin, count = 0.0, -1  # the first step is not timed
    while count < LEAST_STEPS or time.perf_counter() - begin < STEP_SECONDS:
        amp = torch.autocast('cuda', getattr(torch, plan.precision)) if (
            plan.precision != 'float32') else nullcontext()
        with amp:
            images, = preprocessor(dict(inputs=crops), training=True)['inputs']
            features = network(images)[-1]  # (size, 128)
        logits = F.normalize(features.float()) @ F.normalize(weight).T / 0.2  # (size, classes)
        optimizer.zero_grad()
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        loss.item()  # a look at it waits for all that was queued, on any device
        count += 1
        if count == 0:
            begin = time.perf_counter()
    seconds = time.perf_counter() - begin
    memory = torch.cuda.max_memory_allocated() if device.startswith('cuda') else 0
    return count * size / seconds, memory
