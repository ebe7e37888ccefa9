# SPDX-License-Identifier: Apache-2.0
"""Curves of one or several runs over images seen, from what they logged themselves.

    mim run pic_plugin training_health work_dirs/pic_demo
    python -m pic_plugin.tools.training_health work_dirs/a work_dirs/b --out health

The folder ``--out`` then holds health.png, health.svg and health.csv: loss, instance accuracy, kNN
accuracy, norm of the class weights, staleness of returning rows and learning rate.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.analysis.health_figure import draw_health
from pic_plugin.analysis.scalars import read_runs
from pic_plugin.analysis.style import write_figure
from pic_plugin.command_line import explained_errors
from pic_plugin.files import write_csv
from pic_plugin.wording import counted

TOOL = 'training_health'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog=TOOL, description='Curves of runs.', allow_abbrev=False)
    parser.add_argument('work_dirs', nargs='+', type=Path, help='work folders of trainings')
    parser.add_argument('--out', type=Path, default=Path('health'), help='default: %(default)s')
    args = parser.parse_args(argv)
    with explained_errors(TOOL):
        runs = read_runs(args.work_dirs)
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(args.out / 'health.csv', ['run', 'scalar', 'images_seen', 'value'],
                  [[run.name, key, int(seen), value] for run in runs
                   for key, curve in sorted(run.curves.items()) for seen, value in curve])
        write_figure(lambda: draw_health(runs), args.out / 'health')
    for run in runs:
        if run.damaged:
            print(f'{run.name}: {run.damaged} damaged lines were left out')
    print(f'{args.out}: figure and numbers of {counted(len(runs), "run")}')


if __name__ == '__main__':
    main()
