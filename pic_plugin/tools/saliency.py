# SPDX-License-Identifier: Apache-2.0
"""Where a network looks: occlusion saliency, and its overlap with another network's.

    mim run pic_plugin saliency WORK_DIR --images DIR
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

import time
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.analysis.images import report_skipped
from pic_plugin.analysis.inputs import network_name, open_inputs
from pic_plugin.analysis.network import open_network
from pic_plugin.analysis.saliency_comparison import (
    compare_networks,
    describe_overlap,
    write_comparison,
)
from pic_plugin.analysis.saliency_study import occlusion
from pic_plugin.analysis.style import require
from pic_plugin.command_line import (
    analysis_parser,
    explained_errors,
    parse_analysis,
    require_positive,
)
from pic_plugin.engine.config_file import read_config
from pic_plugin.files import check_folder
from pic_plugin.wording import counted

TOOL = 'saliency'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = analysis_parser(
        TOOL, 'Occlusion saliency of a network, and its overlap with another.', several=True,
        checkpoint='file, work folder, or `random`; several of one training, in its order, with '
        '--against')
    parser.add_argument('--against', help='checkpoint of the network to compare with, or `random`')
    parser.add_argument('--against-config', help='its config, for a checkpoint that does not hold '
                        'it and is not a twin of the first')
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
    args = parse_analysis(parser, argv)
    if len(args.checkpoint) > 1 and args.against is None:
        parser.error('several checkpoints are a series of overlaps: give --against.')
    require_positive(parser, args, ['show'])
    with explained_errors(TOOL):
        require('matplotlib')  # before minutes are spent
        check_folder(args.out)
        cfg, side, images, indices = open_inputs(args.config, args.images, args.side,
                                                 args.num_images)
        settings = occlusion(side, args.patch, args.stride, args.batch_size, args.region)
        networks = [open_network(file, cfg, device=args.device) for file in args.checkpoint]
        names = [Path(file).stem for file in args.checkpoint]
        if args.against is not None:
            other = read_config(args.against_config) if args.against_config else None
            networks.append(open_network(args.against, other, networks[0].settings, args.device))
            names.append(network_name(args.against))
        if args.names is not None:
            names[len(args.checkpoint) - 1:] = args.names[:len(networks) - len(args.checkpoint) + 1]
        begin = time.perf_counter()
        compared = compare_networks(networks, names, images, indices, settings)
        speed = settings.num_places * len(networks) * len(indices) / (time.perf_counter() - begin)
        report_skipped(TOOL, images)
        write_comparison(compared, args.out, args.show, dict(
            config=args.config, checkpoints=args.checkpoint, against=args.against))
    print(f'{counted(len(compared.measured.indices), "image")}, '
          f'{counted(settings.num_places, "place")} of the patch each, '
          f'{speed:.0f} occlusions a second')
    for name, overlap in zip(names, compared.overlaps):
        print(describe_overlap(name, names[-1], overlap))
    print(f'{args.out}: figures and numbers')


if __name__ == '__main__':
    main()
