# SPDX-License-Identifier: Apache-2.0
"""Features of a folder of pictures, as CSV, NPY, NPZ or Parquet.

    mim run pic_plugin embed FOLDER CHECKPOINT --out features.npy
    python -m pic_plugin.tools.embed FOLDER CHECKPOINT --out features.csv
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from pic_plugin.command_line import explained_errors
from pic_plugin.features import embed
from pic_plugin.wording import counted


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog='embed', description='Features of pictures.',
                                     allow_abbrev=False)
    parser.add_argument('images', help='folder of pictures')
    parser.add_argument('checkpoint', help='of a pre-training or an exported backbone, or a work '
                        'folder')
    parser.add_argument('--out', required=True, help='file to write: .npy, .npz, .csv or .parquet')
    parser.add_argument('--side', type=int, help='pixels that the middle square of each picture is '
                        'scaled to; default: what the network was trained with')
    parser.add_argument('--batch-size', type=int, default=64, help='default: %(default)s')
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args(argv)
    with explained_errors('embed'):
        found = embed(args.images, args.checkpoint, args.out, args.side, args.batch_size,
                      args.device)
    count, width = found.features.shape
    print(f'{args.out}: {counted(count, "picture")}, {width} numbers each')


if __name__ == '__main__':
    main()
