# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one step of the head, for several numbers of instances, beside dense SGD.

    python -m pic_plugin.tools.benchmark
    python -m pic_plugin.tools.benchmark --instances 1000000 --dense 1000000 --num-negatives 65536

A step is what the head adds to a training iteration: choose the active classes, bring in their
rows, loss forward and backward, SGD step. Features are random; there is no backbone. *bank* is the
plugin's way. *dense* is the plain one: all N rows in one parameter, a soft-max over the same K
classes, and torch.optim.SGD over all rows. All cases run in turns, in one process, so that what
else the machine does meets all of them.
"""
from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pic_plugin.bank import InstanceBank, Planes, initial_rows, sgd_transition
from pic_plugin.datasets import SlidingWindowSampler
from pic_plugin.models import CosineSoftmaxLoss

MB = 2**20
SEED = 0
TEMPERATURE = 0.2
SGD: Dict[str, Any] = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)  # the authors' setting


class Step(NamedTuple):
    """One measured step.

    Attributes:
        loss (float): Mean over the batch.
        seconds (float): Of the whole step.
        bank_seconds (float): Of these, choosing classes and moving rows.
        returned (int): Rows that came in and had missed steps.
    """

    loss: float
    seconds: float
    bank_seconds: float
    returned: int


class Head(Protocol):
    """A way to keep class weights and to train them."""

    def step(self, ids: np.ndarray, features: Tensor) -> Step:
        """Train on the instance classes ``ids`` (B,) int64 with ``features`` (B, d) float32."""

    def class_weights(self, ids: np.ndarray) -> Tensor:
        """Current rows (M, d) float32 of classes (M,) int64."""


class BankHead:
    """The plugin's head: K rows in the parameter, the others in the bank.

    Args:
        num_instances (int): N.
        num_negatives (int): K, at most N.
        feat_dim (int): d.
        device (torch.device): Of the parameter; the bank is on the host.
    """

    def __init__(self, num_instances: int, num_negatives: int, feat_dim: int,
                 device: torch.device) -> None:
        self.weight = nn.Parameter(torch.zeros(num_negatives, feat_dim, device=device))
        self.optimizer = torch.optim.SGD([self.weight], **SGD)
        self.loss = CosineSoftmaxLoss(TEMPERATURE)
        self.bank = InstanceBank(num_instances, num_negatives, num_negatives, feat_dim, SEED,
                                 num_states=1)
        with torch.no_grad():
            self.bank.start(self._planes())

    def step(self, ids: np.ndarray, features: Tensor) -> Step:
        """See :class:`Head`; the calls to the bank are those of InstanceBankHook and PICHead."""
        start = _now(self.weight)
        with torch.no_grad():
            missed = self.bank.sample(ids, self._planes())
        targets = self.bank.positions(ids).to(features.device)
        sampled = _now(self.weight)
        loss, accuracy = self.loss.with_accuracy(features, self.weight[self.bank.softmax_rows],
                                                 targets)
        self.optimizer.zero_grad()
        loss.backward()
        first = not self.optimizer.state
        self.optimizer.step()
        stepped = _now(self.weight)
        self.bank.record_step(sgd_transition(**SGD, first=first))
        end = _now(self.weight)
        return Step(float(loss.detach()), end - start, sampled - start + end - stepped,
                    int((missed > 0).sum()))

    def class_weights(self, ids: np.ndarray) -> Tensor:
        """See :class:`Head`."""
        return self.bank.class_weights(ids, self.weight)

    def _planes(self) -> Planes:
        state = self.optimizer.state.get(self.weight, {})
        return Planes(self.weight.detach(), [state['momentum_buffer']] if state else [])


class DenseHead:
    """Plain PyTorch: all N rows in the parameter, and nothing of the plugin but the initial rows.

    Args:
        num_instances (int): N.
        num_negatives (int): K; from N on, a soft-max over all rows.
        feat_dim (int): d.
        device (torch.device): Of the parameter.
    """

    def __init__(self, num_instances: int, num_negatives: int, feat_dim: int,
                 device: torch.device) -> None:
        self.weight = nn.Parameter(torch.empty(num_instances, feat_dim, device=device))
        for ids in np.array_split(np.arange(num_instances), -(-num_instances // 4096)):
            rows = torch.from_numpy(initial_rows(ids, feat_dim, SEED))
            self.weight.data[ids[0]:ids[-1] + 1] = rows.to(device)
        self.optimizer = torch.optim.SGD([self.weight], **SGD)
        self.num_negatives = num_negatives
        self.recent: dict[int, None] = {}  # active classes, the longest-unsampled one first

    def step(self, ids: np.ndarray, features: Tensor) -> Step:
        """See :class:`Head`."""
        start = _now(self.weight)
        for i in ids.tolist():
            self.recent.pop(i, None)
            self.recent[i] = None
        while len(self.recent) > self.num_negatives:
            del self.recent[next(iter(self.recent))]
        if self.num_negatives >= len(self.weight):
            class_weights: Tensor = self.weight
            targets = torch.from_numpy(ids)
        else:
            place = {i: j for j, i in enumerate(self.recent)}
            active = torch.tensor(list(place), device=self.weight.device)
            class_weights = self.weight[active]
            targets = torch.tensor([place[i] for i in ids.tolist()])
        cosines = F.normalize(features, dim=1) @ F.normalize(class_weights, dim=1).t()
        loss = F.cross_entropy(cosines / TEMPERATURE, targets.to(cosines.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        end = _now(self.weight)
        return Step(float(loss.detach()), end - start, 0.0, 0)

    def class_weights(self, ids: np.ndarray) -> Tensor:
        """See :class:`Head`."""
        return self.weight.detach()[torch.from_numpy(ids)]


class Case:
    """A head and the batches that it is given.

    Args:
        kind (str): 'bank' or 'dense'.
        num_instances (int): N.
        args (argparse.Namespace): Sizes, of :func:`parse_args`.
    """

    def __init__(self, kind: str, num_instances: int, args: argparse.Namespace) -> None:
        self.kind, self.num_instances = kind, num_instances
        self.batch_size, self.feat_dim = args.batch_size, args.feat_dim
        self.device = torch.device(args.device)
        self.steps: List[Step] = []
        before = resident_bytes('VmRSS')
        make = BankHead if kind == 'bank' else DenseHead
        self.head: Head = make(num_instances, min(args.num_negatives, num_instances),
                               args.feat_dim, self.device)
        self._ids = _stream(num_instances, args.window_size, args.stride)
        self._generator = torch.Generator().manual_seed(SEED)
        self.run(args.warmup)
        self.warmup_losses = [step.loss for step in self.steps]
        self.steps.clear()
        self.resident_bytes = max(resident_bytes('VmRSS') - before, 0)

    def run(self, num_steps: int) -> None:
        """Train, and remember each step."""
        for _ in range(num_steps):
            ids = np.fromiter(self._ids, dtype=np.int64, count=self.batch_size)
            features = torch.randn(self.batch_size, self.feat_dim, generator=self._generator)
            self.steps.append(self.head.step(ids, features.to(self.device).requires_grad_()))

    @property
    def median_ms(self) -> float:
        """Median time of a step, milliseconds."""
        return 1e3 * statistics.median(step.seconds for step in self.steps)

    @property
    def bank_ms(self) -> float:
        """Median time of the bank in a step, milliseconds."""
        return 1e3 * statistics.median(step.bank_seconds for step in self.steps)

    @property
    def returned(self) -> float:
        """Mean number of rows that returned in a step."""
        return statistics.fmean(step.returned for step in self.steps)


def resident_bytes(key: str) -> int:
    """Memory of this process, bytes.

    Args:
        key (str): 'VmRSS' for now, 'VmHWM' for the peak.

    Returns:
        int: Bytes; 0 where the system does not tell (other than Linux).
    """
    status = Path('/proc/self/status')
    found = status.exists() and re.search(rf'^{key}:\s+(\d+) kB', status.read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _now(tensor: Tensor) -> float:
    """Seconds; on a GPU when all work so far is done."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()


