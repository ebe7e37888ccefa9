# SPDX-License-Identifier: Apache-2.0
"""The grids of CIFAR-10 photos in ``pic_plugin/data``: tile them and write them without loss."""
from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pic_plugin.datasets.cifar10_archive import CLASSES, SIDE
from pic_plugin.files import write_atomically

COLUMNS = 50
PER_CLASS = {'train': 500, 'test': 100}


def make_grid(folder: Path, per_class: int) -> np.ndarray:
    """Tile the first images of each class.

    Args:
        folder (Path): Holds one folder of 32x32 PNGs for each class of CIFAR-10.
        per_class (int): Images to take of each class: the first in the order of their names, which
            is the order of the original batches.

    Returns:
        np.ndarray: (10 * per_class / 50 * 32, 1600, 3) uint8, BGR. Tiles row by row, 50 a row,
        class after class.

    Raises:
        ValueError: If a class has too few images, an image is not 32x32, or the tiles do not fill
            rows of 50.
    """
    if per_class < 1 or per_class * len(CLASSES) % COLUMNS:
        raise ValueError(f'{per_class} images of each of {len(CLASSES)} classes do not fill rows '
                         f'of {COLUMNS} tiles: choose a multiple of {COLUMNS // len(CLASSES)}.')
    tiles = []
    for name in CLASSES:
        files = sorted((folder / name).glob('*.png'))[:per_class]
        if len(files) < per_class:
            raise ValueError(f'{folder / name} has {len(files)} images, {per_class} are needed: '
                             'give the folder that prepare_cifar10 wrote.')
        tiles += [_read_tile(file) for file in files]
    rows = np.stack(tiles).reshape(-1, COLUMNS, SIDE, SIDE, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, COLUMNS * SIDE, 3)


def _read_tile(file: Path) -> np.ndarray:
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None or image.shape != (SIDE, SIDE, 3):
        raise ValueError(f'{file} is not a {SIDE}x{SIDE} colour image.')
    return image


def write_webp(grid: np.ndarray, file: Path) -> None:
    """Write a BGR picture as lossless WebP and make sure that OpenCV reads the same pixels back.

    Args:
        grid (np.ndarray): (H, W, 3) uint8, BGR.
        file (Path): File to write or replace, whole or not at all.

    Raises:
        RuntimeError: If this OpenCV or Pillow does not keep every pixel.
    """
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grid[:, :, ::-1])).save(
        encoded, 'WEBP', lossless=True, quality=100, method=6)
    content = encoded.getvalue()
    decoded = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or not np.array_equal(decoded, grid):
        raise RuntimeError('lossless WebP does not survive this Pillow and OpenCV: install others.')
    write_atomically(file, content)
