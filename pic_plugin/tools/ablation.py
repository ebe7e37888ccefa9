# SPDX-License-Identifier: Apache-2.0
"""Train the grids of ablations and comparisons, and make their tables and figures.

    python -m pic_plugin.tools.ablation run table4_schedulers.py --jobs 2
    python -m pic_plugin.tools.ablation report table4_schedulers.py --out docs/results

``run`` does what is left to do: after an interruption give the same command again. ``report``
writes, for what has been done so far, NAME.csv (each training), NAME.md (mean ± sample standard
deviation over seeds) and NAME.svg. Tables that are in the same folder already keep their results;
``run --results FOLDER`` does not train them again. With ``--page`` it fills table and figure into a
page between ``<!-- table: NAME -->`` and ``<!-- end of table: NAME -->``.
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.command_line import explained_errors
from pic_plugin.studies.ablation.execute import run_grids
from pic_plugin.studies.ablation.grid import read_grid
from pic_plugin.studies.ablation.report import report


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='ablation', description='Grids of trainings and their tables.', allow_abbrev=False)
    commands = parser.add_subparsers(dest='command', required=True)
    run = commands.add_parser('run', help='do the trainings that are left to do')
    run.add_argument('--jobs', type=int, default=os.cpu_count() or 1,
                     help='processes at a time, one core each; default: all cores, %(default)s')
    run.add_argument('--data-root', help='folder of the images, for grids that have none')
    run.add_argument('--results', type=Path, help='folder of tables that `report` wrote: trainings '
                     'that they have count as done')
    report = commands.add_parser('report', help='make tables and figures of what is done')
    report.add_argument('--out', type=Path, default=Path('.'),
                        help='folder for CSV, table and figure')
    report.add_argument('--page', type=Path, help='Markdown file to fill the tables in')
    for command in (run, report):
        command.add_argument('grids', nargs='+', help='path, or name of a grid of pic_plugin')
        command.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablation'),
                             help='folder of the trainings; default: %(default)s')
        command.add_argument('--seeds', type=int, nargs='+', help="instead of the grid's")
        command.add_argument('--images', type=int, help='length of every training, to try a grid '
                             'out; such results are kept apart')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors('ablation'):
        grids = [read_grid(name, args.seeds, args.images) for name in args.grids]
        if args.command == 'report':
            for grid in grids:
                report(grid, args.work_dir, args.out, args.page)
            return
        try:
            failed = run_grids(grids, args.work_dir, args.jobs, args.data_root, args.results)
        except RuntimeError as error:
            raise SystemExit(f'ablation: {error}') from error
        except KeyboardInterrupt:
            raise SystemExit('ablation: interrupted; the same command continues') from None
    if failed:
        raise SystemExit(f'ablation: {len(failed)} trainings failed; their output is named above.')


if __name__ == '__main__':
    main()
