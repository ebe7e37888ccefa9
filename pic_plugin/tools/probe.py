# SPDX-License-Identifier: Apache-2.0
"""How well a linear classifier on the frozen backbone does on labelled pictures of your own.

    mim run pic_plugin probe CHECKPOINT LABELLED
    python -m pic_plugin.tools.probe work_dirs/mine LABELLED --out classifier.pth

LABELLED is a folder with a folder of pictures for each class, or a CSV of path,label. Every second
picture of a class is for learning, the others for the accuracy. The same network with random
weights is measured too.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from pic_plugin.command_line import explained_errors
from pic_plugin.features.probe import probe_checkpoint
from pic_plugin.files import check_file, replacing


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog='probe', allow_abbrev=False,
                                     description='Linear classification of frozen features.')
    parser.add_argument('checkpoint', help='of a pre-training or an exported backbone, or a work '
                        'folder')
    parser.add_argument('labels', help='folder with a folder for each class, or a CSV of '
                        'path,label')
    parser.add_argument('--out', help="file for the classifier: a linear layer's weight and bias, "
                        'and the names of the classes')
    parser.add_argument('--side', type=int, help='pixels; default: as trained')
    parser.add_argument('--batch-size', type=int, default=64, help='default: %(default)s')
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args(argv)
    with explained_errors('probe'):
        out = None if args.out is None else Path(args.out).expanduser()
        if out is not None:
            check_file(out)
        found = probe_checkpoint(args.checkpoint, args.labels, args.device, args.side,
                                 args.batch_size)
        if out is not None:
            best = found['trained']
            with replacing(out) as partial:
                torch.save(dict(weight=best.weight, bias=best.bias, classes=best.classes), partial)
            print(f'{args.out}: classifier of {len(best.classes)} classes')


if __name__ == '__main__':
    main()
