# SPDX-License-Identifier: Apache-2.0
"""Work for processes in tests of the sharded head, which compare what it returns."""
import numpy as np
import torch
import torch.distributed as dist
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pic_plugin.bank import gather_batch
from pic_plugin.communication import SENT, communicator
from pic_plugin.engine.sharded_head import clip_grad_norm_over_shards
from pic_plugin.losses import Shards, cosine_softmax
from toys.processes import run_ranks, train_as_rank
from toys.training import make_config, snapshot, train


@MODELS.register_module()
class PlainLoss(nn.Module):
    """A loss that knows of one process alone."""

    def forward(self, features, class_weights, targets):
        return (features @ class_weights.t()).mean()


def join():
    """Join the processes, and say who this is."""
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    torch.set_num_threads(1)
    return dist.get_rank(), dist.get_world_size()


class SoftmaxCase:
    """Features of all processes, class weights, and who holds them; the same in all processes.

    Args:
        sizes (list[int]): Features of each process.
        num_classes (int): C.
        holders: Process of each class, or None: class modulo processes.
    """

    def __init__(self, sizes, num_classes, feat_dim=7, holders=None, seed=0, temperature=0.2,
                 block_elements=2**24, dtype=torch.float64, weight_scale=0.01, autocast=False,
                 train=('features', 'class_weights'), zeros=False, loss_scale=1.0):
        generator = torch.Generator().manual_seed(seed)
        features = 3 * torch.randn(sum(sizes), feat_dim, generator=generator, dtype=torch.float64)
        weights = torch.randn(num_classes, feat_dim, generator=generator, dtype=torch.float64)
        if zeros:
            features[::3], weights[::4] = 0, 0
        self.features, self.class_weights = features.to(dtype), (weight_scale * weights).to(dtype)
        self.targets = torch.randint(num_classes, (sum(sizes), ), generator=generator)
        self.sizes, self.temperature, self.block_elements = sizes, temperature, block_elements
        world_size = len(sizes)
        self.holders = torch.arange(num_classes) % world_size if holders is None else (
            torch.tensor(holders))
        self.train, self.autocast, self.loss_scale = train, autocast, loss_scale

    def own(self, rank):
        """Where the features of a process are."""
        start = sum(self.sizes[:rank])
        return slice(start, start + self.sizes[rank])

    def rows(self, rank):
        """Targets as rows of a process's class weights, or -1."""
        held = self.holders == rank
        places = torch.where(held, held.cumsum(0) - 1, -1)
        return places[self.targets]

    def coefficients(self):
        """What each loss is multiplied by, so that no two features have the same pull."""
        return self.loss_scale * torch.arange(1, sum(self.sizes) + 1, dtype=torch.float64)


def run_softmax(cases):
    """Losses, hits and gradients of this process for each case, and the bytes it sent."""
    rank, _ = join()
    results = []
    for case in cases:
        features = case.features[case.own(rank)].clone()
        class_weights = case.class_weights[case.holders == rank].clone()
        features.requires_grad_('features' in case.train)
        class_weights.requires_grad_('class_weights' in case.train)
        SENT.clear()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=case.autocast):
            losses, hits = cosine_softmax(
                features, class_weights, case.rows(rank), case.temperature, case.block_elements,
                Shards(communicator(), case.sizes))
        if case.train:
            (losses * case.coefficients()[case.own(rank)]).sum().backward()
        results.append(dict(losses=losses.detach(), hits=hits, features=features.grad,
                            class_weights=class_weights.grad, sent=dict(SENT)))
    return results


