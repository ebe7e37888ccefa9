# SPDX-License-Identifier: Apache-2.0
"""Folders of small pictures that differ, and classes of them that can be told apart."""
import numpy as np
from PIL import Image


def picture(number, side=32):
    """(side, side, 3) uint8: smooth noise of its own."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def write_pictures(folder, count, side=32, first=0, ending='.png'):
    """Pictures ``first`` to ``first + count - 1``; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.fromarray(picture(number, side)).save(folder / f'{number:04d}{ending}')
    return folder


def write_classes(folder, per_class=8, side=32):
    """Folders ``dark`` and ``light``."""
    for label, (low, high) in (('dark', (0, 90)), ('light', (160, 255))):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            rng = np.random.default_rng(number)
            pixels = rng.integers(low, high, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f'{number}.png')
    return folder


def write_scans(folder, count, side=32):
    """PNG files of 16 bits with values from 1003 to 1241, as those of a CT; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(1003, 1242, (side, side)).astype(np.uint16)
        pixels[0, :2] = 1003, 1241
        Image.fromarray(pixels).save(folder / f'{number:02d}.png')
    return folder
