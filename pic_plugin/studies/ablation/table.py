# SPDX-License-Identifier: Apache-2.0
"""Results of a grid: one line a training as CSV, one line a setting as a Markdown table."""
from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pic_plugin.studies.ablation.grid import Grid
from pic_plugin.studies.ablation.training import RESULT
from pic_plugin.studies.tables import markdown_table, mean_std, summarise

# Of floats: a figure is the same whether drawn from results or from a table of them.
DIGITS = 4
# Column with the name of a training; results follow it.
TRAINING = 'training'


def read_results(grid: Grid, folder: Path,
                 earlier: Mapping[str, dict[str, Any]] | None = None) -> list[dict[str, Any]]:
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
        folder (Path): With CSVs that ``ablation report`` wrote; others are passed over.
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
    lines = []
    for labels in settings(grid):
        metrics = [values_of(rows, labels, field) for field in grid.metrics]
        lines.append([*labels.values(), *map(_cell, metrics), str(len(metrics[0]))])
    table = markdown_table([*grid.factors, *grid.metrics.values(), 'seeds'], lines)
    return f'{table}\n\n*{grid.title}. {grid.caption}*'


def _cell(values: list[float]) -> str:
    summary = summarise(values)
    digits = 0 if summary is not None and abs(summary.mean) >= 1000 else 1
    return mean_std(values, digits, missing='not run')
