# SPDX-License-Identifier: Apache-2.0
"""Figure of a training's health: what it logged, over images seen, one or several runs."""
from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from pic_plugin.analysis.scalars import Curve, Run
from pic_plugin.analysis.style import legend, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = ('-', '--', ':', '-.')


class Chart(NamedTuple):
    """One of the charts.

    Attributes:
        title (str): With the unit.
        keys (tuple[str, ...]): Scalars of it; ``*`` stands for any part of a name.
    """

    title: str
    keys: tuple[str, ...]


CHARTS = (
    Chart('loss', ('loss', )),
    Chart('instance accuracy, %', ('instance_acc', )),
    Chart('kNN accuracy, %', ('knn/*', )),
    Chart('class weight norm', ('class_weight_norm', )),
    Chart('staleness of returning rows, steps', ('row_staleness', )),
    # With several optimizers each has a rate of its own, `network.lr`.
    Chart('learning rate', ('lr', '*.lr')),
)
# Of OnlineMeasuresHook: drawn where it has logged.
ONLINE = (
    Chart('effective rank of features', ('effective_rank', )),
    Chart('alignment and uniformity', ('alignment', 'uniformity')),
    Chart('linear probe during training, %', ('probe_acc', )),
)


def curves_of(run: Run, chart: Chart) -> dict[str, Curve]:
    """The scalars of a run that belong into a chart."""
    return {key: curve for key, curve in run.curves.items()
            if any(fnmatchcase(key, pattern) for pattern in chart.keys)}


def charts_of(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """The charts of a page: the usual ones, and others where a run has logged for them."""
    return CHARTS + tuple(chart for chart in ONLINE if any(curves_of(run, chart) for run in runs))


def draw_health(runs: Sequence[Run]) -> Figure:
    """One chart for each kind of scalar; a colour for each run, a line style for each scalar."""
    from matplotlib.ticker import EngFormatter
    charts = charts_of(runs)
    rows = -(-len(charts) // 3)
    figure, grid = subplots(9, 2.5 * rows, rows, 3, sharex=True)
    for axes in grid.flat[len(charts):]:
        axes.set_axis_off()
    for axes, chart in zip(grid.flat, charts):
        axes.set_title(chart.title)
        found: list[str] = []
        for number, run in enumerate(runs):
            for key, curve in sorted(curves_of(run, chart).items()):
                if key not in found:
                    found.append(key)
                # Gaps where a value is not finite: the rest of the curve is drawn.
                values = [value if math.isfinite(value) else math.nan for _, value in curve]
                axes.plot([seen for seen, _ in curve], values, color=f'C{number % 8}',
                          linestyle=STYLES[found.index(key) % len(STYLES)],
                          marker='.' if len(curve) < 12 else None, linewidth=1.3)
        if not found:
            axes.text(0.5, 0.5, 'not logged', ha='center', va='center', color='C7',
                      transform=axes.transAxes)
            axes.set_yticks([])
        elif len(found) > 1:
            lines = [axes.plot([], [], color='C7', linestyle=STYLES[place % len(STYLES)])[0]
                     for place in range(len(found))]
            legend(axes, lines, found, fontsize=7)
        axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    for axes in grid[-1]:
        axes.set_xlabel('images seen')
    if len(runs) > 1:
        lines = [figure.axes[0].plot([], [], color=f'C{number % 8}')[0]
                 for number in range(len(runs))]
        legend(figure, lines, [run.name for run in runs], loc='outside upper center', ncols=4,
               fontsize=8)
    return figure
