# SPDX-License-Identifier: Apache-2.0
"""Networks of one training, and another that they are compared with: maps, overlaps, a series."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pic_plugin.analysis.features import extract, knn_accuracy
from pic_plugin.analysis.images import Images
from pic_plugin.analysis.network import Network
from pic_plugin.analysis.overlap import summarise_overlap
from pic_plugin.analysis.saliency_figure import (
    Panel,
    SeriesPoint,
    draw_histogram,
    draw_maps,
    draw_series,
)
from pic_plugin.analysis.saliency_study import (
    Comparison,
    Measured,
    Occlusion,
    compare,
    measure,
    most_different,
)
from pic_plugin.analysis.style import write_figure
from pic_plugin.files import write_csv, write_json


class Compared(NamedTuple):
    """Networks compared with one of them, the last.

    Attributes:
        networks (list[Network]): In the order of training; the last is the one compared with.
        names (list[str]): Of all of them.
        images (Images): Pictures.
        settings (Occlusion): How saliency is measured.
        measured (Measured): Distances of each network.
        comparisons (list[Comparison]): Of each network but the last; none if it is alone.
        overlaps (list[dict]): What :func:`summarise_overlap` says of each comparison.
    """

    networks: list[Network]
    names: list[str]
    images: Images
    settings: Occlusion
    measured: Measured
    comparisons: list[Comparison]
    overlaps: list[dict[str, Any]]

    def panels(self, count: int) -> list[Panel]:
        """Pictures with the maps of the last two networks, those that differ most first."""
        if not self.comparisons:
            places = list(range(min(count, len(self.measured.indices))))
            return make_panels(self.images, self.measured, self.settings, places)
        overlaps = self.comparisons[-1].overlaps
        places = most_different(overlaps, count)
        titles = [f'IoU {float(overlaps[place]):.2f}' for place in places]
        last_two = self.measured._replace(distances=self.measured.distances[-2:])
        return make_panels(self.images, last_two, self.settings, places, titles)

    def series(self, indices: Sequence[int]) -> list[SeriesPoint]:
        """Mean overlap of each network, and its accuracy among these pictures."""
        points = []
        for network, name, overlap in zip(self.networks, self.names, self.overlaps):
            accuracy = None if self.images.labels is None else knn_accuracy(
                extract(network, self.images, indices, self.settings.side,
                        self.settings.batch_size), self.images)
            points.append(SeriesPoint(name, accuracy, overlap['mean'], overlap['standard_error']))
        return points


def compare_networks(networks: Sequence[Network], names: Sequence[str], images: Images,
                     indices: Sequence[int], settings: Occlusion) -> Compared:
    """Measure the saliency of pictures and compare all networks with the last.

    Raises:
        ValueError: If no picture can be read, or features are not finite.
    """
    measured = measure(networks, images, indices, settings)
    comparisons = [compare(distances, measured.distances[-1], settings)
                   for distances in measured.distances[:-1]]
    return Compared(list(networks), list(names), images, settings, measured, comparisons,
                    [summarise_overlap(one.overlaps, one.other_images) for one in comparisons])


def make_panels(images: Images, measured: Measured, settings: Occlusion, places: Sequence[int],
                titles: Sequence[str] | None = None) -> list[Panel]:
    """The pictures at some places in ``measured``, with the maps of all networks."""
    panels = []
    for place, title in zip(places, titles or [''] * len(places)):
        _, pictures = next(iter(images.shown([measured.indices[place]], settings.side, 1)))
        chosen = [distances[place:place + 1] for distances in measured.distances]
        panels.append(Panel(pictures[0], [settings.maps(one)[0].numpy() for one in chosen],
                            [settings.regions(one)[0].numpy() for one in chosen], title))
    return panels


def write_comparison(compared: Compared, out: Path, show: int, about: dict[str, Any]) -> None:
    """Write saliency.csv (each image), saliency.json (settings and summary) and the figures.

    ``show`` images are in the figure with maps; saliency.json begins with ``about``.
    """
    images, settings, measured = compared.images, compared.settings, compared.measured
    summary = dict(about, settings=dict(settings._asdict(), places=settings.num_places),
                   images=len(measured.indices),
                   skipped=[list(skipped) for skipped in images.skipped])
    names = compared.names[-2:]
    if not compared.comparisons:
        distances = measured.distances[0]
        write_csv(out / 'saliency.csv', ['image', 'region', 'largest_distance'], [
            [images.names[index], float(settings.regions(one[None]).double().mean()),
             float(one.max())] for index, one in zip(measured.indices, distances)])
    else:
        summary['overlap'] = compared.overlaps
        latest = compared.comparisons[-1]
        write_csv(out / 'saliency.csv', ['image', 'iou', 'region', 'region_against'], [
            [images.names[index], float(overlap), *areas.tolist()]
            for index, overlap, areas in zip(measured.indices, latest.overlaps, latest.areas)])
        write_figure(lambda: draw_histogram(compared.overlaps[-1], names), out / 'overlap')
    if len(compared.comparisons) > 1:
        points = compared.series(measured.indices)
        summary['series'] = [point._asdict() for point in points]
        write_figure(lambda: draw_series(points, names[-1]), out / 'series')
    write_json(out / 'saliency.json', summary)
    panels = compared.panels(show)
    write_figure(lambda: draw_maps(panels, names), out / 'saliency')


def describe_overlap(name: str, against: str, overlap: dict[str, Any]) -> str:
    """One line about two networks, with what :func:`summarise_overlap` says of them."""
    if overlap['mean'] is None:
        return f'{name}: no image has a salient region'
    text = f'{name} and {against}: mean overlap {overlap["mean"]:.3f}'
    if overlap['standard_error'] is not None:
        text += f' ± {overlap["standard_error"]:.3f} (standard error)'
    text += f', {overlap["share_above"]:.1%} of images above {overlap["threshold"]}'
    if overlap['other_image_mean'] is not None:
        text += f'; with the region in another image {overlap["other_image_mean"]:.3f}'
    return text
