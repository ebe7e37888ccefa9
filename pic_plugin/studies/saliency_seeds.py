# SPDX-License-Identifier: Apache-2.0
"""Table and figure of the saliency study over seeds, from the files that its tools wrote."""
from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pic_plugin.analysis.style import subplots, write_figure
from pic_plugin.files import write_atomically, write_csv
from pic_plugin.studies.tables import markdown_table, mean_std, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARISONS = dict(
    pic_supervised='PIC and supervised',
    pic_random='PIC and random',
    supervised_random='supervised and random')
MEASURES = dict(
    mean='mean overlap', share_above='share above 0.6',
    other_image_mean='overlap with the region in another image')
HEADS = dict(overlap='networks', series='checkpoint', balance='network')
# {seed: {table: {row: {column: value}}}}
Numbers = dict[str, dict[str, dict[str, float]]]


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
        raise ValueError(f'{file} is not JSON ({error}): remove it and run reproduce.sh again.'
                         ) from error


def read_seeds(folder: Path) -> dict[str, Numbers]:
    """Numbers of all seeds that are finished.

    Raises:
        FileNotFoundError: If none is.
        ValueError: If a file holds something else.
    """
    found: dict[str, Numbers] = {}
    reason = 'it has no folder of a seed'
    for part in sorted(folder.glob('[0-9]*'), key=lambda path: path.name):
        try:
            found[part.name] = read_seed(part)
        except FileNotFoundError as error:
            reason = f'{error.filename} is missing'
            print(f'left out seed {part.name}: {reason}')
    if not found:
        raise FileNotFoundError(f'{folder} holds no finished seed, for {reason}: run '
                                'docs/results/saliency/reproduce.sh first.')
    return found


def values_of(seeds: dict[str, Numbers], table: str, row: str, column: str) -> list[float]:
    """A number of each seed that has it."""
    cells = [numbers[table].get(row, {}).get(column) for numbers in seeds.values()]
    return [cell for cell in cells if cell is not None]


def to_markdown(seeds: dict[str, Numbers]) -> str:
    """The tables, mean ± sample standard deviation over seeds."""
    parts = []
    for table, rows in next(iter(seeds.values())).items():
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        parts.append(markdown_table([HEADS[table], *columns], [
            [row, *(_cell(values_of(seeds, table, row, column)) for column in columns)]
            for row in rows]))
    return '\n\n'.join([*parts, f'*{len(seeds)} seeds; mean ± sample standard deviation.*'])


def _cell(values: list[float]) -> str:
    # Percent or parts of one.
    return mean_std(values, digits=1 if values and abs(statistics.fmean(values)) > 2 else 3)


def draw(seeds: dict[str, Numbers]) -> Figure:
    """Overlap of PIC and supervised over accuracy, mean and deviation over seeds."""
    figure, axes = subplots(5, 3.2)
    rows = list(next(iter(seeds.values()))['series'])
    across = [values_of(seeds, 'series', row, 'kNN accuracy, %') for row in rows]
    up = [values_of(seeds, 'series', row, 'mean overlap') for row in rows]
    points = [[summarise(values) for values in numbers] for numbers in (across, up)]
    means, spreads = ([[getattr(point, field) or 0.0 for point in axis if point is not None]
                       for axis in points] for field in ('mean', 'std'))
    axes.errorbar(*means, xerr=spreads[0], yerr=spreads[1], marker='o', capsize=3)
    for row, place in zip(rows, zip(*means)):
        axes.annotate(row, place, textcoords='offset points', xytext=(5, 5), fontsize=7)
    axes.set_xlabel('kNN accuracy of PIC, %')
    axes.set_ylabel('mean overlap with supervised (IoU)')
    axes.margins(x=0.15)
    return figure


def summarise_seeds(folder: Path, out: Path) -> str:
    """Write saliency_seeds.csv and .md and the figure of the series.

    Args:
        folder (Path): That of reproduce.sh, with a folder for each seed.
        out (Path): Folder to write to.

    Returns:
        str: The tables in Markdown.

    Raises:
        FileNotFoundError: If no seed is finished.
        ValueError: If a file holds something else.
    """
    seeds = read_seeds(folder)
    write_csv(out / 'saliency_seeds.csv', ['seed', 'table', 'row', 'measure', 'value'],
              [[seed, table, row, column, value] for seed, numbers in seeds.items()
               for table, rows in numbers.items() for row, cells in rows.items()
               for column, value in cells.items()])
    text = to_markdown(seeds)
    write_atomically(out / 'saliency_seeds.md', text + '\n')
    write_figure(lambda: draw(seeds), out / 'series')
    return text