def _stream(num_instances: int, window_size: int, stride: int) -> Iterator[int]:
    sampler = SlidingWindowSampler(range(num_instances), window_size, stride, seed=SEED)
    while True:
        yield from sampler
        sampler.set_epoch(sampler.epoch + 1)


def make_cases(args: argparse.Namespace) -> List[Case]:
    """Build all cases and run their warm-up."""
    return [Case(kind, num_instances, args)
            for kind, sizes in (('bank', args.instances), ('dense', args.dense))
            for num_instances in sizes]


def measure(cases: Sequence[Case], steps: int, repetitions: int) -> None:
    """Run all cases in turns."""
    for _ in range(repetitions):
        for case in cases:
            case.run(steps)


def report(cases: Sequence[Case]) -> str:
    """A table of all cases."""
    first = cases[0].median_ms
    lines = [f'{"case":6} {"N":>13} {"ms/step":>9} {"ratio":>7} {"bank ms":>8} {"bank %":>7} '
             f'{"returned":>9} {"RSS MB":>8}']
    for case in cases:
        lines.append(
            f'{case.kind:6} {case.num_instances:13,} {case.median_ms:9.2f} '
            f'{case.median_ms / first:7.2f} {case.bank_ms:8.2f} '
            f'{100 * case.bank_ms / case.median_ms:7.1f} {case.returned:9.0f} '
            f'{case.resident_bytes / MB:8.0f}')
    lines += [
        f'Peak of the whole process: {resident_bytes("VmHWM") / MB:.0f} MB.',
        'ms/step and bank ms: medians over all measured steps; ratio: to the first row; bank: '
        'choosing classes and moving rows;',
        'returned: rows a step that came back from the bank and had missed steps; RSS: growth of '
        'the resident memory by a case, warm-up included.'
    ]
    return '\n'.join(lines)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: If a size is out of range.
    """
    parser = argparse.ArgumentParser(prog='benchmark', description=__doc__.splitlines()[0])
    parser.add_argument('--instances', nargs='*', type=int, metavar='N',
                        default=[100_000, 10_000_000],
                        help='sizes to run with the bank (default: 100000 10000000)')
    parser.add_argument('--dense', nargs='*', type=int, metavar='N', default=[100_000],
                        help='sizes to run densely, 12 * N * d bytes each (default: 100000)')
    for name, default, meaning in (
            ('num-negatives', 4096, 'K, active classes'),
            ('batch-size', 256, 'B, images'),
            ('feat-dim', 128, 'd'),
            ('window-size', 16384, 'images in the window of the sampler; more than K, or no row '
             'ever leaves'),
            ('stride', 2048, 'images by which the window moves'),
            ('warmup', 160, 'steps of each case before measuring'),
            ('steps', 20, 'steps of a case in one turn'),
            ('repetitions', 5, 'turns of each case')):
        parser.add_argument(f'--{name}', type=int, default=default,
                            help=f'{meaning} (default: {default})')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    args = parser.parse_args(argv)
    for name in ('num_negatives', 'batch_size', 'feat_dim', 'warmup', 'steps', 'repetitions'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    if args.batch_size > args.num_negatives:
        parser.error(f'--batch-size {args.batch_size} does not fit --num-negatives '
                     f'{args.num_negatives}: every image of a batch is an active class')
    if not args.instances + args.dense:
        parser.error('nothing to run: give --instances or --dense')
    if min(args.instances + args.dense) < 1:
        parser.error('every N of --instances and --dense must be at least 1')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    print(f'torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads of '
          f'{os.cpu_count()} cores; K={args.num_negatives}, B={args.batch_size}, '
          f'd={args.feat_dim}, window {args.window_size}, stride {args.stride}; '
          f'{args.warmup} steps of warm-up, {args.repetitions} turns of {args.steps} steps',
          flush=True)
    cases = make_cases(args)
    measure(cases, args.steps, args.repetitions)
    print(report(cases))


if __name__ == '__main__':
    main()
