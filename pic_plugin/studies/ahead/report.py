# SPDX-License-Identifier: Apache-2.0
"""Tables and figures of the study, from its lines of results."""
from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .setting import PASSES_PER_IMAGE, Setting
from .spread import difference_rows, group_runs, mean_text, runs_text, values_of

METRICS = ('test_knn200', 'test_knn20', 'test_linear')
HEADS = dict(test_knn200='kNN, k = 200', test_knn20='kNN, k = 20', test_linear='linear')
_IDENTITY = ('stage', 'name', 'setting')


def read_results(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Trainings that ended, the lines of each put together; a later run replaces an earlier one.

    Raises:
        FileNotFoundError: If a folder has no results.
    """
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for folder in folders:
        for line in (folder / 'results.jsonl').read_text().splitlines():
            record = json.loads(line)
            if 'setting' not in record:
                continue
            setting = Setting(**record['setting'])
            key = (record['stage'], record['name'], setting.key)
            if 'course' in record:
                merged.setdefault(key, {}).setdefault('course', []).append(record)
            else:
                merged.setdefault(key, {}).update(record, setting=setting)
    return [record for record in merged.values() if 'seconds' in record]


def to_csv(records: list[dict[str, Any]]) -> str:
    """One line for each training."""
    file = io.StringIO()
    names = ['stage', 'name', 'data', 'images', 'passes', 'seed', 'validation_knn20',
             'validation_knn200', 'validation_linear', *METRICS, 'seconds', 'finite', 'setting']
    writer = csv.DictWriter(file, names, lineterminator='\n')
    writer.writeheader()
    for record in records:
        setting = record['setting']
        row = {name: record.get(name, '') for name in names}
        row.update(data=setting.data, images=setting.images, passes=setting.passes,
                   seed=setting.seed, setting=setting.key)
        writer.writerow(row)
    return file.getvalue()


def _mean(values: list[float]) -> str:
    if not values:
        return '–'
    spread = f' ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else ''
    return f'{np.mean(values):.1f}{spread}'


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines)


def results_table(records: list[dict[str, Any]], stages: Sequence[str]) -> str:
    """Mean ± standard error over runs, by images, passes and method (:mod:`.spread`)."""
    groups = group_runs(records, stages)
    order = {name: number for number, name in enumerate(dict.fromkeys(key[3] for key in groups))}
    rows = [(f'{key[1]:,}', f'{key[2]:,}', key[3],
             *(mean_text(groups, key, metric) for metric in METRICS), runs_text(groups[key]))
            for key in sorted(groups, key=lambda k: (k[0], k[1], k[2], order[k[3]]))]
    return table(['images', 'forward passes', 'method', *HEADS.values(), 'runs'], rows)


def differences_table(records: list[dict[str, Any]], stages: Sequence[str]) -> str:
    """PIC with refresh minus each other method (:mod:`.spread`)."""
    rows = difference_rows(group_runs(records, stages), METRICS)
    return table(['data', 'images', 'forward passes', 'minus', *HEADS.values()], rows)


def parts_table(records: list[dict[str, Any]]) -> str:
    """One change at a time; changes to what was chosen anyway count as runs of the first row."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if record['stage'] == 'parts':
            groups.setdefault(record['setting'].but(seed=0).key, []).append(record)
    rows = [(part[0]['name'], *(_mean(values_of(part, metric)) for metric in METRICS),
             runs_text(part)) for part in groups.values()]
    return table(['change', *HEADS.values(), 'runs'], rows)


def chosen_table(records: list[dict[str, Any]], folders: Sequence[Path]) -> str:
    """What each search chose, and how many tries each method had."""
    rows = []
    for stage in ('search_small', 'search_large', 'search_rivals'):
        for folder in folders:
            path = folder / f'{stage}.json'
            if not path.is_file():
                continue
            for name, values in json.loads(path.read_text()).items():
                tries = sum(one['stage'] == stage and one['name'] == name for one in records)
                again = sum(one['stage'] == f'{stage}_confirm' and one['name'] == name
                            for one in records)
                text = ', '.join(f'{key} {value}' for key, value in values.items()
                                 if key not in ('method', 'images', 'passes', 'seed', 'data'))
                rows.append((name, f'{values.get("images", 5000):,}', tries, again, text))
    return table(['method', 'images', 'tries', 'repeats', 'chosen (else the defaults)'], rows)


def full_table(records: list[dict[str, Any]]) -> str:
    """All of CIFAR-10, with the course of the neighbours' accuracy."""
    rows = []
    for record in records:
        if record['stage'] != 'full':
            continue
        setting = record['setting']
        course = [(part['course'] * setting.batch, part['test_knn200'])
                  for part in record.get('course', []) if 'test_knn200' in part]
        rows.append((record['name'], f'{setting.passes / 1e6:.2f} M',
                     ', '.join(f'{value:.1f} at {passes / 1e6:.2f} M' for passes, value in course),
                     *(record.get(metric, '–') for metric in METRICS)))
    return table(['method', 'forward passes', 'kNN, k = 200, on the way', *HEADS.values()], rows)


def measures_tables(records: list[dict[str, Any]]) -> dict[str, str]:
    """Means by absence and by visit, of the trainings that were measured."""
    measured = [one for one in records if one.get('measures')]
    visits = [(one['name'], row['visit'], f'{row["count"]:,}', f'{row["cosine"]:.3f}',
               f'{row["target_cosine"]:.3f}', f'{row["loss"]:.3f}', f'{row["gradient"]:.2f}',
               f'{row["turn"]:.2f}') for one in measured for row in one['measures']['by_visit']
              if row['visit'] <= one['setting'].visits]
    # Trainings of one order have the same absences: a column each.
    steps = {round(row['mean_steps']): f'{row["count"]:,}' for one in measured
             for row in one['measures']['cosine_by_absence']}
    columns = [{round(row['mean_steps']): f'{row["mean"]:.3f}'
                for row in one['measures']['cosine_by_absence']} for one in measured]
    absence = [(number, steps[number], *(column.get(number, '–') for column in columns))
               for number in sorted(steps)]
    time = [(one['name'], row['step'], f'{row["cosine"]:.3f}', f'{row["loss"]:.3f}',
             f'{row["turn"]:.2f}', f'{row["length"]:.3f}')
            for one in measured for row in one['measures']['by_time']]
    edges = measured[0]['measures']['edges'] if measured else []
    names = [f'up to {edge}' for edge in edges] + ['more, or never']
    mass = [(one['name'], *(f'{100 * value:.1f}' for value in
                            one['measures']['negative_mass_by_age'])) for one in measured]
    return dict(
        visits=table(['training', 'visit', 'count', 'cosine of row and feature',
                       'after the refresh', 'loss', 'gradient of the row', 'turn, degrees'],
                      visits),
        absence=table(['steps away, mean', 'visits', *(one['name'] for one in measured)],
                       absence),
        time=table(['training', 'step', 'cosine', 'loss', 'turn, degrees', 'length of a row'],
                    time),
        mass=table(['training', *names], mass))


def speed_table(records: list[dict[str, Any]]) -> str:
    """Passes an image takes and how many it gets, of the rivals."""
    rows = []
    for record in records:
        if record['stage'] in ('results_rivals', 'results_small') and record['setting'].seed == 0 \
                and record['setting'].passes == 120000:
            setting = record['setting']
            rows.append((record['name'], PASSES_PER_IMAGE[setting.method],
                         f'{setting.passes // PASSES_PER_IMAGE[setting.method]:,}',
                         *(record.get(metric, '–') for metric in METRICS),
                         f'{record["seconds"]:.1f}'))
    return table(['method', 'passes an image', 'images seen', *HEADS.values(),
                   'seconds, among others'], rows)


def _small_stages(records: list[dict[str, Any]]) -> tuple[str, ...]:
    """Stages of one table: a search that chose the same twice makes its results one group."""
    stages = ('results_small', 'results_large')
    try:
        group_runs(records, (*stages, 'results_large_tuned'))
    except ValueError:
        return stages
    return (*stages, 'results_large_tuned')


def write_report(folders: Sequence[Path], out: Path, pages: Sequence[Path] = ()) -> None:
    """Write trainings.csv, measures.json and figures, and fill the tables of pages.

    Without pages one is made of the tables alone, ``out``.md.

    Raises:
        FileNotFoundError: If a folder has no results, or there is no such page.
    """
    from .figures import draw_all
    records = read_results(folders)
    out.mkdir(parents=True, exist_ok=True)
    (out / 'trainings.csv').write_text(to_csv(records))
    small, clothing = _small_stages(records), ('results_clothing', )
    tables = dict(
        results=results_table(records, small),
        differences=differences_table(records, small),
        differences_clothing=differences_table(records, clothing),
        results_clothing=results_table(records, clothing),
        parts=parts_table(records), chosen=chosen_table(records, folders),
        full=full_table(records), rivals=speed_table(records), **measures_tables(records))
    if 'results_large_tuned' not in small:
        tables['results_tuned'] = results_table(records, ('results_large_tuned', ))
    measures = {one['name']: one['measures'] for one in records if one.get('measures')}
    (out / 'measures.json').write_text(json.dumps(measures, indent=1))
    draw_all(records, out, (*small, *clothing))
    if not pages:
        pages = [out.parent / f'{out.name}.md']
        pages[0].write_text('\n\n'.join(f'<!-- table: {name} -->\n<!-- end of table -->'
                                        for name in tables) + '\n')
    for page in pages:
        page.write_text(fill(page.read_text(encoding='utf-8'), tables), encoding='utf-8')


def fill(page: str, tables: dict[str, str]) -> str:
    """Put tables between their marks, ``<!-- table: NAME -->`` and ``<!-- end of table -->``."""
    for name, content in tables.items():
        pattern = rf'(<!-- table: {name} -->\n).*?(<!-- end of table -->)'
        found = re.search(pattern, page, flags=re.DOTALL)
        if found:
            page = page[:found.end(1)] + content + '\n' + page[found.start(2):]
    return page