def skip_together(scaler_type):
    """In which of three steps a gradient scaler let this process update its parameters.

    In the second step the gradient of one process's class weights overflows, and nothing else.
    """
    rank, world_size = join()
    torch.manual_seed(0)
    network = DistributedDataParallel(nn.Linear(4, 4))
    # The gradient of a class weight grows as it gets shorter; from 1e-12 on it counts as zero.
    shard = nn.Parameter(torch.randn(3, 4) * (1.0 if rank < world_size - 1 else 1e-11))
    optimizer = torch.optim.SGD([dict(params=network.parameters()),
                                 dict(params=[shard], lr=1e-26)], lr=1e-3)  # it stays short
    scaler = scaler_type('cpu', init_scale=1.0, growth_interval=10**6)
    targets = torch.arange(2 * world_size) % (3 * world_size)
    rows = torch.where(targets % world_size == rank, targets // world_size, -1)
    updated = []
    for step in range(3):
        before = [p.detach().clone() for p in (*network.parameters(), shard)]
        optimizer.zero_grad()
        losses, _ = cosine_softmax(network(torch.randn(2, 4)), shard, rows,
                                   shards=Shards(communicator(), [2] * world_size))
        scaler.scale(losses.mean() * (1e34 if step == 1 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        updated.append([not torch.equal(p, old) for p, old in
                        zip((*network.parameters(), shard), before)])
    return updated


def clip(norm_type, max_norm, grads, shard_grad):
    """Clip gradients of which the last is held in parts; the norm and what became of them."""
    rank, world_size = join()
    parameters = [nn.Parameter(torch.zeros_like(grad)) for grad in grads]
    for parameter, grad in zip(parameters, grads):
        parameter.grad = grad.clone()
    shard = nn.Parameter(torch.zeros_like(shard_grad[rank::world_size]))
    shard.grad = shard_grad[rank::world_size].clone()
    norm = clip_grad_norm_over_shards(shard)([*parameters, shard], max_norm, norm_type=norm_type)
    return norm, [parameter.grad for parameter in parameters], shard.grad


def clip_cases(cases):
    """:func:`clip` for each of several arguments."""
    return [clip(*case) for case in cases]


def collective_cases():
    """Each collective with uneven parts, and the bytes counted for it."""
    rank, world_size = join()
    SENT.clear()
    processes = communicator()
    rows = torch.arange(rank + 1, dtype=torch.int64)[:, None] + 10 * rank  # r + 1 rows
    gathered = processes.gather_rows(rows, [r + 1 for r in range(world_size)], 'gather')
    summed = processes.sum(torch.full((5, ), float(rank)), 'sum')
    largest = processes.max(torch.tensor([float(rank), -rank]), 'max')
    # Process r gives process s the number 10 r + s, s times; process 0 gets nothing.
    sent = list(range(world_size))
    outgoing = torch.cat([torch.full((s, ), 10.0 * rank + s) for s in sent])
    exchanged = processes.exchange_rows(outgoing, sent, [rank] * world_size, 'exchange')
    sent = dict(SENT)
    batch, pending = gather_batch(np.arange(rank + 1) + 10 * rank, rank == world_size - 1,
                                  processes)
    return gathered, summed, largest, exchanged, sent, (batch, pending, batch.loss_factor)


def train_each(folder, cases):
    """Train one case after another; what each has come to and the bytes it sent, by name.

    Args:
        folder (str): With a work folder for each case.
        cases (dict): Arguments of ``toys.training.make_config`` by name.
    """
    outcomes = {}
    for name, kwargs in cases.items():
        SENT.clear()
        runner = train_as_rank(f'{folder}/{name}', **kwargs)
        sent = dict(SENT)  # before class weights are looked up
        outcomes[name] = dict(outcome(runner), sent=sent)
    return outcomes


def outcome(runner):
    """Losses, logged scalars and final state of a training."""
    scalars = {name[6:]: buffer.data[0] for name, buffer in
               runner.message_hub.log_scalars.items() if name.startswith('train/')}
    return dict(losses=runner.losses, scalars=scalars, state=snapshot(runner))


def options(epochs=6, head=None, optim=None, accumulate=1, **kwargs):
    """Arguments of a toy training without random augmentations."""
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = dict(type='CosineAnnealingLR', T_max=epochs, end=epochs, by_epoch=True,
                    convert_to_iter_based=True)
    return dict(dict(
        seed=11, augment=False, batch_size=4, max_epochs=epochs, head=dict(head or {}),
        param_scheduler=[schedule],
        optim_wrapper=dict(dict(optimizer=optimizer, accumulative_counts=accumulate),
                           **(optim or {})),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=3), checkpoint=None)), **kwargs)


def in_one_process(work_dir, num_ranks, **kwargs):
    """What several processes would do, in one: the same global batches in the same order."""
    round_up = kwargs.pop('round_up', True)
    size = kwargs['batch_size']
    sampler = dict(type='AllRanksSampler', window_size=20, stride=5, num_ranks=num_ranks,
                   batch_size=size, round_up=round_up)
    config = make_config(work_dir, **kwargs)
    kwargs['train_dataloader'] = dict(config['train_dataloader'], batch_size=size * num_ranks,
                                      sampler=sampler)
    return outcome(train(work_dir, **kwargs))


def for_ranks(work_dir, sharded, **kwargs):
    """A case for :func:`train_each`."""
    kwargs = dict(kwargs, head=dict(kwargs['head'], sharded=sharded))
    if not kwargs.pop('round_up', True):
        config = make_config(work_dir, **kwargs)
        config['train_dataloader']['sampler']['round_up'] = False
        kwargs['train_dataloader'] = config['train_dataloader']
    return kwargs


def in_ranks(folder, world_size, cases):
    """Outcomes by case, of all processes each."""
    results = run_ranks(train_each, world_size, str(folder), cases)
    for result in results:
        assert isinstance(result, dict), result
    return {name: [result[name] for result in results] for name in cases}


def several(*works):
    """Run several of the above in one set of processes."""
    return [globals()[name](*args) for name, *args in works]


def as_arrays(results):
    """Tensors as arrays, which pass through a pipe without file descriptors."""
    if isinstance(results, torch.Tensor):
        results = results.detach().cpu()
        return np.asarray(results.float() if results.dtype == torch.bfloat16 else results)
    if isinstance(results, dict):
        return {key: as_arrays(value) for key, value in results.items()}
    if isinstance(results, (list, tuple)):
        return [as_arrays(result) for result in results]
    return results


def work(*works):
    """:func:`several`, in a form that can be sent."""
    return as_arrays(several(*works))
