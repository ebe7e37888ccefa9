# SPDX-License-Identifier: Apache-2.0
"""Data set of small images kept as the tiles of one picture."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from pic_plugin.datasets.cifar10_archive import CLASSES

DATA_DIR = Path(__file__).resolve().parent.parent / 'data'


@DATASETS.register_module()
class ImageGrid(BaseDataset):
    """Images of one size, tiled row by row in one picture file and sorted by class.

    With n images in each class, tile i has label ``i // n``. The pixels are decoded once into one
    uint8 array, which forked loader workers share; no image is serialized. Each sample holds

    - ``img``: (tile_size, tile_size, 3) uint8, BGR, as mmcv's loader gives it; a copy, free to be
      changed in place,
    - ``img_shape`` and ``ori_shape``: (tile_size, tile_size), pixels,
    - ``sample_idx``: the image's index in this data set,
    - ``gt_label``: int, if ``with_label``.

    Args:
        img_file (str): Picture in any format that OpenCV decodes without loss (lossless WebP, PNG),
            on a local disk. A relative path is looked up under ``data_root`` and, if it is not
            there, among the pictures that ship with this package: ``cifar10_train_5000.webp`` and
            ``cifar10_test_1000.webp``.
        tile_size (int): Side of the square tiles, pixels. Defaults to 32.
        classes (Sequence[str], optional): Names of the classes in the order of the tiles. Defaults
            to None: ``metainfo``'s, or for a picture that ships with this package CIFAR-10's.
        num_images (int, optional): Tiles that hold an image; the rest, at the end, is padding.
            Defaults to None: all of them. For a subset use ``indices``.
        with_label (bool): Whether the tiles are sorted by class. Defaults to True.
        pipeline (Sequence): Transforms, from one that takes ``img``: no loading is needed.
        data_root (str): Folder that a relative ``img_file`` is in. Defaults to '', the current one.
        metainfo (dict, optional): Meta information. Defaults to None.
        **kwargs: ``indices``, ``serialize_data``, ``test_mode``, ``lazy_init`` and ``max_refetch``
            of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If ``img_file`` is in neither place.
        ValueError: If the file is no picture, its sides are not multiples of ``tile_size``, it
            has fewer tiles than ``num_images``, the classes are unknown, or the images cannot be
            shared equally among them.
    """

    def __init__(self,
                 img_file: str,
                 tile_size: int = 32,
                 classes: Sequence[str] | None = None,
                 num_images: int | None = None,
                 with_label: bool = True,
                 pipeline: Sequence[Any] = (),
                 data_root: str = '',
                 metainfo: dict | None = None,
                 **kwargs: Any) -> None:
        if tile_size < 1:
            raise ValueError(f'tile_size must be at least 1 pixel, not {tile_size}.')
        self.img_file = _find_picture(img_file, data_root)
        self.tile_size = tile_size
        self.num_images = num_images
        self.with_label = with_label
        if classes is None and 'classes' not in (metainfo or {}) and (
                self.img_file.parent == DATA_DIR):
            classes = CLASSES
        super().__init__(
            ann_file='',
            metainfo=metainfo,
            data_root=data_root,
            pipeline=pipeline,
            classes=classes,
            **kwargs)

    def load_data_list(self) -> list[dict]:
        """Decode the picture; what mmengine keeps and slices is only tile numbers and labels."""
        self._tiles = _cut(self.img_file, self.tile_size)
        if self.num_images is not None:
            if not 0 < self.num_images <= len(self._tiles):
                raise ValueError(f'num_images is {self.num_images}, but {self.img_file} has '
                                 f'{len(self._tiles)} tiles of side {self.tile_size}.')
            self._tiles = self._tiles[:self.num_images]
        if not self.with_label:
            return [dict(tile=tile) for tile in range(len(self._tiles))]
        per_class = self._images_per_class(len(self._tiles))
        return [dict(tile=tile, gt_label=tile // per_class) for tile in range(len(self._tiles))]

    def _images_per_class(self, num_images: int) -> int:
        if not self.CLASSES:
            raise ValueError(f'the labels of {self.img_file} follow from its classes, which are '
                             'unknown: give classes=[...] or with_label=False.')
        if num_images % len(self.CLASSES):
            raise ValueError(f'{self.img_file} has {num_images} images, which {len(self.CLASSES)} '
                             'classes cannot share equally: check classes, tile_size, num_images.')
        return num_images // len(self.CLASSES)

    def get_data_info(self, idx: int) -> dict:
        """Sample ``idx`` before the pipeline, with its pixels."""
        info = super().get_data_info(idx)
        info['img'] = self._tiles[info.pop('tile')].copy()
        info['img_shape'] = info['ori_shape'] = info['img'].shape[:2]
        return info

    def extra_repr(self) -> list[str]:
        """The extra lines of ``repr``."""
        return [f'Picture: \t{self.img_file}', f'Tile size: \t{self.tile_size}']


def _find_picture(img_file: str, data_root: str) -> Path:
    tried = [Path(os.path.expanduser(data_root), os.path.expanduser(img_file)).absolute()]
    if not Path(img_file).expanduser().is_absolute():
        tried.append(DATA_DIR / img_file)
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(f'there is no picture {" nor ".join(str(path) for path in tried)}: '
                            'check img_file and data_root.')


def _cut(path: Path, side: int) -> np.ndarray:
    """(N, side, side, 3) uint8, BGR: the tiles of a picture, row by row."""
    content = np.fromfile(path, dtype=np.uint8)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture: np.ndarray | None = cv2.imdecode(content, flags) if content.size else None
    if picture is None:
        raise ValueError(f'{path} ({content.size} bytes) is not a picture that OpenCV can decode: '
                         'copy it again.')
    height, width = picture.shape[:2]
    if height % side or width % side:
        raise ValueError(f'{path} is {width}x{height} pixels, which tiles of {side}x{side} do not '
                         'fill: check tile_size.')
    rows = picture.reshape(height // side, side, width // side, side, 3)
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3, 4)).reshape(-1, side, side, 3)
