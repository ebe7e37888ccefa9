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
from .spread import OURS, difference, difference_text, group_runs, values_of

VALIDATION = dict(validation_knn200='kNN, k = 200', validation_knn20='kNN, k = 20',
                  validation_linear='linear')
_RIVALS = ('SimCLR', 'MoCo v2')
_DATA = {'cifar10': 'CIFAR-10', 'clothing': 'photos of clothes',
         'cifar10-all': 'CIFAR-10, ResNet-18 of full width'}
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

    What all tries of a method have in common stands above the table.

    What decides is kNN (k = 20), where all have a linear accuracy the mean of both. A training
    that diverged has no accuracy.
    """
    metrics = [metric for metric in VALIDATION if any(metric in record for record in records)]
    decide = [metric for metric in metrics if metric != 'validation_knn200' and all(
        metric in record for record in records if 'validation_knn20' in record)]
    above, rows = [], []
    for name in sorted({record['name'] for record in records}):
        tries = [(record, _in_words(record['setting'])) for record in records
                 if record['name'] == name]
        common = [one for one in tries[0][1] if len(tries) > 1
                  and all(one in words for _, words in tries)]
        if common:
            above.append(f'All tries of {name}: {", ".join(common)}.')
        groups: dict[str, list[dict[str, Any]]] = {}
        for record, words in tries:
            text = ', '.join(one for one in words if one not in common)
            groups.setdefault(text, []).append(record)
        means = {text: {metric: _mean(values_of(part, metric)) for metric in metrics}
                 for text, part in groups.items()}
        for text in sorted(groups, key=lambda one: -sum(means[one][metric] for metric in decide)):
            rows.append((name, text, *('–' if math.isinf(mean) else f'{mean:.1f}'
                                       for mean in means[text].values()), len(groups[text])))
    head = '\n'.join(above) + '\n\n' if above else ''
    return head + table(
        ['method', 'setting (else the defaults)', *(VALIDATION[metric] for metric in metrics),
         'seeds'], rows)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else -math.inf


def _in_words(setting: Setting) -> list[str]:
    return [f'{key} {value}' for key, value in setting.differences().items()
            if key not in _NO_CHANGE]


def lead_table(records: Sequence[dict[str, Any]]) -> str:
    """PIC with refresh minus SimCLR and MoCo v2, a line for each scale.

    In bold type: at least 1.5 points, the goal of the study, and two standard errors.
    """
    groups = group_runs(records, ('results', 'results_full'))
    rows = []
    for scale in sorted({key[:3] for key in groups}):
        cells, runs = [], [len(groups.get((*scale, OURS), ()))]
        for rival in _RIVALS:
            key = (*scale, rival)
            runs.append(len(groups.get(key, ())))
            for metric in ('test_knn200', 'test_linear'):
                mean, error = difference(groups, key, metric)
                text = difference_text(mean, error)
                cells.append(f'**{text}**' if mean >= max(1.5, 2 * error) else text)
        rows.append((_DATA.get(scale[0], scale[0]), f'{scale[1]:,}', f'{scale[2]:,}', *cells,
                     ', '.join(map(str, runs))))
    heads = [head for rival in _RIVALS for head in (f'minus {rival}: kNN, k = 200', 'linear')]
    return table(['data', 'images', 'forward passes', *heads, 'runs: PIC, others'], rows)


def stage_tables(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Names and texts of tables: the leads at a glance, then of each stage its trainings, and of
    results the differences of methods."""
    yield 'leads', lead_table(records)
    for stage in dict.fromkeys(record['stage'] for record in records):
        part = [record for record in records if record['stage'] == stage]
        if stage.startswith('search'):
            yield stage, tries_table(part)
        elif any(metric in record for record in part for metric in HEADS):
            yield stage, results_table(part, (stage, ))
            yield f'differences_{stage}', differences_table(part, (stage, ))


def write_tables(folders: Sequence[Path], csv_file: Path, pages: Sequence[Path]) -> None:
    """Write every training as a line of a CSV file, and fill the tables of pages.

    Raises:
        FileNotFoundError: If a folder has no results, or there is no such page.
    """
    records = read_results(folders)
    texts = [page.read_text(encoding='utf-8') for page in pages]
    csv_file.write_text(to_csv(records))
    tables = dict(stage_tables(records))
    for page, text in zip(pages, texts):
        page.write_text(fill(text, tables), encoding='utf-8')
