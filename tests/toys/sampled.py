# SPDX-License-Identifier: Apache-2.0
"""Sampled class weights of 40 images in a loop of one's own."""
import numpy as np
import torch
import torch.distributed as dist

from pic_plugin.bank import SampledClassWeights
from pic_plugin.losses import cosine_softmax

SGD = dict(lr=0.1, momentum=0.9, weight_decay=0.01)
# Whether this torch has fused optimizers for CPUs, too.
FUSES_ON_CPUS = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 4)


def make(num_negatives=8, num_rows=None, optimizer=torch.optim.SGD, options=SGD, **kwargs):
    weight = torch.nn.Parameter(torch.empty(num_rows or num_negatives or 40, 4))
    return SampledClassWeights(weight, optimizer([weight], **options), 40, num_negatives, **kwargs)


def step(sampled, ids, scale=1.0):
    sampled.optimizer.zero_grad()
    targets = sampled.sample(ids)
    losses, _ = cosine_softmax(torch.ones(len(ids), 4), sampled.active, targets)
    (losses.mean() * scale).backward()
    return targets


def train_in_a_process():
    """Two processes that sample other images each; class weights that they end with."""
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    sampled = make(16)
    sampled.start()
    first = 20 * dist.get_rank()
    for number in range(6):
        step(sampled, np.arange(first + 3 * number, first + 3 * number + 3))
        dist.all_reduce(sampled.weight.grad)
        sampled.weight.grad /= dist.get_world_size()
        sampled.optimizer.step()
    return sampled.active_ids.tolist(), sampled.rows(range(40)).numpy()


def group_comes_late():
    """One of two processes whose class weights were made before the two knew of each other."""
    sampled = make()
    sampled.start()
    step(sampled, [1, 2])
    dist.init_process_group('gloo')
    step(sampled, [3, 4])


def num_steps(sampled, batches=5):
    """Train; optimizer steps that were counted."""
    sampled.start()
    for number in range(batches):
        step(sampled, np.arange(4 * number, 4 * number + 4))
        sampled.optimizer.step()
    return sampled.bank.step


def compile_and_train():
    """Counted steps of class weights from before the first compilation, and from after it."""
    sampled = make()
    torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2))
    return num_steps(sampled), num_steps(make())
