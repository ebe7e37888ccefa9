# SPDX-License-Identifier: Apache-2.0
"""Make detection and segmentation data out of the CIFAR-10 photos that come with this package.

    mim run pic_plugin make_scenes data --format voc coco cityscapes
    python -m pic_plugin.tools.make_scenes data --format voc --train 400 --val 100

writes ``data/VOCdevkit``, ``data/coco`` and ``data/cityscapes`` in the formats of these data sets:
photos of objects, cut out, on backgrounds made of enlarged photos. To try configs out and to
compare initialisations; it is no benchmark that others report.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np

from pic_plugin.datasets.image_grid import ImageGrid
from pic_plugin.studies.scenes.scene_formats import write_cityscapes, write_coco, write_voc
from pic_plugin.studies.scenes.scenes import Scene, make_scene

FOLDERS = {'voc': 'VOCdevkit', 'coco': 'coco', 'cityscapes': 'cityscapes'}
# Scenes for evaluation show photos that no scene for training shows.
PHOTOS = {'train': 'cifar10_train_5000.webp', 'val': 'cifar10_test_1000.webp'}


def make_scenes(split: str, number: int, size: Tuple[int, int], seed: int) -> List[Scene]:
    """Scenes of photos of one split, the same for the same arguments.

    Args:
        split (str): 'train' or 'val'.
        number (int): Scenes.
        size (tuple[int, int]): Width and height in pixels.
        seed (int): Any number.

    Returns:
        list[Scene]: ``number`` scenes.
    """
    grid = ImageGrid(PHOTOS[split])
    infos = [grid.get_data_info(i) for i in range(len(grid))]
    photos, labels = np.stack([info['img'] for info in infos]), [
        info['gt_label'] for info in infos]
    # Of two splits, and of two numbers of scenes, the first scenes do not depend on each other.
    return [make_scene(photos, labels, size, np.random.default_rng([seed, split == 'val', i]))
            for i in range(number)]


def write(form: str, root: Path, num_train: int, num_val: int, size: Tuple[int, int],
          seed: int) -> None:
    """Write one data set below ``root``.

    Raises:
        FileExistsError: If its folder is there already.
    """
    folder = root / FOLDERS[form]
    if folder.exists():
        raise FileExistsError(f'{folder} exists: remove it or choose another folder.')
    train = make_scenes('train', num_train, size, seed)
    val = make_scenes('val', num_val, size, seed)
    if form == 'voc':
        # Each year has a part of the training scenes; of VOC 2012 the first half has masks from the
        # challenge, and the second those of the additional set.
        half, quarter = len(train) // 2, len(train) // 4
        write_voc(dict(trainval=train[:half], test=val), folder / 'VOC2007')
        write_voc(dict(trainval=train[half:], train=train[:half + quarter],
                       aug=train[half + quarter:], val=val), folder / 'VOC2012')
    elif form == 'coco':
        write_coco(dict(train2017=train, val2017=val), folder)
    else:
        write_cityscapes(dict(train=train, val=val), folder)


def main(argv: Optional[Sequence[str]] = None) -> None:
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
    if min(args.train, args.val) < 4 or min(args.size) < 32:
        raise SystemExit('make_scenes: at least 4 scenes of each kind, and 32 pixels, are needed.')
    for form in args.forms:
        try:
            write(form, args.out, args.train, args.val, tuple(args.size), args.seed)
        except OSError as error:
            raise SystemExit(f'make_scenes: {error}') from error
        print(f'{args.out / FOLDERS[form]}: {args.train} scenes to train with, {args.val} to '
              'evaluate.')


if __name__ == '__main__':
    main()
