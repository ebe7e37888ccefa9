# SPDX-License-Identifier: Apache-2.0
"""Figure of a grid: one metric over the levels of a factor, one line for each other setting."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from pic_plugin.analysis.style import require
from pic_plugin.studies.ablation.grid import Grid
from pic_plugin.studies.ablation.table import settings, values_of
from pic_plugin.studies.tables import summarise


def draw(grid: Grid, rows: list[dict[str, Any]], file: Path) -> None:
    """Write a figure with error bars of one sample standard deviation.

    Args:
        grid (Grid): Its ``figure`` says which factor is ``x`` and which field is ``y``. With
            ``line=False`` the levels of ``x`` are names without an order: a row for each.
        rows (list[dict]): From :func:`.table.read_results`.
        file (Path): ``.svg`` or ``.png``.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    require('matplotlib')
    import matplotlib
    matplotlib.use('Agg')
    # The same results give the same file.
    matplotlib.rcParams['svg.hashsalt'] = grid.name
    from matplotlib import pyplot
    x, y = grid.figure['x'], grid.figure['y']
    levels = list(dict.fromkeys(labels[x] for labels in settings(grid)))
    lines: dict[str, list] = {}
    for labels in settings(grid):
        summary = summarise(values_of(rows, labels, y))
        others = ', '.join(level for factor, level in labels.items() if factor != x)
        if summary is not None:
            lines.setdefault(others, []).append((levels.index(labels[x]), summary))
    joined = grid.figure.get('line', True)
    size = (7, 4) if joined else (7, 1.2 + 0.35 * len(levels))
    figure, axes = pyplot.subplots(figsize=size)
    # Side by side: error bars on one spot hide each other.
    apart = 0.06 if joined else 0.2
    for number, (name, points) in enumerate(lines.items()):
        shift = apart * (number - (len(lines) - 1) / 2)
        places = [position + shift for position, _ in points]
        means = [summary.mean for _, summary in points]
        spreads = [summary.std or 0 for _, summary in points]
        if joined:
            axes.errorbar(places, means, spreads, marker='o', capsize=3, label=name or None)
        else:
            axes.errorbar(means, places, xerr=spreads, marker='o', linestyle='none', capsize=3,
                          label=name or None)
    if joined:
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlabel(x)
        axes.set_ylabel(grid.metrics[y])
    else:
        axes.set_yticks(range(len(levels)), levels)
        axes.invert_yaxis()
        axes.set_xlabel(grid.metrics[y])
    axes.set_title(grid.title, fontsize=10)
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={'Date': None} if file.suffix == '.svg' else None)
    pyplot.close(figure)
