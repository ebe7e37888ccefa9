# SPDX-License-Identifier: Apache-2.0
"""Map of a network's features in two dimensions.

    mim run pic_plugin embedding CONFIG epoch_200.pth --images DIR
    python -m pic_plugin.tools.embedding CONFIG epoch_200.pth --method umap --clusters 12

Pictures are coloured by label, where they are in folders by class or the config's data have labels,
else by cluster. The folder ``--out`` then holds embedding.csv, embedding.png and .svg, and
embedding.html, which shows the picture under the pointer.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import List, Optional

from pic_plugin.analysis.embedding import METHODS, cluster, draw_embedding, embed
from pic_plugin.analysis.features import Features, extract
from pic_plugin.analysis.images import Images, evaluated_dataset
from pic_plugin.analysis.network import open_network
from pic_plugin.analysis.page import Section, build_page, map_html, thumbnails
from pic_plugin.analysis.style import require, write_figure
from pic_plugin.tools import analysis_inputs
from pic_plugin.tools.analysis_inputs import write_csv
from pic_plugin.tools.config_file import explained_errors

TOOL = 'embedding'
CLUSTERS = 10


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='Map of features in two dimensions.', allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin')
    parser.add_argument('checkpoint', help='file, or `random`')
    parser.add_argument('--images', help='folder of pictures; default: what the config evaluates '
                        'on')
    parser.add_argument('--method', choices=METHODS, default='tsne', help='default: %(default)s')
    parser.add_argument('--clusters', type=int, help='colour by this many clusters instead of '
                        f'labels; default without labels: {CLUSTERS}')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    analysis_inputs.add_picture_arguments(parser, out=TOOL)
    parser.set_defaults(num_images=2000)
    args = parser.parse_args(argv)
    if args.clusters is not None and args.clusters < 1:
        parser.error(f'--clusters must be at least 1, not {args.clusters}.')
    return args


def groups_of(features: Features, images: Images, clusters: Optional[int] = None,
              seed: int = 0) -> List[str]:
    """Label of each picture, or its cluster where there are no labels or clusters are wanted."""
    if images.labels is not None and clusters is None:
        return [images.labels[index] for index in features.indices]
    return cluster(features.values.numpy(), clusters or CLUSTERS, seed)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors(TOOL):
        require('matplotlib')
        require('sklearn')
        run(args)


def run(args: argparse.Namespace) -> None:
    """Extract, place, write and draw.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ModuleNotFoundError: If the method's library is not installed.
        ValueError: If an input or argument is unusable.
    """
    cfg = analysis_inputs.read_config_file(args.config)
    side = analysis_inputs.choose_side(args.side, cfg)
    network = open_network(args.checkpoint, cfg, device=args.device)
    images = analysis_inputs.open_images(args.images, evaluated_dataset(cfg))
    chosen = analysis_inputs.choose(len(images), args.num_images)
    with analysis_inputs.progress(len(chosen)) as advance:
        features = extract(network, images, chosen, side, args.batch_size, advance)
    analysis_inputs.report_skipped(TOOL, images)
    points = embed(features.values.numpy(), args.method, args.seed)
    groups = groups_of(features, images, args.clusters, args.seed)
    names = [images.names[index] for index in features.indices]
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / 'embedding.csv', ['image', 'group', 'x', 'y'],
              [[name, group, *point] for name, group, point in zip(names, groups, points.tolist())])
    write_figure(lambda: draw_embedding(points, groups), args.out / 'embedding')
    body = map_html(points, groups, names, read_thumbnails(images, features.indices, side))
    page = build_page('Map of features', f'{args.checkpoint}, {args.method}',
                      [Section('map', f'{len(names)} pictures', body)])
    analysis_inputs.write_text(args.out / 'embedding.html', page)
    print(f'{args.out}: map of {len(names)} pictures')


def read_thumbnails(images: Images, indices: Sequence[int], side: int) -> list:
    """Small pictures for :func:`map_html`."""
    return [small for _, pictures in images.batches(indices, side, 64)
            for small in thumbnails(pictures)]


if __name__ == '__main__':
    main()
