# SPDX-License-Identifier: Apache-2.0
"""Figures of saliency: images with their maps, the histogram of overlaps, overlap by accuracy."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pic_plugin.analysis.overlap import HIGH
from pic_plugin.analysis.style import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS = 2  # images side by side in a row, each with its maps


class Panel(NamedTuple):
    """One image with its maps.

    Attributes:
        picture (np.ndarray): (H, W, 3) uint8, BGR.
        maps (list[np.ndarray]): (H, W) saliency for each network.
        regions (list[np.ndarray]): (H, W) bool for each network.
        title (str): Above the image.
    """

    picture: np.ndarray
    maps: list[np.ndarray]
    regions: list[np.ndarray]
    title: str


def draw_maps(panels: Sequence[Panel], names: Sequence[str]) -> Figure:
    """Images, each followed by its map under each network with the region outlined."""
    width = 1 + len(names)
    rows = -(-len(panels) // BLOCKS)
    blocks = min(BLOCKS, len(panels))
    # An empty column between blocks, so that it is seen which maps belong to an image.
    ratios = ([1] * width + [0.15]) * blocks
    figure, grid = subplots(1.35 * width * blocks + 0.3 * (blocks - 1), 1.5 * rows + 0.3, rows,
                            len(ratios), squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.axis('off')
    for number, panel in enumerate(panels):
        axes = grid[number // blocks][number % blocks * (width + 1):][:width]
        axes[0].imshow(panel.picture[:, :, ::-1])
        axes[0].set_title(panel.title, fontsize=7)
        for place, saliency, region in zip(axes[1:], panel.maps, panel.regions):
            _draw_map(place, panel.picture, saliency, region)
        if number < blocks:
            for place, name in zip(axes[1:], names):
                place.set_title(name, fontsize=7)
    return figure


def _draw_map(axes: Any, picture: np.ndarray, saliency: np.ndarray, region: np.ndarray) -> None:
    axes.imshow(picture.mean(axis=2), cmap='gray', vmin=0, vmax=255)
    axes.imshow(saliency, cmap='inferno', alpha=0.65)
    if region.any() and not region.all():
        axes.contour(region, levels=[0.5], colors='white', linewidths=1.2)


def draw_histogram(summary: dict[str, Any], names: Sequence[str]) -> Figure:
    """Overlaps of all images.

    Args:
        summary (dict): Of :func:`.overlap.summarise_overlap`.
        names (Sequence[str]): Of the two networks.
    """
    figure, axes = subplots(5, 3.2)
    edges = np.array(summary['histogram']['edges'])
    axes.bar(edges[:-1], summary['histogram']['counts'], np.diff(edges), align='edge',
             color='C0', edgecolor=figure.get_facecolor())
    axes.axvline(HIGH, color='C7', linestyle=':', linewidth=1.2)
    if summary['mean'] is not None:
        axes.axvline(summary['mean'], color='C1', label=f'mean {_with_error(summary)}')
    if summary['other_image_mean'] is not None:
        axes.axvline(summary['other_image_mean'], color='C2', linestyle='--',
                     label=f'with another image {summary["other_image_mean"]:.3f}')
    if summary['mean'] is not None:
        figure.legend(fontsize=8, loc='outside lower center', ncols=2)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f'overlap of salient regions (IoU), {names[0]} and {names[1]}')
    axes.set_ylabel('images')
    share = summary['share_above']
    if share is not None:
        axes.set_title(f'{share:.0%} of {summary["images"]} images above {HIGH}')
    return figure


def _with_error(summary: dict[str, Any]) -> str:
    error = summary['standard_error']
    return f'{summary["mean"]:.3f}' + ('' if error is None else f' ± {error:.3f}')


class SeriesPoint(NamedTuple):
    """One checkpoint of a series.

    Attributes:
        name (str): Of the checkpoint.
        accuracy (float | None): kNN accuracy, percent; None without labels.
        mean (float | None): Mean overlap.
        standard_error (float | None): Of the mean.
    """

    name: str
    accuracy: float | None
    mean: float | None
    standard_error: float | None


def draw_series(points: Sequence[SeriesPoint], against: str) -> Figure:
    """Mean overlap of checkpoints over their accuracy, or in their order without labels.

    Args:
        points (Sequence[SeriesPoint]): In the order of training.
        against (str): Name of the network that they are compared with.
    """
    figure, axes = subplots(5, 3.2)
    known = [point for point in points if point.mean is not None]
    labelled = all(point.accuracy is not None for point in known)
    places: list[Any] = [point.accuracy if labelled else number
                         for number, point in enumerate(known)]
    means: list[Any] = [point.mean for point in known]
    errors = [point.standard_error or 0 for point in known]
    axes.errorbar(places, means, errors, marker='o', capsize=3)
    for place, point in zip(places, known):
        axes.annotate(point.name, (place, point.mean), textcoords='offset points', xytext=(5, 5),
                      fontsize=7)
    if labelled:
        axes.set_xlabel('kNN accuracy, %')
    else:
        axes.set_xticks(places, [point.name for point in known])
        axes.set_xlabel('checkpoint (no labels, so no accuracy)')
    axes.set_ylabel(f'mean overlap with {against} (IoU)')
    axes.margins(x=0.15)
    return figure
