# SPDX-License-Identifier: Apache-2.0
"""Whether networks look at one of two objects or at both.

    python -m pic_plugin.tools.two_objects CONFIG pic.pth supervised.pth random

Pictures are put together from two of different classes, left and right. The balance of a saliency
map is 1 if both pictures have the same, 0 if one has all. The folder ``--out`` then holds
two_objects.csv (each pair), two_objects.json (mean and standard error of each network, and of the
difference to the first one, pair by pair), two_objects.png and .svg.
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from torch import Tensor

from pic_plugin.analysis.images import evaluated_dataset
from pic_plugin.analysis.network import open_network
from pic_plugin.analysis.saliency_figure import draw_maps
from pic_plugin.analysis.saliency_study import measure, occlusion
from pic_plugin.analysis.style import require, write_figure
from pic_plugin.studies.two_objects import PairedImages, balance
from pic_plugin.tools import analysis_inputs
from pic_plugin.tools.analysis_inputs import write_csv, write_json
from pic_plugin.tools.config_file import explained_errors
from pic_plugin.tools.saliency import make_panels

TOOL = 'two_objects'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='Saliency of pictures of two objects.', allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin')
    parser.add_argument('checkpoint', nargs='+', help='files, or `random`')
    parser.add_argument('--names', nargs='+', help='of the networks; default: of their files')
    parser.add_argument('--images', help='folder of pictures in folders by class; default: what '
                        'the config evaluates on')
    parser.add_argument('--pairs', type=int, default=200, help='default: %(default)s')
    parser.add_argument('--show', type=int, default=8, help='pairs in the figure; default: '
                        '%(default)s')
    analysis_inputs.add_picture_arguments(parser, out=TOOL)
    args = parser.parse_args(argv)
    if args.pairs < 1 or args.show < 1:
        parser.error('--pairs and --show must be at least 1.')
    if args.names is not None and len(args.names) != len(args.checkpoint):
        parser.error(f'{len(args.names)} names for {len(args.checkpoint)} checkpoints.')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors(TOOL):
        require('matplotlib')
        run(args)


def run(args: argparse.Namespace) -> None:
    """Measure, write and draw.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If an input or argument is unusable.
    """
    cfg = analysis_inputs.read_config_file(args.config)
    side = analysis_inputs.choose_side(args.side, cfg)
    first = open_network(args.checkpoint[0], cfg, device=args.device)
    networks = [first, *(open_network(file, like=first.settings, device=args.device)
                         for file in args.checkpoint[1:])]
    names = args.names or [Path(file).stem for file in args.checkpoint]
    images = PairedImages(
        analysis_inputs.open_images(args.images, evaluated_dataset(cfg)), side, args.pairs)
    # A patch as for single pictures, which are half as wide; halves need no finer stride.
    patch = occlusion(side).patch
    settings = occlusion(2 * side, patch, max(1, patch // 2), args.batch_size)
    with analysis_inputs.progress(args.pairs * settings.num_places * len(networks)) as advance:
        measured = measure(networks, images, range(args.pairs), settings, advance)
    analysis_inputs.report_skipped(TOOL, images)
    balances = torch.stack([balance(settings.maps(one)) for one in measured.distances], dim=1)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / 'two_objects.csv', ['pair', *names],
              [[images.names[index], *row]
               for index, row in zip(measured.indices, balances.tolist())])
    summary = {name: _mean(balances[:, place]) for place, name in enumerate(names)}
    differences = {name: _mean(balances[:, place] - balances[:, 0])
                   for place, name in enumerate(names) if place}
    write_json(args.out / 'two_objects.json',
               dict(balance=summary, difference_to_first=differences, settings=settings._asdict()))
    shown = list(range(min(args.show, len(measured.indices))))
    panels = make_panels(images, measured, settings, shown, [''] * len(shown),
                         list(range(len(networks))))
    write_figure(lambda: draw_maps(panels, names), args.out / 'two_objects')
    for name, values in summary.items():
        print(f'{name}: balance {values["mean"]} ± {values["standard_error"]} (standard error) of '
              f'{values["pairs"]} pairs')
    print(f'{args.out}: figure and numbers')


def _mean(values: Tensor) -> Dict[str, Any]:
    known = values[~values.isnan()]
    error = float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else None
    return dict(pairs=len(known), mean=round(float(known.mean()), 6) if len(known) else None,
                standard_error=None if error is None else round(error, 6))


if __name__ == '__main__':
    main()
