# SPDX-License-Identifier: Apache-2.0
"""Figures of the study."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from .spread import Group, group_runs, pooled_deviation, values_of

_STYLE: dict[Any, Any] = {'svg.hashsalt': 'ahead', 'svg.fonttype': 'path', 'font.size': 9,
          'axes.spines.top': False, 'axes.spines.right': False}
_KINDS = dict(cifar10='images of CIFAR-10', clothing='photos of clothes')


def draw_all(records: list[dict[str, Any]], out: Path, stages: Sequence[str]) -> None:
    """Draw what there are results for: results.svg, full.svg and why.svg.

    Args:
        records (list[dict]): Of trainings.
        out (Path): Folder.
        stages (Sequence[str]): What results.svg shows.
    """
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figures: dict[str, Callable[[], Any]] = dict(
        results=lambda: _results(group_runs(records, stages), plt),
        full=lambda: _full(records, plt), why=lambda: _why(records, plt))
    with plt.rc_context(_STYLE):
        for name, draw in figures.items():
            figure = draw()
            if figure is not None:
                figure.savefig(out / f'{name}.svg', metadata={'Date': None}, bbox_inches='tight')
                plt.close(figure)


def _results(groups: dict[Group, list[dict[str, Any]]], plt: Any) -> Any:
    """kNN and linear accuracy over passes, a column for each data set and number of images."""
    scales = sorted({key[:2] for key in groups})
    if not scales:
        return None
    metrics = dict(test_knn200='kNN, k = 200', test_linear='linear')
    names = list(dict.fromkeys(key[3] for key in groups))
    figure, axes = plt.subplots(len(metrics), len(scales), squeeze=False, sharex=True,
                                figsize=(3.4 * len(scales), 5.2))
    for column, (data, images) in enumerate(scales):
        for axis, (metric, label) in zip(axes[:, column], metrics.items()):
            deviation = pooled_deviation(groups, data, metric)
            for name in names:
                points = {key[2]: values_of(part, metric) for key, part in sorted(groups.items())
                          if key[:2] == (data, images) and key[3] == name}
                points = {passes: values for passes, values in points.items() if values}
                axis.errorbar(list(points), [np.mean(values) for values in points.values()],
                              [np.nan_to_num(deviation / len(values)**0.5)
                               for values in points.values()],
                              marker='o', markersize=3, capsize=2, label=name)
            axis.set(xscale='log', ylabel=f'{label}, %')
            axis.set_xticks(lengths := sorted({key[2] for key in groups}),
                            [f'{passes:,}' for passes in lengths])
            axis.minorticks_off()
        axes[0][column].set_title(f'{images:,} {_KINDS.get(data, "images")}')
        axes[-1][column].set_xlabel('forward passes')
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def _full(records: list[dict[str, Any]], plt: Any) -> Any:
    """kNN on the way, all of CIFAR-10."""
    records = [one for one in records if one['stage'] == 'full']
    if not records:
        return None
    figure, axis = plt.subplots(figsize=(4.2, 3))
    for one in records:
        points = [(part['course'] * one['setting'].batch / 1e6, part['test_knn200'])
                  for part in one.get('course', []) if 'test_knn200' in part]
        if 'test_knn200' in one:
            points.append((one['setting'].passes / 1e6, one['test_knn200']))
        axis.plot(*zip(*points), marker='o', markersize=3, label=one['name'])
    axis.set(xlabel='forward passes, millions', ylabel='kNN, k = 200, %')
    axis.legend(frameon=False, fontsize=8)
    return figure


def _why(records: list[dict[str, Any]], plt: Any) -> Any:
    """Cosine over absence, and loss and turn by visit."""
    measured = {one['name']: one['measures'] for one in records if one.get('measures')}
    if not measured:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2))
    for name, measures in measured.items():
        probe = measures['probes'][len(measures['probes']) // 2]
        ages = [row for row in probe['cosine_by_age'] if row['up_to'] > 0]
        axes[0].plot([row['mean_steps'] for row in ages], [row['mean'] for row in ages],
                     marker='o', markersize=3, label=name)
        visits = measures['by_visit']
        for axis, key in ((axes[1], 'loss'), (axes[2], 'turn')):
            axis.plot([row['visit'] for row in visits], [row[key] for row in visits], marker='o',
                      markersize=3)
    axes[0].set(xscale='symlog', xlabel='steps since the image was visited',
                ylabel='cosine of row and present feature')
    axes[1].set(xlabel='visit since the image returned', ylabel='loss')
    axes[2].set(xlabel='visit since the image returned', ylabel='turn of the row, degrees')
    axes[0].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    return figure
