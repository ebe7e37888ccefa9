# SPDX-License-Identifier: Apache-2.0
"""Figures of the study."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import numpy as np

_STYLE: Dict[Any, Any] = {'svg.hashsalt': 'ahead', 'svg.fonttype': 'path', 'font.size': 9,
          'axes.spines.top': False, 'axes.spines.right': False}


def draw_all(records: List[Dict[str, Any]], out: Path) -> None:
    """Draw what there are results for: results.svg and why.svg."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    with plt.rc_context(_STYLE):
        for name, draw in (('results', _results), ('why', _why)):
            figure = draw(records, plt)
            if figure is not None:
                figure.savefig(out / f'{name}.svg', metadata={'Date': None}, bbox_inches='tight')
                plt.close(figure)


def _results(records: List[Dict[str, Any]], plt: Any) -> Any:
    """kNN and linear accuracy over passes, a column for each number of images."""
    records = [one for one in records if one['stage'] in ('results_small', 'results_large')]
    scales = sorted({one['setting'].images for one in records})
    if not scales:
        return None
    metrics = dict(test_knn200='kNN, k = 200', test_linear='linear')
    figure, axes = plt.subplots(len(metrics), len(scales), squeeze=False, sharex=True,
                                figsize=(3.6 * len(scales), 5.2))
    for column, images in enumerate(scales):
        for row, (metric, label) in enumerate(metrics.items()):
            axis = axes[row][column]
            for name in dict.fromkeys(one['name'] for one in records):
                points: Dict[int, List[float]] = {}
                for one in records:
                    if one['name'] == name and one['setting'].images == images and metric in one:
                        points.setdefault(one['setting'].passes, []).append(one[metric])
                passes = sorted(points)
                axis.errorbar(passes, [np.mean(points[p]) for p in passes],
                              [np.std(points[p], ddof=1) if len(points[p]) > 1 else 0
                               for p in passes], marker='o', markersize=3, capsize=2, label=name)
            axis.set_xscale('log')
            axis.set_ylabel(f'{label}, %')
            if row == 0:
                axis.set_title(f'{images:,} images')
            else:
                axis.set_xlabel('forward passes')
    axes[0][0].legend(frameon=False, fontsize=8)
    return figure


def _why(records: List[Dict[str, Any]], plt: Any) -> Any:
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
