# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one step of the head, for several numbers of instances, beside dense SGD.

    python -m pic_plugin.tools.benchmark training    # whole steps, beside other methods
    python -m pic_plugin.tools.benchmark pipeline    # images a second and core of the loader
    python -m pic_plugin.tools.benchmark augment     # augmentation on the device

and of the head alone:

    python -m pic_plugin.tools.benchmark
    python -m pic_plugin.tools.benchmark --bank 100000 --file 1000000000 --dense 1280000
    python -m pic_plugin.tools.benchmark --bank 1280000 --num-negatives 4096 65536 --dense

A step is what the head adds to a training iteration: choose the active classes, bring in their
rows, loss forward and backward, SGD step. Features are random; there is no backbone. *bank* is the
plugin's way, *file* the same with the stored rows on disk, *cold* with those rows taken from the
system's cache before each turn. *dense* is plain PyTorch: all N rows in one parameter, a soft-max
over the same K classes, and torch.optim.SGD over all rows (the same weights as *bank*); *full* is
the soft-max over all N classes of the authors' code. All cases run in turns, in one process, so
that what else the machine does meets all of them.
"""
from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import List, Optional

import torch

from pic_plugin.bank.row_codec import DTYPES
from pic_plugin.datasets import SlidingWindowSampler
from pic_plugin.studies.benchmark.case import Case, Sizes
from pic_plugin.studies.benchmark.process import MB, resident_bytes

COMMANDS = ('training', 'pipeline', 'augment')
KINDS = ('bank', 'file', 'cold', 'dense', 'full')
NUM_INDICES = 1_000_000


def make_cases(args: argparse.Namespace, folder: Path) -> List[Case]:
    """Build all cases and run their warm-up."""
    sizes = Sizes(args.batch_size, args.feat_dim, args.window_size, args.stride,
                  torch.device(args.device))
    cases = []
    for num_negatives in args.num_negatives:
        for kind in KINDS:
            if kind == 'full' and num_negatives != args.num_negatives[0]:
                continue  # it has no K
            for num_instances in getattr(args, kind):
                case = Case(kind, num_instances, num_negatives, sizes, folder, args.dtype)
                plain = kind in ('dense', 'full') and args.plain_warmup is not None
                case.warm_up(args.plain_warmup if plain else args.warmup)
                cases.append(case)
    return cases


def measure(cases: Sequence[Case], steps: int, repetitions: int) -> None:
    """Run all cases in turns."""
    for _ in range(repetitions):
        for case in cases:
            case.run(steps)


def report(cases: Sequence[Case]) -> str:
    """A table of all cases."""
    first = cases[0].median_ms
    lines = [f'{"case":6} {"N":>13} {"K":>10} {"ms/step":>9} {"ratio":>7} {"bank ms":>8} '
             f'{"bank %":>7} {"returned":>9} {"peak MB":>8}']
    for case in cases:
        lines.append(
            f'{case.kind:6} {case.num_instances:13,} {case.num_negatives:10,} '
            f'{case.median_ms:9.2f} {case.median_ms / first:7.2f} {case.bank_ms:8.2f} '
            f'{100 * case.bank_ms / case.median_ms:7.1f} {case.returned:9.0f} '
            f'{case.peak_bytes / MB:8.0f}')
    lines += [
        f'All cases together hold {resident_bytes() / MB:.0f} MB.',
        'ms/step and bank ms: medians over all measured steps; ratio: to the first row; bank: '
        'choosing classes and moving rows;',
        'returned: rows a step that came back from the bank and had missed steps; peak MB: '
        'resident memory that a case added, warm-up and the largest step included.'
    ]
    return '\n'.join(lines)


def report_sampler(num_instances: Sequence[int], args: argparse.Namespace) -> str:
    """How fast the sampler is."""
    lines = [f'{"sampler":6} {"N":>12} {"start ms":>9} {"M indices/s":>12}']
    for size in num_instances:
        begin = time.perf_counter()
        sampler = SlidingWindowSampler(range(size), args.window_size, args.stride, seed=0)
        next(iter(sampler))
        started = time.perf_counter()
        count = 0
        while count < NUM_INDICES:
            for _ in sampler:
                count += 1
                if count == NUM_INDICES:
                    break
            sampler.set_epoch(sampler.epoch + 1)
        speed = NUM_INDICES / (time.perf_counter() - started) / 1e6
        lines.append(f'{"":6} {size:13,} {1e3 * (started - begin):9.2f} {speed:12.2f}')
    return '\n'.join(lines)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: If a size is out of range.
    """
    parser = argparse.ArgumentParser(prog='benchmark', description=__doc__.splitlines()[0])
    for kind, default, meaning in (
            ('bank', [100_000, 10_000_000], 'with the bank in memory'),
            ('file', [], 'with the bank on disk'),
            ('cold', [], 'with the bank on disk and out of the cache'),
            ('dense', [100_000], 'densely, 12 * N * d bytes each'),
            ('full', [], 'densely with a soft-max over all N')):
        text = ' '.join(map(str, default)) or 'none'
        parser.add_argument(f'--{kind}', nargs='*', type=int, metavar='N', default=default,
                            help=f'sizes to run {meaning} (default: {text})')
    parser.add_argument('--num-negatives', nargs='+', type=int, metavar='K', default=[4096],
                        help='active classes (default: 4096)')
    for name, value, meaning in (
            ('batch-size', 256, 'B, images'),
            ('feat-dim', 128, 'd'),
            ('window-size', 16384, 'images in the window of the sampler; more than K, or no row '
             'ever leaves'),
            ('stride', 2048, 'images by which the window moves'),
            ('warmup', 160, 'steps of each case before measuring'),
            ('steps', 20, 'steps of a case in one turn'),
            ('repetitions', 5, 'turns of each case')):
        parser.add_argument(f'--{name}', type=int, default=value,
                            help=f'{meaning} (default: {value})')
    parser.add_argument('--plain-warmup', type=int,
                        help='the same for dense and full, where no rows move (default: as the '
                        'others; with fewer, their weights are not those of the others)')
    parser.add_argument('--dtype', choices=DTYPES, default='float32',
                        help='of stored rows (default: float32)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--folder', type=Path,
                        help='where files of the bank go (default: where scratch files go)')
    args = parser.parse_args(argv)
    for name in ('batch_size', 'feat_dim', 'warmup', 'steps', 'repetitions'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    if args.batch_size > min(args.num_negatives):
        parser.error(f'--batch-size {args.batch_size} does not fit --num-negatives '
                     f'{min(args.num_negatives)}: every image of a batch is an active class')
    sizes = [size for kind in KINDS for size in getattr(args, kind)]
    if not sizes:
        parser.error('nothing to run: give --bank, --file, --cold, --dense or --full')
    if min(sizes) < 1:
        parser.error('every N must be at least 1')
    return args


def run_command(name: str, argv: Sequence[str]) -> None:
    """Run ``training``, ``pipeline`` or ``augment``, which print tables of their own."""
    study = importlib.import_module(f'pic_plugin.studies.benchmark.{name}')
    parser = argparse.ArgumentParser(prog=f'benchmark {name}',
                                     description=(study.__doc__ or '').splitlines()[0])
    study.add_arguments(parser)
    study.run(parser.parse_args(argv))


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        run_command(argv[0], argv[1:])
        return
    args = parse_args(argv)
    print(f'torch {torch.__version__}, {platform.machine()}, {args.device}, '
          f'{torch.get_num_threads()} threads of {os.cpu_count()} cores; B={args.batch_size}, '
          f'd={args.feat_dim}, window {args.window_size}, stride {args.stride}, stored rows in '
          f'{args.dtype}; {args.warmup} steps of warm-up, {args.repetitions} turns of '
          f'{args.steps} steps', flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        cases = make_cases(args, Path(folder))
        measure(cases, args.steps, args.repetitions)
        print(report(cases))
        for case in cases:
            case.close()
    print(report_sampler(sorted({case.num_instances for case in cases}), args))


if __name__ == '__main__':
    main()
