# SPDX-License-Identifier: Apache-2.0
"""Whether networks look at one of two objects or at both.

    python -m pic_plugin.tools.two_objects CONFIG pic.pth supervised.pth random

Pictures are put together from two of different classes, left and right. The balance of a saliency
map is 1 if both pictures have the same, 0 if one has all. The folder ``--out`` then holds
two_objects.csv (each pair), two_objects.json (mean and standard error of each network, and of the
difference to the first one, pair by pair), two_objects.png and .svg.
"""
from __future__ import annotations

from collections.abc import Sequence

from pic_plugin.analysis.images import report_skipped
from pic_plugin.analysis.inputs import network_name, open_inputs
from pic_plugin.analysis.network import open_network
from pic_plugin.analysis.style import require
from pic_plugin.command_line import (
    analysis_parser,
    explained_errors,
    parse_analysis,
    require_positive,
)
from pic_plugin.studies.two_objects import PairedImages, compare_balance

TOOL = 'two_objects'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = analysis_parser(TOOL, 'Saliency of pictures of two objects.', 'files, or `random`',
                             several=True)
    parser.add_argument('--names', nargs='+', help='of the networks; default: of their files')
    parser.add_argument('--pairs', type=int, default=200, help='default: %(default)s')
    parser.add_argument('--show', type=int, default=8, help='pairs in the figure; default: '
                        '%(default)s')
    args = parse_analysis(parser, argv)
    require_positive(parser, args, ['pairs', 'show'])
    if args.names is not None and len(args.names) != len(args.checkpoint):
        parser.error(f'{len(args.names)} names for {len(args.checkpoint)} checkpoints.')
    with explained_errors(TOOL):
        require('matplotlib')
        cfg, side, images, _ = open_inputs(args.config, args.images, args.side)
        first = open_network(args.checkpoint[0], cfg, device=args.device)
        networks = [first, *(open_network(file, like=first.settings, device=args.device)
                             for file in args.checkpoint[1:])]
        names = args.names or [network_name(file) for file in args.checkpoint]
        if len(set(names)) < len(names):
            raise ValueError(f'two networks have one name ({", ".join(names)}): give --names.')
        pairs = PairedImages(images, side, args.pairs)
        summary = compare_balance(networks, names, pairs, args.batch_size, args.out, args.show)
        report_skipped(TOOL, pairs)
    for name, values in summary.items():
        print(f'{name}: balance {values["mean"]} ± {values["standard_error"]} (standard error) of '
              f'{values["pairs"]} pairs')
    print(f'{args.out}: figure and numbers')


if __name__ == '__main__':
    main()
