# SPDX-License-Identifier: Apache-2.0
"""Make detection and segmentation data out of the CIFAR-10 photos that come with this package.

    mim run pic_plugin make_scenes data --format voc coco cityscapes
    python -m pic_plugin.tools.make_scenes data --format voc --train 400 --val 100

writes ``data/VOCdevkit``, ``data/coco`` and ``data/cityscapes`` in the formats of these data sets:
photos of objects, cut out, on backgrounds made of enlarged photos. To try configs out and to
compare initialisations; it is not a benchmark that others report.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.command_line import explained_errors
from pic_plugin.studies.scenes.make_scenes import FOLDERS, write


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='make_scenes', description='Make detection and segmentation data of CIFAR-10 photos.')
    parser.add_argument('out', type=Path, help='folder to make the data sets in')
    parser.add_argument('--format', nargs='+', choices=sorted(FOLDERS), default=['voc'],
                        dest='forms', help='data sets whose formats to write; default: voc')
    parser.add_argument('--train', type=int, default=400, help='scenes; default: %(default)s')
    parser.add_argument('--val', type=int, default=100, help='scenes; default: %(default)s')
    parser.add_argument('--size', type=int, nargs=2, default=(320, 240),
                        metavar=('WIDTH', 'HEIGHT'), help='pixels; default: 320 240')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    args = parser.parse_args(argv)
    with explained_errors('make_scenes'):
        for form in args.forms:
            folder = write(form, args.out, args.train, args.val, tuple(args.size), args.seed)
            print(f'{folder}: {args.train} scenes to train with, {args.val} to evaluate.')


if __name__ == '__main__':
    main()
