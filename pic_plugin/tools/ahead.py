# SPDX-License-Identifier: Apache-2.0
"""PIC beside its rivals at equal forward passes, many small trainings at once on one GPU.

    python -m pic_plugin.tools.ahead pack DATA --cifar10 FOLDER --clothing FOLDER
    python -m pic_plugin.tools.ahead run DATA OUT --seconds 500
    python -m pic_plugin.tools.ahead report OUT --out docs/results/ahead --pages page.md
    python -m pic_plugin.tools.ahead list DATA trainings.jsonl OUT
    python -m pic_plugin.tools.ahead tables OUT --csv trainings.csv --pages page.md
    python -m pic_plugin.tools.ahead memory

``pack`` makes JPEG sheets of the images. ``run`` searches, trains and measures within the time
that is given and appends one JSON line for each result to OUT/results.jsonl. ``report`` makes
tables (CSV and Markdown) and figures of these. ``list`` runs the trainings of a list, on a CPU too;
several of them with one OUT share the work. ``tables`` makes tables of these. ``memory``
prints what a step of each method keeps in memory.
"""
from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

#: Stage -> its share of the time, in the order in which they run.
STAGES: dict[str, float] = dict(
    smoke=0.06, lanes=0.04, search_small=0.17, results_small=0.09, results_large=0.09,
    measures=0.02, full=0.36, parts=0.07, results_clothing=0.08, search_rivals=0.05,
    results_rivals=0.02, search_large=0.08, results_large_tuned=0.07)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='ahead', description=__doc__.split('\n')[0],
                                     allow_abbrev=False)
    commands = parser.add_subparsers(dest='command', required=True)
    pack = commands.add_parser('pack', help='make JPEG sheets of the images')
    pack.add_argument('data', type=Path, help='folder to write')
    pack.add_argument('--cifar10', type=Path, help='folder with data_batch_1 to 5 and test_batch '
                      'as PNG files of one row a picture, and their labels as JSON')
    pack.add_argument('--clothing', type=Path, help='folder of clothing-dataset-small')
    run = commands.add_parser('run', help='search, train and measure')
    run.add_argument('data', type=Path, help='folder that `pack` wrote')
    run.add_argument('out', type=Path, help='folder for results')
    run.add_argument('--seconds', type=float, default=480, help='time for all; default: '
                     '%(default)s')
    run.add_argument('--stages', nargs='+', choices=list(STAGES), metavar='STAGE',
                     help=f'of {" ".join(STAGES)}; default: all but the first')
    run.add_argument('--lanes', type=int, default=32, help='most trainings at a time; default: '
                     '%(default)s')
    run.add_argument('--workers', type=int, default=0, help='processes for linear evaluation; '
                     'default: all cores but two')
    run.add_argument('--tiny', action='store_true', help='rehearsal: minutes on a CPU')
    run.add_argument('--no-record', action='store_true', help='do not use CUDA graphs')
    report = commands.add_parser('report', help='make tables and figures')
    report.add_argument('results', type=Path, nargs='+', help='folders that `run` wrote')
    report.add_argument('--out', type=Path, default=Path('.'), help='folder to write')
    report.add_argument('--pages', type=Path, nargs='+', default=[], help='pages whose tables are '
                        'filled; default: a new page, OUT.md')
    listed = commands.add_parser('list', help='run the trainings of a list')
    listed.add_argument('data', type=Path, help='folder that `pack` wrote')
    listed.add_argument('list', type=Path, help='JSON lines: stage, name, setting')
    listed.add_argument('out', type=Path, help='folder for results')
    listed.add_argument('--lane', default='0', help='name of this process among those that share '
                        'OUT; default: %(default)s')
    listed.add_argument('--lanes', type=int, default=1, help='trainings at a time, side by side '
                        'on one GPU; default: %(default)s')
    listed.add_argument('--workers', type=int, default=1, help='processes for linear evaluation; '
                        'default: %(default)s')
    tables = commands.add_parser('tables', help='make tables of what `list` ran')
    tables.add_argument('results', type=Path, nargs='+', help='folders OUT/LANE')
    tables.add_argument('--csv', type=Path, required=True, help='file to write')
    tables.add_argument('--pages', type=Path, nargs='+', required=True,
                        help='pages whose tables are filled')
    memory = commands.add_parser('memory', help='print what a step keeps in memory')
    memory.add_argument('--passes', type=int, default=256, help='forward passes of a step; '
                        'default: %(default)s')
    memory.add_argument('--width', type=int, default=64, help="channels of the network's first "
                        'stage; default: %(default)s, a whole ResNet-18')
    memory.add_argument('--classes', type=int, default=4096, help='in the softmax; default: '
                        '%(default)s')
    memory.add_argument('--size', type=int, default=32, help="pixels of an image's side; default: "
                        '%(default)s')
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Run the stages."""
    import torch

    from pic_plugin.studies.ahead.execute import Executor, LinearPool, Results
    from pic_plugin.studies.ahead.images import load
    from pic_plugin.studies.ahead.plan import TINY, Plan, Scale

    begun = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    # Made before the device is used: a process that uses CUDA cannot be forked.
    pool = LinearPool(args.workers or max((os.cpu_count() or 1) - 2, 1))
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    torch.backends.cudnn.allow_tf32 = True  # convolutions; cosines and neighbours stay float32
    images = cache(lambda name: load(name, args.data, 600 if args.tiny else 0).to(device))
    results = Results(args.out / 'results.jsonl')
    results.write(device=torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu',
                  torch=torch.__version__, lanes=args.lanes, argv=sys.argv[1:])
    executor = Executor(images, results, pool, args.lanes, begun + args.seconds,
                        record=not args.no_record)
    images('cifar10')
    print(f'ready after {time.monotonic() - begun:.1f} s on {device}', flush=True)
    Plan(executor, TINY if args.tiny else Scale(), args.out, STAGES).run(
        args.stages or [name for name in STAGES if name != 'smoke'])
    pool.close(begun + args.seconds + 20 - time.monotonic())
    print(f'done after {time.monotonic() - begun:.1f} s', flush=True)


def run_list(args: argparse.Namespace) -> None:
    """Run the trainings of a list."""
    import torch

    from pic_plugin.studies.ahead import listed
    from pic_plugin.studies.ahead.execute import Executor, LinearPool, Results
    from pic_plugin.studies.ahead.images import load

    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # the fastest convolutions, looked for once
    pool = LinearPool(args.workers)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    images = cache(lambda name: load(name, args.data, 0).to(device))
    folder = args.out / args.lane
    folder.mkdir(parents=True, exist_ok=True)
    executor = Executor(images, Results(folder / 'results.jsonl'), pool, args.lanes,
                        deadline=float('inf'))
    ended = listed.run_list(args.list, executor, args.out)
    pool.close(600)
    print(f'{ended} trainings ended', flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    args = parse_args(argv)
    if args.command == 'run':
        run(args)
    elif args.command == 'list':
        run_list(args)
    elif args.command == 'tables':
        from pic_plugin.studies.ahead.listed import write_tables
        write_tables(args.results, args.csv, args.pages)
    elif args.command == 'memory':
        from pic_plugin.studies.ahead.memory import memory_table
        print(memory_table(args.passes, args.width, args.classes, args.size))
    elif args.command == 'pack':
        from pic_plugin.studies.ahead.pack import pack_cifar10, pack_clothing
        if args.cifar10:
            pack_cifar10(args.cifar10, args.data / 'cifar10')
        if args.clothing:
            pack_clothing(args.clothing, args.data / 'clothing')
    else:
        from pic_plugin.studies.ahead.report import write_report
        write_report(args.results, args.out, args.pages)


if __name__ == '__main__':
    main()
