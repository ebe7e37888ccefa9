# SPDX-License-Identifier: Apache-2.0
"""Run the cases of a benchmark in turns, and report their times and memory as a table."""
from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from pic_plugin.datasets import SlidingWindowSampler
from pic_plugin.studies.benchmark.case import Case, Sizes
from pic_plugin.studies.benchmark.process import MB, resident_bytes

KINDS = ('bank', 'file', 'cold', 'dense', 'full')
NUM_INDICES = 1_000_000


def run(args: argparse.Namespace) -> None:
    """Measure all cases and the sampler, and print both tables.

    Args:
        args (Namespace): Of the command line, ``python -m pic_plugin.tools.benchmark``.
    """
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


def make_cases(args: argparse.Namespace, folder: Path) -> list[Case]:
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
