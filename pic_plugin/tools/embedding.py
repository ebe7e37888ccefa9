# SPDX-License-Identifier: Apache-2.0
"""Map of a network's features in two dimensions.

    mim run pic_plugin embedding WORK_DIR --images DIR
    python -m pic_plugin.tools.embedding CONFIG epoch_200.pth --method umap --clusters 12

Pictures are coloured by label, where they are in folders by class or the config's data have labels,
else by cluster. The folder ``--out`` then holds embedding.csv, embedding.png and .svg, and
embedding.html, which shows the picture under the pointer.
"""
from __future__ import annotations

from collections.abc import Sequence

from pic_plugin.analysis.embedding import CLUSTERS, METHODS
from pic_plugin.analysis.feature_map import write_map
from pic_plugin.analysis.features import extract
from pic_plugin.analysis.images import report_skipped
from pic_plugin.analysis.inputs import open_inputs
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

TOOL = 'embedding'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = analysis_parser(TOOL, 'Map of features in two dimensions.')
    parser.add_argument('--method', choices=METHODS, default='tsne', help='default: %(default)s')
    parser.add_argument('--clusters', type=int, help='colour by this many clusters instead of '
                        f'labels; default without labels: {CLUSTERS}')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.set_defaults(num_images=2000)
    args = parse_analysis(parser, argv)
    require_positive(parser, args, ['clusters'])
    with explained_errors(TOOL):
        for library in ('matplotlib', 'sklearn', 'jinja2'):
            require(library)
        check_folder(args.out)
        cfg, side, images, indices = open_inputs(args.config, args.images, args.side,
                                                 args.num_images)
        network = open_network(args.checkpoint, cfg, device=args.device)
        features = extract(network, images, indices, side, args.batch_size)
        report_skipped(TOOL, images)
        write_map(features, images, args.out, f'{args.checkpoint}, {args.method}', args.method,
                  args.clusters, args.seed)
    print(f'{args.out}: map of {counted(len(features.indices), "picture")}')


if __name__ == '__main__':
    main()
