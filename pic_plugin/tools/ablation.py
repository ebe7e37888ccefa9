# SPDX-License-Identifier: Apache-2.0
"""Train the grids of ablations and comparisons, and make their tables and figures.

    python -m pic_plugin.tools.ablation run table4_schedulers.py --jobs 2
    python -m pic_plugin.tools.ablation report table4_schedulers.py --out configs/benchmarks/results

``run`` does what is left to do: after an interruption give the same command again. ``report``
writes, for what has been done so far, NAME.csv (each training), NAME.md (mean ± sample standard
deviation over seeds) and NAME.svg. Tables that are in the same folder already keep their results;
``run --results FOLDER`` does not train them again. With ``--page`` it fills table and figure into a
page between ``<!-- table: NAME -->`` and ``<!-- end of table: NAME -->``.
"""
from __future__ import annotations

import argparse
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from pic_plugin.studies.ablation.execute import run_all
from pic_plugin.studies.ablation.figure import draw
from pic_plugin.studies.ablation.grid import Grid, read_grid
from pic_plugin.studies.ablation.table import (
    TRAINING,
    known_trainings,
    read_csv,
    read_results,
    read_tables,
    to_csv,
    to_markdown,
)
from pic_plugin.studies.ablation.training import write_atomically
from pic_plugin.tools.config_file import explained_errors


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
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
    report.add_argument('--out', default='.', help='folder for CSV, table and figure')
    report.add_argument('--page', help='Markdown file to fill the tables in')
    for command in (run, report):
        command.add_argument('grids', nargs='+', help='path, or name of a grid of pic_plugin')
        command.add_argument('--work-dir', default='work_dirs/ablation',
                             help='folder of the trainings; default: %(default)s')
        command.add_argument('--seeds', type=int, nargs='+', help="instead of the grid's")
        command.add_argument('--images', type=int, help='length of every training, to try a grid '
                             'out; such results are kept apart')
    return parser.parse_args(argv)


def report(grid: Grid, work_dir: Path, out: Path, page: Optional[Path]) -> None:
    """Write CSV, table and figure of one grid, and fill in the page.

    Raises:
        FileNotFoundError: If there is no such page.
        ValueError: If the page has no place for this table, or the CSV that is there has trainings
            that the grid does not mean.
    """
    table_file = out / f'{grid.name}.csv'
    own = read_csv(table_file) if table_file.is_file() else {}
    rows = read_results(grid, work_dir, {**read_tables(out), **own})
    _check_kept(table_file, rows)
    out.mkdir(parents=True, exist_ok=True)
    table = to_markdown(grid, rows)
    write_atomically(table_file, to_csv(rows))
    write_atomically(out / f'{grid.name}.md', f'{table}\n')
    figure = out / f'{grid.name}.svg'
    if rows:
        draw(grid, rows, figure)
    print(f'{grid.name}: {len(rows)} of {len(grid.trainings)} trainings\n{table}\n')
    if page is not None:
        if rows:
            link = os.path.relpath(figure, page.parent).replace(os.sep, '/')
            table += f'\n\n![{grid.title}]({link})'
        text = page.read_text(encoding='utf-8')
        write_atomically(page, filled_in(text, grid.name, table, page))


def _check_kept(table: Path, rows: list[dict[str, Any]]) -> None:
    if not table.is_file():
        return
    with open(table, encoding='utf-8', errors='replace') as file:
        num_rows = max(0, sum(1 for _ in file) - 1)
    lost = num_rows - len({row[TRAINING] for row in rows} & set(read_csv(table)))
    if lost:
        raise ValueError(f'{table} has {lost} trainings that would be lost: they are of other '
                         'seeds, lengths or settings than asked for, or do not say of which. '
                         'Remove it, or give another --out.')


def filled_in(text: str, name: str, table: str, page: Any = 'the page') -> str:
    """A page with a table between its marks.

    Raises:
        ValueError: If the marks are not there once.
    """
    begin, end = f'<!-- table: {name} -->', f'<!-- end of table: {name} -->'
    pattern = re.compile(f'({re.escape(begin)}\n).*?({re.escape(end)})', re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f'{page} must have one line `{begin}` and, below, one `{end}`.')
    return pattern.sub(lambda match: f'{match[1]}{table}\n{match[2]}', text)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    work_dir = Path(args.work_dir)
    with explained_errors('ablation'):
        grids = [read_grid(name, args.seeds, args.images) for name in args.grids]
        if args.command == 'report':
            for grid in grids:
                report(grid, work_dir, Path(args.out), Path(args.page) if args.page else None)
            return
        # Ends the trainings too, which would go on by themselves.
        signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        trainings = [training for grid in grids for training in grid.trainings]
        tables = read_tables(args.results) if args.results else {}
        known = {name for grid in grids for name in known_trainings(grid, tables)}
        if args.results and not tables:
            raise SystemExit(f'ablation: {args.results} has no tables (NAME.csv): --results is the '
                             '--out of `report`.')
        try:
            failed = run_all(trainings, work_dir, args.jobs, args.data_root, known)
        except RuntimeError as error:
            raise SystemExit(f'ablation: {error}') from error
        except KeyboardInterrupt:
            raise SystemExit('ablation: interrupted; the same command goes on') from None
    if failed:
        raise SystemExit(f'ablation: {len(failed)} trainings failed; their output is named above.')


if __name__ == '__main__':
    main()
