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
plugin's way, *adamw* the same with AdamW, *file* the same with the stored rows on disk, *cold* with
those rows taken from the system's cache before each turn. *dense* is plain PyTorch: all N rows in
one parameter, a softmax over the same K classes, and torch.optim.SGD over all rows (the same
weights as *bank*); *full* is the softmax over all N classes of the authors' code. All cases run in
turns, in one process, so that what else the machine does meets all of them.
"""
from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.bank.row_codec import DTYPES
from pic_plugin.command_line import require_positive
from pic_plugin.studies.benchmark.run import KINDS, run

COMMANDS = ('training', 'pipeline', 'augment')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='benchmark', description=__doc__.splitlines()[0])
    for kind, default, meaning in (
            ('bank', [100_000, 10_000_000], 'with the bank in memory'),
            ('adamw', [], 'with the bank in memory and AdamW in the place of SGD'),
            ('file', [], 'with the bank on disk'),
            ('cold', [], 'with the bank on disk and out of the cache'),
            ('dense', [100_000], 'densely, 12 * N * d bytes each'),
            ('full', [], 'densely with a softmax over all N')):
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
    parser.add_argument('--betas', nargs=2, type=float, default=(0.9, 0.999),
                        help='of adamw (default: 0.9 0.999)')
    parser.add_argument('--dtype', choices=DTYPES, default='float32',
                        help='of stored rows (default: float32)')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument('--folder', type=Path,
                        help='where files of the bank go (default: where scratch files go)')
    args = parser.parse_args(argv)
    require_positive(parser, args, ('batch_size', 'feat_dim', 'warmup', 'steps', 'repetitions'))
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


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        run_command(argv[0], argv[1:])
        return
    run(parse_args(argv))


if __name__ == '__main__':
    main()
