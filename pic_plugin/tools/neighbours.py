# SPDX-License-Identifier: Apache-2.0
"""Which pictures a network takes for alike: nearest neighbours, and duplicates of a data set.

    mim run pic_plugin neighbours CONFIG epoch_200.pth --images DIR
    python -m pic_plugin.tools.neighbours CONFIG epoch_200.pth --images DIR --queries cat/7.png
    python -m pic_plugin.tools.neighbours CONFIG epoch_200.pth --class-weights

Without ``--images`` the pictures are those that the config evaluates on. With ``--class-weights``
they are the training images, and those are near whose class weights are. The folder ``--out`` then
holds neighbours.csv, neighbours.png and .svg, and, by features, duplicates.csv: pairs that are one
picture or nearly so, for cleaning a data set.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, List, Optional, Tuple

from mmengine.config import Config
from torch import Tensor

from pic_plugin.analysis.class_weights import read_class_weights
from pic_plugin.analysis.features import extract
from pic_plugin.analysis.images import Images, evaluated_dataset
from pic_plugin.analysis.neighbour_figure import Cell, draw_neighbours
from pic_plugin.analysis.neighbours import duplicates, find_queries, nearest
from pic_plugin.analysis.network import open_network
from pic_plugin.analysis.style import require, write_figure
from pic_plugin.bank import BankFileError
from pic_plugin.tools import analysis_inputs
from pic_plugin.tools.analysis_inputs import write_csv
from pic_plugin.tools.config_file import explained_errors

TOOL = 'neighbours'


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='Nearest pictures and duplicates.', allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin')
    parser.add_argument('checkpoint', help='file, or `random`')
    parser.add_argument('--images', help='folder of pictures; default: what the config evaluates '
                        'on')
    parser.add_argument('--class-weights', action='store_true',
                        help='by class weight instead of feature, among the training images')
    parser.add_argument('--queries', nargs='+', metavar='NAME', help='pictures by name; default: '
                        'some, evenly from all')
    parser.add_argument('--num-queries', type=int, default=8, help='default: %(default)s')
    parser.add_argument('--count', type=int, default=8, help='neighbours of each; default: '
                        '%(default)s')
    parser.add_argument('--duplicates', type=float, default=0.98, metavar='SIMILARITY',
                        help='cosine from which a pair is listed; default: %(default)s')
    parser.add_argument('--most', type=int, default=1000, help='pairs to list; default: '
                        '%(default)s')
    analysis_inputs.add_picture_arguments(parser, out=TOOL)
    args = parser.parse_args(argv)
    for name in ('num_queries', 'count', 'most'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1.')
    if args.class_weights and (args.images or args.num_images):
        parser.error('--class-weights are those of the training images, all of them: leave '
                     '--images and --num-images out.')
    return args


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors(TOOL):
        require('matplotlib')
        try:
            run(args)
        except BankFileError as error:
            raise SystemExit(f'{TOOL}: {error}') from error


def run(args: argparse.Namespace) -> None:
    """Find, write and draw.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If an input or argument is unusable.
    """
    cfg = analysis_inputs.read_config_file(args.config)
    side = analysis_inputs.choose_side(args.side, cfg)
    if args.class_weights:
        images, values = training_images(cfg, Path(args.checkpoint))
        indices = list(range(len(images)))
    else:
        network = open_network(args.checkpoint, cfg, device=args.device)
        images = analysis_inputs.open_images(args.images, evaluated_dataset(cfg))
        chosen = analysis_inputs.choose(len(images), args.num_images)
        with analysis_inputs.progress(len(chosen)) as advance:
            indices, values = extract(network, images, chosen, side, args.batch_size, advance)
    analysis_inputs.report_skipped(TOOL, images)
    if len(indices) < 2:
        raise ValueError('one picture has no neighbours: give more.')
    queries = find_queries(images, args.queries, indices, args.num_queries)
    rows, cosines = nearest(values, queries, args.count)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / 'neighbours.csv', ['query', 'rank', 'neighbour', 'similarity'],
              [[images.names[indices[query]], rank + 1, images.names[indices[row]], float(cosine)]
               for query, near, similar in zip(queries, rows.tolist(), cosines)
               for rank, (row, cosine) in enumerate(zip(near, similar))])
    cells = make_cells(images, indices, queries, rows, cosines, side)
    write_figure(lambda: draw_neighbours(cells), args.out / 'neighbours')
    print(f'{len(indices)} pictures, {len(queries)} queries')
    if not args.class_weights:
        pairs = duplicates(values, indices, images, args.duplicates, args.most)
        write_csv(args.out / 'duplicates.csv',
                  ['first', 'second', 'kind', 'similarity', 'pixel_difference'],
                  [[images.names[pair.first], images.names[pair.second], pair.kind,
                    pair.similarity, pair.pixel_difference] for pair in pairs])
        identical = sum(pair.kind == 'identical' for pair in pairs)
        print(f'{len(pairs)} pairs with a similarity of {args.duplicates} and above, {identical} '
              'of them identical pictures')
    print(f'{args.out}: figures and numbers')


def training_images(cfg: Config, checkpoint: Path) -> Tuple[Images, Tensor]:
    """The images of a training, and the class weight of each.

    Args:
        cfg (Config): Of the training.
        checkpoint (Path): Of it, with its bank files.

    Returns:
        tuple[Images, Tensor]: N images and (N, d) float32.

    Raises:
        BankFileError: If a bank file is missing or damaged.
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it has no class weights, or not one for each image of the data set.
    """
    values = read_class_weights(checkpoint)
    images = analysis_inputs.open_images(
        None, (cfg.get('train_dataloader') or {}).get('dataset'))
    if len(values) != len(images):
        raise ValueError(f'{checkpoint} has {len(values)} class weights, and the training data '
                         f'set {len(images)} images: give the config and the data of its '
                         'training.')
    return images, values


def make_cells(images: Images, indices: Sequence[int], queries: Sequence[int], rows: Tensor,
               cosines: Tensor, side: int) -> List[List[Cell]]:
    """Pictures for :func:`draw_neighbours`.

    Args:
        images (Images): Pictures.
        indices (Sequence[int]): (n,) which of them were compared.
        queries (Sequence[int]): (Q,) positions in ``indices``.
        rows (Tensor): (Q, k) positions of the neighbours.
        cosines (Tensor): (Q, k) their similarities.
        side (int): Pixels to draw them at.
    """

    def cell(place: int, query: int, title: str) -> Any:
        index = indices[place]
        _, pictures = next(iter(images.batches([index], side, 1)))
        if images.labels is None:
            return Cell(pictures[0], title, None)
        label = images.labels[index]
        agrees = None if place == query else label == images.labels[indices[query]]
        return Cell(pictures[0], f'{label[:14]} {title}'.strip(), agrees)

    return [[cell(query, query, '' if images.labels else 'query'),
             *(cell(row, query, f'{cosine:.2f}') for row, cosine in zip(near, similar))]
            for query, near, similar in zip(queries, rows.tolist(), cosines.tolist())]


if __name__ == '__main__':
    main()
