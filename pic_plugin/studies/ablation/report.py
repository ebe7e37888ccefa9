# SPDX-License-Identifier: Apache-2.0
"""Table and figure of a grid as files, and the table filled into a page."""
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pic_plugin.files import csv_text, write_atomically
from pic_plugin.studies.ablation.figure import draw
from pic_plugin.studies.ablation.grid import Grid
from pic_plugin.studies.ablation.table import (
    TRAINING,
    read_csv,
    read_results,
    read_tables,
    to_markdown,
)


def report(grid: Grid, work_dir: Path, out: Path, page: Path | None) -> None:
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
    write_atomically(table_file, csv_text(rows) if rows else '')
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
