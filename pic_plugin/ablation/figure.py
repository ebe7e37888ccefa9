# SPDX-License-Identifier: Apache-2.0
"""Figure of a grid: one metric over the levels of a factor, one line for each other setting."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from pic_plugin.analysis.style import require

from .grid import Grid
from .table import settings, summarise, values_of


def draw(grid: Grid, rows: list[dict[str, Any]], file: Path) -> None:
    """Write a figure with error bars of one sample standard deviation.

    Args:
        grid (Grid): Its ``figure`` says which factor is ``x`` and which field is ``y``.
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
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for number, (name, points) in enumerate(lines.items()):
        # Side by side: error bars on one spot hide each other.
        shift = 0.06 * (number - (len(lines) - 1) / 2)
        axes.errorbar([position + shift for position, _ in points],
                      [summary.mean for _, summary in points],
                      [summary.std or 0 for _, summary in points],
                      marker='o', capsize=3, label=name or None)
    axes.set_xticks(range(len(levels)), levels)
    axes.set_xlabel(x)
    axes.set_ylabel(grid.metrics[y])
    axes.set_title(grid.title, fontsize=10)
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={'Date': None} if file.suffix == '.svg' else None)
    pyplot.close(figure)
