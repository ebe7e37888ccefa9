# SPDX-License-Identifier: Apache-2.0
"""Trainings by a list, one after another, on any machine; and tables of what came out.

A list has one training on each line, as JSON: ``stage``, ``name`` and ``setting``, what is not a
default of :class:`.setting.Setting`. Stages whose names begin with ``search`` are judged on
held-out training images alone. Processes that share a folder share the work: each training is
taken once. To have one run again whose process was killed, remove its folder below ``taken``.
"""
from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .execute import Executor, Labelled
from .report import HEADS, differences_table, fill, read_results, results_table, table, to_csv
from .setting import Setting
from .spread import values_of

VALIDATION = dict(validation_knn200='kNN, k = 200', validation_knn20='kNN, k = 20',
                  validation_linear='linear')
_NO_CHANGE = ('method', 'data', 'images', 'passes', 'seed')


def read_list(path: Path) -> list[tuple[str, str, Setting]]:
    """Stages, names and settings of a list.

    Raises:
        ValueError: If a line is no training.
    """
    trainings = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            trainings.append((entry['stage'], entry['name'], Setting(**entry['setting'])))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'line {number} of {path} is no training ({error!r}): it needs '
                             '{"stage": ..., "name": ..., "setting": {...}}.') from error
    return trainings


def run_list(path: Path, executor: Executor, out: Path) -> int:
    """Run what no other process has taken yet; returns the number of trainings that ended.

    Args:
        path (Path): The list; trainings that are added while it runs are seen.
        executor (Executor): Runs trainings, as many at a time as it has lanes.
        out (Path): Folder in which processes say what they have taken.
    """
    ended = 0
    while True:
        stage = next((one for one, name, setting in read_list(path)
                      if not _mark(one, name, setting, out).exists()), None)
        if stage is None:
            return ended
        ended += executor.run(
            stage, _untaken(path, stage, out), float('inf'),
            splits=('validation', ) if stage.startswith('search') else ('test', ))


def _untaken(path: Path, stage: str, out: Path) -> Iterator[Labelled]:
    """Take trainings of a stage, one after another."""
    while True:
        for one, name, setting in read_list(path):
            if one != stage:
                continue
            try:
                _mark(stage, name, setting, out).mkdir(parents=True)
            except FileExistsError:
                continue
            print(f'{stage}: {name} {setting.key}', flush=True)
            yield name, setting
            break
        else:
            return


def _mark(stage: str, name: str, setting: Setting, out: Path) -> Path:
    """The folder that says that a process has taken a training."""
    key = hashlib.sha256(f'{stage} {name} {setting.key}'.encode()).hexdigest()[:16]
    return out / 'taken' / key


def tries_table(records: Sequence[dict[str, Any]]) -> str:
    """Settings of a search with their means over seeds, the best of each method first.

    What all of them have in common stands above the table.

    What decides is kNN (k = 20), where there is a linear accuracy the mean of both. A training
    that diverged has no accuracy.
    """
    metrics = [metric for metric in VALIDATION if any(metric in record for record in records)]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    changes = [_in_words(record['setting']) for record in records]
    common = [words for words in changes[0] if all(words in others for others in changes)]
    for record, words in zip(records, changes):
        text = ', '.join(one for one in words if one not in common)
        groups.setdefault((record['name'], text), []).append(record)

    def mean(key: tuple[str, str], metric: str) -> float:
        values = values_of(groups[key], metric)
        return sum(values) / len(values) if values else -math.inf

    decide = [metric for metric in metrics if metric != 'validation_knn200']
    order = sorted(groups, key=lambda key: (key[0], -sum(mean(key, one) for one in decide)))
    rows = []
    for key in order:
        means = [mean(key, metric) for metric in metrics]
        rows.append((*key, *('–' if math.isinf(one) else f'{one:.1f}' for one in means),
                     len(groups[key])))
    above = f'All tries: {", ".join(common)}.\n\n' if common else ''
    return above + table(['method', 'setting (else the defaults)',
                          *(VALIDATION[metric] for metric in metrics), 'seeds'], rows)


def _in_words(setting: Setting) -> list[str]:
    return [f'{key} {value}' for key, value in setting.differences().items()
            if key not in _NO_CHANGE]


def stage_tables(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Names and texts of tables: a stage's trainings, and for results the differences of methods.
    """
    for stage in dict.fromkeys(record['stage'] for record in records):
        part = [record for record in records if record['stage'] == stage]
        if stage.startswith('search'):
            yield stage, tries_table(part)
        elif any(metric in record for record in part for metric in HEADS):
            yield stage, results_table(part, (stage, ))
            yield f'differences_{stage}', differences_table(part, (stage, ))


def write_tables(folders: Sequence[Path], csv_file: Path, page: Path) -> None:
    """Write every training as a line of a CSV file, and fill the tables of a page.

    Raises:
        FileNotFoundError: If a folder has no results, or there is no page.
    """
    records = read_results(folders)
    text = page.read_text(encoding='utf-8')
    csv_file.write_text(to_csv(records))
    page.write_text(fill(text, dict(stage_tables(records))), encoding='utf-8')
