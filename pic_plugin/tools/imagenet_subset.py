# SPDX-License-Identifier: Apache-2.0
"""Check or make a list of labelled ImageNet images for semi-supervised evaluation.

    python -m pic_plugin.tools.imagenet_subset 1percent.txt data/imagenet/train \
        --out data/imagenet/meta/train_1percent.txt
    python -m pic_plugin.tools.imagenet_subset mine.txt data/imagenet/train --make 1 \
        --out data/imagenet/meta/train_mine.txt

A list has the form of SimCLR's public ones (``imagenet_subsets/1percent.txt`` and
``10percent.txt``): one file name a line, such as ``n01440764_10026.JPEG``. The first command checks
such a list against the images: each is there, once, and all classes have equally many, give or take
one. The second makes a list of that many percent first. Both write what mmpretrain's ``ImageNet``
takes as ``ann_file``: lines ``n01440764/n01440764_10026.JPEG 0``, the label being the place of the
folder among all folders.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.command_line import explained_errors
from pic_plugin.evaluation.imagenet_subset import (
    NUM_CLASSES,
    annotate,
    choose_images,
    find_images,
)
from pic_plugin.files import write_atomically
from pic_plugin.wording import counted


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='imagenet_subset', description='Labelled part of ImageNet.', allow_abbrev=False)
    parser.add_argument('list', type=Path, help='file with one file name a line')
    parser.add_argument('train', type=Path, help='folder of the images, a folder for each class')
    parser.add_argument('--out', type=Path, required=True, help='annotation file to write')
    parser.add_argument('--make', type=float, metavar='PERCENT',
                        help='make the list first, of that many percent of the images')
    parser.add_argument('--seed', type=int, default=0, help='of --make; default: %(default)s')
    args = parser.parse_args(argv)
    with explained_errors('imagenet_subset'):
        if args.make is not None and args.list.exists():
            raise ValueError(f'{args.list} exists: it is not written over; give another name, or '
                             'leave --make out to check it.')
        images = find_images(args.train)
        if args.make is None:
            text = args.list.read_text(encoding='utf-8', errors='surrogateescape')
            names = text.split()
        else:
            names = choose_images(images, args.make, args.seed)
        lines = annotate(names, images, str(args.list))
        if args.make is not None:
            write_atomically(args.list, ''.join(f'{name}\n' for name in names))
        write_atomically(args.out, ''.join(f'{line}\n' for line in lines))
    print(f'{counted(len(lines), "image")} of {counted(len(images), "class", "classes")} -> '
          f'{args.out}')
    if len(images) != NUM_CLASSES:
        print(f'imagenet_subset: {args.train} has {len(images)} folders, and ImageNet-1K '
              f'{NUM_CLASSES}: these labels fit only validation images in the same folders.',
              file=sys.stderr)


if __name__ == '__main__':
    main()
