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
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from pic_plugin.tools.config_file import explained_errors

EXTENSIONS = ('.jpeg', '.jpg', '.png')
NUM_CLASSES = 1000


def find_images(train: Path) -> dict[str, list[str]]:
    """Names of the images of each class.

    Args:
        train (Path): With a folder for each class.

    Returns:
        dict[str, list[str]]: By folder, both sorted.

    Raises:
        FileNotFoundError: If there is no such folder, or no folder in it.
        ValueError: If a class has no image.
    """
    folders = sorted(path for path in train.iterdir() if path.is_dir()) if train.is_dir() else []
    if not folders:
        raise FileNotFoundError(f'{train} must be a folder with a folder of images for each class.')
    images = {folder.name: sorted(path.name for path in folder.iterdir()
                                  if path.suffix.lower() in EXTENSIONS) for folder in folders}
    empty = [name for name, files in images.items() if not files]
    if empty:
        raise ValueError(f'{train / empty[0]} has no images ({", ".join(EXTENSIONS)}).')
    return images


def choose(images: dict[str, list[str]], percent: float, seed: int) -> list[str]:
    """Equally many images of each class, give or take one.

    Args:
        images (dict[str, list[str]]): From :func:`find_images`.
        percent (float): Part of all images to take.
        seed (int): Of the choice.

    Returns:
        list[str]: File names, sorted.

    Raises:
        ValueError: If that is less than one image for each class, or more than a class has.
    """
    total = int(percent / 100 * sum(map(len, images.values())))
    each, rest = divmod(total, len(images))
    if each < 1:
        raise ValueError(f'{percent} % are {total} images for {len(images)} classes: choose a '
                         'larger part, so that each class has one.')
    generator = random.Random(seed)
    one_more = set(generator.sample(sorted(images), rest))
    chosen = []
    for name, files in sorted(images.items()):
        number = each + (name in one_more)
        if number > len(files):
            raise ValueError(f'{percent} % of all images are {number} of each class, and {name} '
                             f'has {len(files)}: choose a smaller part.')
        chosen += generator.sample(files, number)
    return sorted(chosen)


def annotate(names: Sequence[str], images: dict[str, list[str]],
             source: str = 'the list') -> list[str]:
    """Check a list and give each image its folder and label.

    Args:
        names (Sequence[str]): File names, ``CLASS_NUMBER.JPEG``.
        images (dict[str, list[str]]): From :func:`find_images`.
        source (str): Where the names come from, for messages.

    Returns:
        list[str]: ``CLASS/CLASS_NUMBER.JPEG LABEL``, in the order of the list.

    Raises:
        ValueError: If an image is not there or is listed twice, or the classes are not balanced.
    """
    if not names:
        raise ValueError(f'{source} is empty.')
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f'{source} has {len(repeated)} images more than once, {repeated[0]} for '
                         'one.')
    labels = {name: label for label, name in enumerate(sorted(images))}
    known = {folder: set(files) for folder, files in images.items()}
    folders = [name.split('_')[0] for name in names]
    missing = [name for name, folder in zip(names, folders) if name not in known.get(folder, ())]
    if missing:
        raise ValueError(f'{len(missing)} of the {len(names)} images of {source} are not there, '
                         f'{missing[0]} for one: a line is a file name such as '
                         'n01440764_10026.JPEG, of an image in the folder n01440764.')
    counts = dict.fromkeys(images, 0)
    counts.update(Counter(folders))
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[most] - counts[least] > 1:
        raise ValueError(f'{source} is not balanced: {counts[least]} images of {least} and '
                         f'{counts[most]} of {most}. Results would not compare with published '
                         'ones.')
    return [f'{folder}/{name} {labels[folder]}' for name, folder in zip(names, folders)]


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='imagenet_subset', description='Labelled part of ImageNet.', allow_abbrev=False)
    parser.add_argument('list', type=Path, help='file with one file name a line')
    parser.add_argument('train', type=Path, help='folder of the images, a folder for each class')
    parser.add_argument('--out', type=Path, required=True, help='annotation file to write')
    parser.add_argument('--make', type=float, metavar='PERCENT',
                        help='make the list first, of that many percent of the images')
    parser.add_argument('--seed', type=int, default=0, help='of --make; default: %(default)s')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors('imagenet_subset'):
        if args.make is not None and args.list.exists():
            raise ValueError(f'{args.list} exists: it is not written over; give another name, or '
                             'leave --make out to check it.')
        images = find_images(args.train)
        if args.make is None:
            text = args.list.read_text(encoding='utf-8', errors='surrogateescape')
            names = text.split()
        else:
            names = choose(images, args.make, args.seed)
        lines = annotate(names, images, str(args.list))
        if args.make is not None:
            args.list.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8',
                                 errors='surrogateescape')
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8',
                            errors='surrogateescape')
    print(f'{len(lines)} images of {len(images)} classes -> {args.out}')
    if len(images) != NUM_CLASSES:
        print(f'imagenet_subset: {args.train} has {len(images)} folders, and ImageNet-1K '
              f'{NUM_CLASSES}: these labels fit only validation images in the same folders.',
              file=sys.stderr)


if __name__ == '__main__':
    main()
