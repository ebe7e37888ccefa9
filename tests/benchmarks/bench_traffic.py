# SPDX-License-Identifier: Apache-2.0
"""Bytes that each process sends in a step for the head, replicated and sharded.

    python tests/benchmarks/bench_traffic.py
    python tests/benchmarks/bench_traffic.py --num-negatives 1048576 --measure

Real processes, joined by gloo and DistributedDataParallel, train a head of random features in which
every class of a batch returns and pushes another one out, the worst case. What they send is read
off their sockets (Linux). Beside it is what follows from the sizes, which is also given for numbers
of processes that are not at hand. The gradient of the network itself is left out: it is the same.
"""
from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pic_plugin.bank import SampledClassWeights
from pic_plugin.communication import SENT, ring_bytes
from pic_plugin.models import PICHead

MB = 1e6
SGD: dict[str, Any] = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)
PARTS = ('ids', 'rows', 'features', 'softmax', 'gradient')
BYTES_SENT = 200  # of Linux's struct tcp_info: tcpi_bytes_sent


class Model(nn.Module):
    """A network of one layer and the head."""

    def __init__(self, args: argparse.Namespace, sharded: bool) -> None:
        super().__init__()
        self.network = nn.Linear(args.feat_dim, args.feat_dim)
        self.head = PICHead(args.feat_dim, num_negatives=args.num_negatives, sharded=sharded)
        if self.head.slots.is_sharded:
            self._ddp_params_and_buffers_to_ignore = ['head.weight']

    def forward(self, images: Tensor, ids: list[int]) -> Tensor:
        return self.head.loss(self.network(images),
                              [SimpleNamespace(sample_idx=i) for i in ids])['loss']


