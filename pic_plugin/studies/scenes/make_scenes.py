# SPDX-License-Identifier: Apache-2.0
"""Data sets of scenes for detection and segmentation, out of the package's CIFAR-10 photos."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from pic_plugin.datasets.image_grid import ImageGrid
from pic_plugin.studies.scenes.scene_formats import write_cityscapes, write_coco, write_voc
from pic_plugin.studies.scenes.scenes import Scene, make_scene

FOLDERS = {'voc': 'VOCdevkit', 'coco': 'coco', 'cityscapes': 'cityscapes'}
# Scenes for evaluation show photos that no scene for training shows.
PHOTOS = {'train': 'cifar10_train_5000.webp', 'val': 'cifar10_test_1000.webp'}


def make_scenes(split: str, number: int, size: tuple[int, int], seed: int) -> list[Scene]:
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
    photos = np.stack([info['img'] for info in infos])
    labels = [info['gt_label'] for info in infos]
    # Of two splits, and of two numbers of scenes, the first scenes do not depend on each other.
    return [make_scene(photos, labels, size, np.random.default_rng([seed, split == 'val', i]))
            for i in range(number)]


def write(form: str, root: Path, num_train: int, num_val: int, size: tuple[int, int],
          seed: int) -> Path:
    """Write one data set below ``root``, and return its folder.

    Raises:
        FileExistsError: If its folder is there already.
        ValueError: If there would be fewer than 4 scenes of a kind, or fewer than 32 pixels.
    """
    if min(num_train, num_val) < 4 or min(size) < 32:
        raise ValueError('at least 4 scenes of each kind, and 32 pixels, are needed.')
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
    return folder
