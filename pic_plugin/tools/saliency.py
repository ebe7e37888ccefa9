# SPDX-License-Identifier: Apache-2.0
"""Where a network looks: occlusion saliency, and its overlap with another network's.

    mim run pic_plugin saliency CONFIG epoch_200.pth --images DIR
    mim run pic_plugin saliency CONFIG epoch_200.pth --images DIR --against supervised.pth
    python -m pic_plugin.tools.saliency CONFIG epoch_*.pth --images DIR --against supervised.pth

A grey patch slides over each picture, and the saliency of a pixel is how far the feature moves
when patches cover it. Without ``--images`` the pictures are those that the config evaluates on.
``random`` instead of a checkpoint is the config's network without training.

The folder ``--out`` then holds saliency.csv (each image), saliency.json (settings and summary), and
as PNG and SVG: saliency (images with maps; the most different images first), overlap (histogram)
and, for several checkpoints, series (mean overlap over kNN accuracy, where folders are classes).
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmengine.config import Config

from pic_plugin.analysis.features import extract, knn_accuracy
from pic_plugin.analysis.images import Images, evaluated_dataset
from pic_plugin.analysis.network import Network, open_network
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
    occlusion,
)
from pic_plugin.analysis.style import require, write_figure
from pic_plugin.tools import analysis_inputs
from pic_plugin.tools.analysis_inputs import write_csv, write_json
from pic_plugin.tools.config_file import explained_errors

TOOL = 'saliency'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='Occlusion saliency of a network, and its overlap with another.',
        allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin')
    parser.add_argument('checkpoint', nargs='+', help='file, or `random`; several of one training, '
                        'in its order, with --against')
    parser.add_argument('--images', help='folder of pictures, which may be in folders by class; '
                        'default: what the config evaluates on')
    parser.add_argument('--against', help='checkpoint of the network to compare with, or `random`')
    parser.add_argument('--against-config', help='its config, for a checkpoint that does not hold '
                        'it and is no twin of the first')
    parser.add_argument('--names', nargs=2, metavar=('NAME', 'AGAINST'), help='of both networks in '
                        'figures; default: of their files')
    parser.add_argument('--patch', type=int, help='side of the grey patch, pixels; default: a '
                        'quarter of the image')
    parser.add_argument('--stride', type=int, help='pixels between its places; default: a quarter '
                        'of the patch')
    parser.add_argument('--region', type=float, metavar='SHARE', help='share of the pixels that a '
                        'salient region has; default: those above the mean of their map')
    parser.add_argument('--show', type=int, default=12, help='images in the figure; default: '
                        '%(default)s')
    analysis_inputs.add_picture_arguments(parser, out=TOOL)
    args = parser.parse_args(argv)
    if len(args.checkpoint) > 1 and args.against is None:
        parser.error('several checkpoints are a series of overlaps: give --against.')
    if args.show < 1:
        parser.error(f'--show must be at least 1, not {args.show}.')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors(TOOL):
        require('matplotlib')  # before minutes are spent
        run(args)


def run(args: argparse.Namespace) -> None:
    """Measure, compare, write and draw.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If an input or argument is unusable.
    """
    cfg = analysis_inputs.read_config_file(args.config)
    settings = occlusion(analysis_inputs.choose_side(args.side, cfg), args.patch, args.stride,
                         args.batch_size, args.region)
    networks = [open_network(file, cfg, device=args.device) for file in args.checkpoint]
    names = [Path(file).stem for file in args.checkpoint]
    if args.against is not None:
        names.append(analysis_inputs.network_name(args.against))
        networks.append(_open_other(args, networks[0]))
    if args.names is not None:
        names[len(args.checkpoint) - 1:] = args.names[:len(networks) - len(args.checkpoint) + 1]
    images = analysis_inputs.open_images(args.images, evaluated_dataset(cfg))
    indices = analysis_inputs.choose(len(images), args.num_images)
    begin = time.perf_counter()
    total = len(indices) * settings.num_places * len(networks)
    with analysis_inputs.progress(total) as advance:
        measured = measure(networks, images, indices, settings, advance)
    seconds = time.perf_counter() - begin
    analysis_inputs.report_skipped(TOOL, images)
    args.out.mkdir(parents=True, exist_ok=True)
    summary: Dict[str, Any] = dict(
        config=str(args.config), checkpoints=[str(file) for file in args.checkpoint],
        against=args.against, settings=dict(settings._asdict(), places=settings.num_places),
        images=len(measured.indices), skipped=[list(skipped) for skipped in images.skipped])
    if args.against is None:
        write_csv(args.out / 'saliency.csv', ['image', 'region', 'largest_distance'],
                  _rows_alone(images, measured, settings))
        shown = list(range(min(args.show, len(measured.indices))))
        titles = [''] * len(shown)
    else:
        comparisons = [compare(first, measured.distances[-1], settings)
                       for first in measured.distances[:-1]]
        summary['overlap'] = [summarise_overlap(one.overlaps, one.other_images)
                              for one in comparisons]
        latest = comparisons[-1]
        write_csv(args.out / 'saliency.csv', ['image', 'iou', 'region', 'region_against'],
                  _rows_compared(images, measured, latest))
        write_figure(lambda: draw_histogram(summary['overlap'][-1], names[-2:]),
                     args.out / 'overlap')
        if len(comparisons) > 1:
            points = [SeriesPoint(name, accuracy(network, images, measured.indices, settings),
                                  overlap['mean'], overlap['standard_error'])
                      for network, name, overlap in zip(networks, names, summary['overlap'])]
            summary['series'] = [point._asdict() for point in points]
            write_figure(lambda: draw_series(points, names[-1]), args.out / 'series')
        shown = most_different(latest.overlaps, args.show)
        titles = [f'IoU {float(latest.overlaps[place]):.2f}' for place in shown]
    write_json(args.out / 'saliency.json', summary)
    panels = make_panels(images, measured, settings, shown, titles,
                         networks=[-1] if args.against is None else [-2, -1])
    write_figure(lambda: draw_maps(panels, names[-2:]), args.out / 'saliency')
    _print(summary, names, args.out, total / seconds)


def _open_other(args: argparse.Namespace, first: Network) -> Network:
    config: Optional[Config] = None
    if args.against_config is not None:
        config = analysis_inputs.read_config_file(args.against_config)
    return open_network(args.against, config, first.settings, args.device)


def make_panels(images: Images, measured: Measured, settings: Occlusion, shown: Sequence[int],
                titles: Sequence[str], networks: Sequence[int]) -> List[Panel]:
    """Pictures with maps, for :func:`draw_maps`.

    Args:
        images (Images): Pictures.
        measured (Measured): Their distances.
        settings (Occlusion): They were measured with.
        shown (Sequence[int]): Positions in ``measured``.
        titles (Sequence[str]): For each of these.
        networks (Sequence[int]): Which networks' maps.
    """
    panels = []
    for place, title in zip(shown, titles):
        _, pictures = next(iter(images.batches([measured.indices[place]], settings.side, 1)))
        chosen = [measured.distances[network][place:place + 1] for network in networks]
        panels.append(Panel(pictures[0], [settings.maps(one)[0].numpy() for one in chosen],
                            [settings.regions(one)[0].numpy() for one in chosen], title))
    return panels


def _rows_alone(images: Images, measured: Measured, settings: Occlusion) -> List[List[Any]]:
    rows = []
    for place, index in enumerate(measured.indices):
        distances = measured.distances[0][place:place + 1]
        rows.append([images.names[index], float(settings.regions(distances).double().mean()),
                     float(distances.max())])
    return rows


def _rows_compared(images: Images, measured: Measured, latest: Comparison) -> List[List[Any]]:
    return [[images.names[index], float(overlap), *areas.tolist()]
            for index, overlap, areas in zip(measured.indices, latest.overlaps, latest.areas)]


def accuracy(network: Network, images: Images, indices: Sequence[int],
             settings: Occlusion) -> Optional[float]:
    """kNN accuracy of a network among the pictures, percent; None without labels."""
    if images.labels is None:
        return None
    return knn_accuracy(extract(network, images, indices, settings.side, settings.batch_size),
                        images)


def _print(summary: Dict[str, Any], names: Sequence[str], out: Path, speed: float) -> None:
    print(f'{summary["images"]} images, {summary["settings"]["places"]} places of the patch each, '
          f'{speed:.0f} occlusions a second')
    for name, overlap in zip(names, summary.get('overlap', [])):
        if overlap['mean'] is None:
            print(f'{name}: no image has a salient region')
            continue
        error = overlap['standard_error']
        print(f'{name} and {names[-1]}: mean overlap {overlap["mean"]:.3f}'
              + ('' if error is None else f' ± {error:.3f} (standard error)')
              + f', {overlap["share_above"]:.1%} of images above {overlap["threshold"]}'
              + ('' if overlap['other_image_mean'] is None else
                 f'; with the region in another image {overlap["other_image_mean"]:.3f}'))
    print(f'{out}: figures and numbers')


if __name__ == '__main__':
    main()
