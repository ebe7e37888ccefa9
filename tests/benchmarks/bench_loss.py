# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of one forward and backward pass of the loss, beside the plain versions.

Each row runs in a process of its own. Memory is the growth of the peak over the inputs and the
gradients of both (which every version needs): resident set size on the CPU, allocated on a GPU.

    python tests/benchmarks/bench_loss.py --classes 1000000
    python tests/benchmarks/bench_loss.py --device cuda --dtype float16
"""
from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.2
MB = 2**20


def plugin(features: Tensor, class_weights: Tensor, targets: Tensor) -> Tensor:
    from pic_plugin.losses import CosineSoftmaxLoss
    return CosineSoftmaxLoss(TEMPERATURE)(features, class_weights, targets)


def plain(features: Tensor, class_weights: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(F.normalize(features, dim=1), F.normalize(class_weights, dim=1))
    return F.cross_entropy(logits / TEMPERATURE, targets)


def chunked(features: Tensor, class_weights: Tensor, targets: Tensor) -> Tensor:
    """torch's own linear_cross_entropy, in chunks: without options it is the plain formula."""
    queries = F.normalize(features, dim=1) / TEMPERATURE
    return F.linear_cross_entropy(queries, F.normalize(class_weights, dim=1), targets,
                                  options=torch.nn.LinearCrossEntropyOptions())


VERSIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    'plugin': plugin, 'torch linear_cross_entropy': chunked, 'plain': plain}


def resident_bytes(key: str) -> int:
    status = Path('/proc/self/status').read_text()
    found = re.search(rf'^{key}:\s+(\d+) kB', status, re.MULTILINE)
    if found is None:
        raise RuntimeError(f'/proc/self/status has no {key}: run this on Linux.')
    return int(found.group(1)) * 1024


def measure(name: str, args: argparse.Namespace) -> str:
    """Run one version in this process and describe it in a line."""
    torch.set_num_threads(args.threads)
    dtype, device = getattr(torch, args.dtype), torch.device(args.device)

    torch.manual_seed(0)

    def make(rows: int) -> Tensor:
        return torch.randn(rows, args.dim, device=device, dtype=dtype, requires_grad=True)

    def step(features: Tensor, class_weights: Tensor) -> Tensor:
        targets = torch.arange(len(features), device=device) % len(class_weights)
        loss = VERSIONS[name](features, class_weights, targets)
        loss.backward()
        return loss.detach()

    step(make(64), make(64))
    features, class_weights = make(args.batch), make(args.classes)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resident_bytes('VmRSS')
    start = time.perf_counter()
    loss = float(step(features, class_weights))
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if device.type == 'cuda' else resident_bytes('VmHWM')
    gradients = sum(x.numel() * x.element_size() for x in (features, class_weights))
    return (f'{name:28} {loss:10.5f} {seconds:9.2f} {(peak - before - gradients) / MB:10.0f} '
            f'{gradients / MB:10.0f}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=1024, help='images (default: 1024)')
    parser.add_argument('--classes', type=int, default=1_000_000, help='default: 1000000')
    parser.add_argument('--dim', type=int, default=128, help='feature dimension (default: 128)')
    parser.add_argument('--dtype', default='float32', choices=['float16', 'bfloat16', 'float32'])
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    parser.add_argument('--version', choices=list(VERSIONS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.version:
        print(measure(args.version, args))
        return
    print(f'torch {torch.__version__}, {args.device}, {args.threads} threads, B={args.batch}, '
          f'C={args.classes}, d={args.dim}, {args.dtype}')
    print(f'{"version":28} {"loss":>10} {"seconds":>9} {"extra MB":>10} {"grads MB":>10}')
    for name in VERSIONS:
        if name == 'torch linear_cross_entropy' and not hasattr(F, 'linear_cross_entropy'):
            print(f'{name:28} not in this torch')
            continue
        child = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--version', name],
                               capture_output=True, text=True, check=False)
        if child.returncode:
            reason = (child.stderr.strip().splitlines() or [f'exit status {child.returncode}'])[-1]
            print(f'{name:28} failed: {reason}')
        else:
            print(child.stdout.strip().splitlines()[-1], flush=True)


if __name__ == '__main__':
    main()
