# SPDX-License-Identifier: Apache-2.0
"""Results of a grid: one line a training as CSV, one line a setting as a Markdown table."""
from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

from pic_plugin.studies.ablation.grid import Grid
from pic_plugin.studies.ablation.training import RESULT

# Of floats: a figure is the same whether drawn from results or from a table of them.
DIGITS = 4
# Column with the name of a training; results follow it.
TRAINING = 'training'


class Summary(NamedTuple):
    """One metric of one setting over its seeds.

    Attributes:
        mean (float): Mean.
        std (float | None): Sample standard deviation (n - 1); None for one seed.
        seeds (int): How many there are.
    """

    mean: float
    std: Optional[float]
    seeds: int


def summarise(values: list[float]) -> Optional[Summary]:
    """Mean and sample standard deviation; None of nothing."""
    if not values:
        return None
    mean = sum(values) / len(values)
    if len(values) == 1:
        return Summary(mean, None, 1)
    variance = sum((value - mean)**2 for value in values) / (len(values) - 1)
    return Summary(mean, math.sqrt(variance), len(values))


def read_results(grid: Grid, folder: Path,
                 earlier: Optional[Mapping[str, dict[str, Any]]] = None) -> list[dict[str, Any]]:
    """One dict for each training that is done: factors, ``seed``, ``training``, and its result.

    Args:
        grid (Grid): The grid.
        folder (Path): That its trainings are in.
        earlier (Mapping, optional): From :func:`read_tables`: results of trainings that ``folder``
            does not have.

    Raises:
        ValueError: If a result lacks a metric of the grid, or is damaged.
    """
    known = known_trainings(grid, earlier or {})
    rows = []
    for training in grid.trainings:
        file = folder / training.name / RESULT
        if file.is_file():
            result = {field: round(value, DIGITS) if isinstance(value, float) else value
                      for field, value in _read_result(file, grid).items()}
        elif training.name in known:
            result = (earlier or {})[training.name]
        else:
            continue
        rows.append({**training.labels, 'seed': training.seed, TRAINING: training.name, **result})
    return rows


def _read_result(file: Path, grid: Grid) -> dict[str, Any]:
    try:
        result = json.loads(file.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{file} is damaged: remove it, and the training is done again.') \
            from error
    missing = sorted(set(grid.metrics) - set(result))
    if missing:
        raise ValueError(f'{file} has no {", ".join(missing)}: remove it, and the training is done '
                         'again.')
    return result


def read_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Results in all tables of a folder, by name of the training.

    A training belongs to several grids, and a table of any of them has its result.

    Args:
        folder (Path): With CSVs that :func:`to_csv` wrote; others are passed over.
    """
    results: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob('*.csv')):
        results.update(read_csv(file))
    return results


def known_trainings(grid: Grid, earlier: Mapping[str, dict[str, Any]]) -> set[str]:
    """Names of the trainings of a grid of which ``earlier`` has all that the grid's table needs."""
    return {training.name for training in grid.trainings
            if set(grid.metrics) <= set(earlier.get(training.name, {}))}


def read_csv(file: Path) -> dict[str, dict[str, Any]]:
    """Results of one table, by name of the training; nothing if it does not have such names."""
    with open(file, encoding='utf-8', errors='replace', newline='') as lines:
        reader = csv.DictReader(lines)
        fields = list(reader.fieldnames or [])
        if TRAINING not in fields:
            return {}
        after = fields[fields.index(TRAINING) + 1:]
        return {row[TRAINING]: {field: _value(row[field]) for field in after if row[field]}
                for row in reader}


def _value(text: str) -> Any:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def to_csv(rows: list[dict[str, Any]]) -> str:
    """CSV of all fields, one line a training."""
    text = io.StringIO()
    if rows:
        fields = dict.fromkeys(field for row in rows for field in row)
        writer = csv.DictWriter(text, list(fields), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def settings(grid: Grid) -> list[dict[str, str]]:
    """Levels of each setting, once, in the grid's order."""
    distinct = {tuple(training.labels.values()): training.labels for training in grid.trainings}
    return list(distinct.values())


def values_of(rows: list[dict[str, Any]], labels: dict[str, str], field: str) -> list[float]:
    """A field of all seeds of a setting."""
    return [row[field] for row in rows
            if all(row[factor] == level for factor, level in labels.items())]


def to_markdown(grid: Grid, rows: list[dict[str, Any]]) -> str:
    """Table of mean and sample standard deviation, caption below it."""
    head = [*grid.factors, *grid.metrics.values(), 'seeds']
    lines = [_line(head), _line(['---'] * len(head))]
    for labels in settings(grid):
        cells = [summarise(values_of(rows, labels, field)) for field in grid.metrics]
        count = cells[0].seeds if cells[0] else 0
        lines.append(_line([*labels.values(), *(_cell(cell) for cell in cells), str(count)]))
    return '\n'.join([*lines, '', f'*{grid.title}. {grid.caption}*'])


def _line(cells: list[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _cell(summary: Optional[Summary]) -> str:
    if summary is None:
        return 'not run'
    digits = 1 if abs(summary.mean) < 1000 else 0
    mean = f'{summary.mean:.{digits}f}'
    return mean if summary.std is None else f'{mean} ± {summary.std:.{digits}f}'
