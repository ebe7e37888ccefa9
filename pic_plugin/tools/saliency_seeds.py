# SPDX-License-Identifier: Apache-2.0
"""Table and figure of the saliency study, over the seeds that reproduce.sh has run.

    python -m pic_plugin.tools.saliency_seeds work_dirs/saliency --out configs/benchmarks/saliency

Takes ``FOLDER/SEED/NAME/saliency.json`` of the comparisons and
``FOLDER/SEED/two_objects/two_objects.json``; a seed that is not finished is left out. Writes
saliency_seeds.csv (each number of each seed), saliency_seeds.md (mean ± sample standard deviation
over seeds) and series.png and .svg (overlap over kNN accuracy in the course of training).
"""
from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from pic_plugin.analysis.style import require, write_figure
from pic_plugin.tools.analysis_inputs import write_csv, write_text
from pic_plugin.tools.config_file import explained_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOOL = 'saliency_seeds'
COMPARISONS = dict(
    pic_supervised='PIC and supervised',
    pic_random='PIC and random',
    supervised_random='supervised and random')
MEASURES = dict(
    mean='mean overlap', share_above='share above 0.6',
    other_image_mean='overlap with the region in another image')
# {seed: {table: {row: {column: value}}}}
Numbers = Dict[str, Dict[str, Dict[str, float]]]


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='Table and figure of the saliency study over seeds.',
        allow_abbrev=False)
    parser.add_argument('folder', type=Path, help='that of reproduce.sh')
    parser.add_argument('--out', type=Path, default=Path('.'), help='default: here')
    return parser.parse_args(argv)


def read_seed(folder: Path) -> Numbers:
    """Numbers of one seed by table, row and column.

    Args:
        folder (Path): ``FOLDER/SEED``.

    Raises:
        FileNotFoundError: If a comparison is missing: the seed is not finished.
        ValueError: If a file holds something else.
    """
    overlap, series = {}, {}
    for name, title in COMPARISONS.items():
        content = _read(folder / name / 'saliency.json')
        latest = content['overlap'][-1]
        overlap[title] = {column: latest[field] for field, column in MEASURES.items()}
        for point in content.get('series', []):
            series[point['name']] = {'kNN accuracy, %': point['accuracy'],
                                     'mean overlap': point['mean']}
    content = _read(folder / 'two_objects' / 'two_objects.json')
    balance = {name: {'balance': values['mean']} for name, values in content['balance'].items()}
    for name, values in content['difference_to_first'].items():
        balance[name]['difference to the first'] = values['mean']
    return dict(overlap=overlap, series=series, balance=balance)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{file} is no JSON ({error}): remove it and run reproduce.sh again.'
                         ) from error


def read_seeds(folder: Path) -> Dict[str, Numbers]:
    """Numbers of all seeds that are finished.

    Raises:
        FileNotFoundError: If none is.
        ValueError: If a file holds something else.
    """
    found: Dict[str, Numbers] = {}
    reason = 'it has no folder of a seed'
    for part in sorted(folder.glob('[0-9]*'), key=lambda path: path.name):
        try:
            found[part.name] = read_seed(part)
        except FileNotFoundError as error:
            reason = f'{error.filename} is missing'
            print(f'{TOOL}: left out seed {part.name}: {reason}')
    if not found:
        raise FileNotFoundError(f'{folder} holds no finished seed, for {reason}: run '
                                'configs/benchmarks/saliency/reproduce.sh first.')
    return found


def values_of(seeds: Dict[str, Numbers], table: str, row: str, column: str) -> List[float]:
    """A number of each seed that has it."""
    cells = [numbers[table].get(row, {}).get(column) for numbers in seeds.values()]
    return [cell for cell in cells if cell is not None]


def to_markdown(seeds: Dict[str, Numbers]) -> str:
    """The tables, mean ± sample standard deviation over seeds."""
    parts = []
    heads = dict(overlap='networks', series='checkpoint', balance='network')
    for table, rows in next(iter(seeds.values())).items():
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        lines = [[heads[table], *columns], ['---'] * (1 + len(columns))]
        lines += [[row, *(_cell(values_of(seeds, table, row, column)) for column in columns)]
                  for row in rows]
        parts.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
    return '\n\n'.join([*parts, f'*{len(seeds)} seeds; mean ± sample standard deviation.*'])


def _cell(values: List[float]) -> str:
    if not values:
        return ''
    mean = statistics.fmean(values)
    digits = 1 if abs(mean) > 2 else 3
    spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{mean:.{digits}f}{spread}'


def draw(seeds: Dict[str, Numbers]) -> Figure:
    """Overlap of PIC and supervised over accuracy, mean and deviation over seeds."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(5, 3.2), layout='constrained')
    axes = figure.subplots()
    rows = list(next(iter(seeds.values()))['series'])
    across = [values_of(seeds, 'series', row, 'kNN accuracy, %') for row in rows]
    up = [values_of(seeds, 'series', row, 'mean overlap') for row in rows]
    places = [(statistics.fmean(first), statistics.fmean(second))
              for first, second in zip(across, up)]
    axes.errorbar([place[0] for place in places], [place[1] for place in places],
                  xerr=[_deviation(values) for values in across],
                  yerr=[_deviation(values) for values in up], marker='o', capsize=3)
    for row, place in zip(rows, places):
        axes.annotate(row, place, textcoords='offset points', xytext=(5, 5), fontsize=7)
    axes.set_xlabel('kNN accuracy of PIC, %')
    axes.set_ylabel('mean overlap with supervised (IoU)')
    axes.margins(x=0.15)
    return figure


def _deviation(values: List[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors(TOOL):
        require('matplotlib')
        seeds = read_seeds(args.folder)
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(args.out / 'saliency_seeds.csv', ['seed', 'table', 'row', 'measure', 'value'],
                  [[seed, table, row, column, value] for seed, numbers in seeds.items()
                   for table, rows in numbers.items() for row, cells in rows.items()
                   for column, value in cells.items()])
        text = to_markdown(seeds)
        write_text(args.out / 'saliency_seeds.md', text + '\n')
        write_figure(lambda: draw(seeds), args.out / 'series')
        print(text)


if __name__ == '__main__':
    main()
