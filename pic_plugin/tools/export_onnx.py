# SPDX-License-Identifier: Apache-2.0
"""The backbone of a checkpoint as an ONNX file, compared with the network in onnxruntime.

    mim run pic_plugin export_onnx CHECKPOINT backbone.onnx
    python -m pic_plugin.tools.export_onnx work_dirs/mine backbone.onnx --normalise
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from pic_plugin.command_line import explained_errors
from pic_plugin.features.embedding import load_backbone
from pic_plugin.features.onnx import check_onnx, export_onnx


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog='export_onnx', allow_abbrev=False,
                                     description='Backbone as an ONNX file.')
    parser.add_argument('checkpoint', help='of a pre-training or an exported backbone, or a work '
                        'folder')
    parser.add_argument('out', help='file to write')
    parser.add_argument('--side', type=int, help='pixels; default: as trained')
    parser.add_argument('--normalise', action='store_true', help='the file takes RGB pixels from 0 '
                        'to 255 and normalises them itself')
    args = parser.parse_args(argv)
    with explained_errors('export_onnx'):
        check_onnx()
        backbone = load_backbone(args.checkpoint, args.normalise)
        difference = export_onnx(backbone, args.out, args.side)
    takes = ('RGB pixels from 0 to 255' if args.normalise else
             f'{backbone.channel_order} pixels less {backbone.mean} over {backbone.std}')
    print(f'{args.out}: images (B, 3, {args.side or backbone.image_size}, '
          f'{args.side or backbone.image_size}), {takes} -> features (B, {backbone.feature_dim}); '
          f'equal to the network within {difference:.1e} of the largest feature')


if __name__ == '__main__':
    main()