def train(args: argparse.Namespace, sharded: bool) -> dict[str, float]:
    """In one of several processes: bytes sent a step, by purpose and on all sockets."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = Model(args, sharded)
    head = model.head
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    num_instances = 8 * args.num_negatives + 8 * args.batch_size * world_size
    sampled = SampledClassWeights(head.weight, optimizer, num_instances, args.num_negatives,
                                  slots=head.slots)
    head.attach(sampled)
    order = np.random.default_rng(0).permutation(num_instances)
    sampled.start()
    with torch.no_grad():  # the active set is full from here on
        sampled.bank.sample(order[:args.num_negatives], sampled.tensors)
    position = args.num_negatives
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            dist.barrier()
            SENT.clear()
            before = bytes_sent()
        stretch = order[position + rank:position + args.batch_size * world_size:world_size]
        position += args.batch_size * world_size
        sampled.sample(stretch)
        optimizer.zero_grad()
        wrapped(torch.randn(args.batch_size, args.feat_dim), stretch.tolist()).backward()
        optimizer.step()
    measured = {name: count / args.steps for name, count in SENT.items()}
    on_sockets = (bytes_sent() - before) / args.steps
    own = sum(parameter.numel() for parameter in model.network.parameters()) * 4
    measured['all sockets'] = on_sockets - ring_bytes(own, world_size)
    return measured


def bytes_sent() -> int:
    """Bytes that this process has sent over TCP."""
    total = 0
    for name in os.listdir('/proc/self/fd'):
        try:
            if not os.readlink(f'/proc/self/fd/{name}').startswith('socket:'):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # a socket of another kind, or closed meanwhile
            continue
        if len(info) >= BYTES_SENT + 8:
            total += struct.unpack_from('Q', info, BYTES_SENT)[0]
    return total


def computed(sharded: bool, world_size: int, num_negatives: int, batch_size: int,
             feat_dim: int) -> dict[str, float]:
    """Bytes that each process sends a step, from the sizes alone."""
    others, everyone = world_size - 1, batch_size * world_size
    row = 2 * feat_dim * 4  # class weight and momentum

    def ring(num_bytes: float) -> float:
        return ring_bytes(num_bytes, world_size)

    parts = dict.fromkeys(PARTS, 0.0)
    parts['ids'] = others * (2 + batch_size) * 8
    if sharded:
        # As many leave as return; of each process's share, 1 in world_size stays where it is.
        parts['rows'] = 2 * batch_size * row * others / world_size
        parts['features'] = 2 * others * batch_size * feat_dim * 4  # and what becomes of gradients
        parts['softmax'] = ring(3 * everyone * 4) + others * batch_size * 4
    else:
        parts['rows'] = others * batch_size * row
        parts['gradient'] = ring(num_negatives * feat_dim * 4)
    return parts


def worker(pipe: Any, rank: int, world_size: int, port: int, args: argparse.Namespace) -> None:
    """One of the processes."""
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank),
                      WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    pipe.send([train(args, sharded) for sharded in (False, True)])
    dist.barrier()
    dist.destroy_process_group()


def measure(world_size: int, args: argparse.Namespace) -> list[dict[str, float]]:
    """Bytes sent a step, mean over the processes: replicated, sharded."""
    context = multiprocessing.get_context('spawn')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    pipes, processes = [], []
    for rank in range(world_size):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=worker, args=(theirs, rank, world_size, port, args))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    results = [pipe.recv() for pipe in pipes]  # EOFError if one has died
    for process in processes:
        process.join()
    return [{name: float(np.mean([result[mode].get(name, 0.0) for result in results]))
             for name in (*PARTS, 'all sockets')} for mode in (0, 1)]


def line(world_size: int, sharded: bool, how: str, parts: dict[str, float]) -> str:
    total = sum(parts[name] for name in PARTS)
    sockets = f'{parts["all sockets"] / MB:12.3f}' if 'all sockets' in parts else ' ' * 12
    return (f'{world_size:9} {"sharded" if sharded else "replicated":10} {how:8} '
            + ' '.join(f'{parts[name] / MB:9.3f}' for name in PARTS)
            + f' {total / MB:10.3f} {sockets}')


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--num-negatives', type=int, default=65536, help='K (default: 65536)')
    parser.add_argument('--batch-size', type=int, default=64, help='of each process (default: 64)')
    parser.add_argument('--feat-dim', type=int, default=128, help='d (default: 128)')
    parser.add_argument('--measure', type=int, nargs='*', default=[2, 3, 4], metavar='PROCESSES',
                        help='numbers of processes to start (default: 2 3 4)')
    parser.add_argument('--compute', type=int, nargs='*', default=[8, 16, 32, 64, 128, 256],
                        metavar='PROCESSES', help='(default: 8 16 32 64 128 256)')
    parser.add_argument('--warmup', type=int, default=2, help='steps (default: 2)')
    parser.add_argument('--steps', type=int, default=3, help='steps (default: 3)')
    args = parser.parse_args()
    print(f'MB (10^6 bytes) that each process sends a step; torch {torch.__version__}, gloo, '
          f'K={args.num_negatives}, batch {args.batch_size} a process, d={args.feat_dim}, float32')
    print(f'{"processes":>9} {"head":10} {"":8} ' + ' '.join(f'{name:>9}' for name in PARTS)
          + f' {"sum":>10} {"on sockets":>12}')
    for world_size in (*args.measure, *args.compute):
        runs = measure(world_size, args) if world_size in args.measure else [{}, {}]
        for sharded, measured in zip((False, True), runs):
            expected = computed(sharded, world_size, args.num_negatives, args.batch_size,
                                args.feat_dim)
            if measured:
                # DistributedDataParallel's part has no counter: what the others leave of the sum.
                counted = sum(measured[name] for name in PARTS)
                measured['gradient'] = max(measured['all sockets'] - counted, 0.0)
                print(line(world_size, sharded, 'measured', measured), flush=True)
            print(line(world_size, sharded, 'computed', expected), flush=True)
    print('ids: of the batch; rows: class weights and momenta that return (and, sharded, leave); '
          'gradient: of\nthe class weights; measured, all that is not counted elsewhere, protocol '
          'included.')


if __name__ == '__main__':
    main()
