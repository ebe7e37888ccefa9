# SPDX-License-Identifier: Apache-2.0
"""Which pictures a network takes to be alike: nearest neighbours, and duplicates.

    mim run pic_plugin neighbours WORK_DIR --images DIR
    python -m pic_plugin.tools.neighbours CONFIG epoch_200.pth --images DIR --queries cat/7.png
    python -m pic_plugin.tools.neighbours CONFIG epoch_200.pth --class-weights

Without ``--images`` the pictures are those that the config evaluates on. With ``--class-weights``
they are the training images, and those are near whose class weights are. The folder ``--out`` then
holds neighbours.csv, neighbours.png and .svg, and, by features, duplicates.csv: pairs that are one
picture or nearly so, for cleaning a data set.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pic_plugin.analysis.features import extract
from pic_plugin.analysis.images import report_skipped
from pic_plugin.analysis.inputs import open_inputs
from pic_plugin.analysis.neighbour_study import (
    training_images,
    write_duplicates,
    write_neighbours,
)
from pic_plugin.analysis.neighbours import check_similarity, find_queries
from pic_plugin.analysis.network import open_network
from pic_plugin.analysis.style import require
from pic_plugin.command_line import (
    analysis_parser,
    explained_errors,
    parse_analysis,
    require_positive,
)
from pic_plugin.files import check_folder
from pic_plugin.wording import counted

TOOL = 'neighbours'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = analysis_parser(TOOL, 'Nearest pictures and duplicates.')
    parser.add_argument('--class-weights', action='store_true',
                        help='by class weight instead of feature, among the training images')
    parser.add_argument('--queries', nargs='+', metavar='NAME', help='pictures by name; default: '
                        'some, evenly from all')
    parser.add_argument('--num-queries', type=int, default=8, help='default: %(default)s')
    parser.add_argument('--count', type=int, default=8, help='neighbours of each; default: '
                        '%(default)s')
    parser.add_argument('--duplicates', type=float, default=0.98, metavar='SIMILARITY',
                        help='cosine from which a pair is listed; default: %(default)s')
    parser.add_argument('--most', type=int, default=1000, help='pairs to list at most; default: '
                        '%(default)s')
    args = parse_analysis(parser, argv)
    require_positive(parser, args, ['num_queries', 'count', 'most'])
    if args.class_weights and (args.images or args.num_images):
        parser.error('--class-weights are those of the training images, all of them: leave '
                     '--images and --num-images out.')
    with explained_errors(TOOL):
        require('matplotlib')
        check_folder(args.out)
        check_similarity(args.duplicates)
        cfg, side, images, indices = open_inputs(args.config, args.images, args.side,
                                                 args.num_images)
        if args.class_weights:
            images, values = training_images(cfg, Path(args.checkpoint))
            indices = list(range(len(images)))
        else:
            find_queries(images, args.queries, indices, 1)  # before features are computed
            network = open_network(args.checkpoint, cfg, device=args.device)
            indices, values = extract(network, images, indices, side, args.batch_size)
        report_skipped(TOOL, images)
        num_queries = write_neighbours(images, indices, values, side, args.out, args.queries,
                                       args.num_queries, args.count)
        print(f'{counted(len(indices), "picture")}, {counted(num_queries, "query", "queries")}')
        if not args.class_weights:
            pairs = write_duplicates(images, indices, values, args.out, args.duplicates, args.most)
            identical = sum(pair.kind == 'identical' for pair in pairs)
            more = (f' (the most similar ones: --most {args.most})' if len(pairs) == args.most
                    else '')
            print(f'{counted(len(pairs), "pair")} with a similarity of {args.duplicates} and '
                  f'above{more}, {identical} of them identical pictures')
    print(f'{args.out}: figures and numbers')


if __name__ == '__main__':
    main()
