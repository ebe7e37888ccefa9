# SPDX-License-Identifier: Apache-2.0
"""Which pixel values of a data set count as black and white, measured on a sample."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pic_plugin.datasets.decoding import decode

PIXELS_PER_IMAGE = 10_000


class Measured(NamedTuple):
    """What a sample of files holds.

    Attributes:
        value_range (tuple[float, float]): Values that all but a share of the pixels lie between.
        extremes (tuple[float, float]): Smallest and largest value.
        depths (list[str]): Types of pixels.
        num_images (int): Files that were read.
        unreadable (list[str]): Files that were not, with the reason.
    """

    value_range: tuple[float, float]
    extremes: tuple[float, float]
    depths: list[str]
    num_images: int
    unreadable: list[str]


def measure_value_range(files: Sequence[str | Path], channels: int = 3,
                        num_images: int = 64, share: float = 0.001) -> Measured:
    """Read files spread evenly over a list and look at their pixels, each image with equal weight.

    Args:
        files (Sequence[str | Path]): Image files.
        channels (int): Of the images: see :func:`pic_plugin.datasets.decoding.decode`.
        num_images (int): Files to read. Defaults to 64.
        share (float): Of the pixels that may lie below black, and as many above white. Defaults
            to 0.001.

    Raises:
        ValueError: If no file can be read, or all pixels have one value.
    """
    chosen = sorted({int(i) for i in np.linspace(0, len(files) - 1, num_images)}) if files else []
    samples, depths, unreadable = [], set(), []
    low, high = np.inf, -np.inf
    for index in chosen:
        try:
            pixels = decode(Path(files[index]).read_bytes(), channels).pixels
        except MemoryError:
            raise
        except Exception as error:  # decoders meet arbitrary bytes with arbitrary exceptions
            unreadable.append(f'{files[index]}: {error}')
            continue
        finite = pixels[np.isfinite(pixels)]
        if not finite.size:
            unreadable.append(f'{files[index]}: no finite pixel')
            continue
        depths.add(str(pixels.dtype))
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        samples.append(np.quantile(finite, np.linspace(0, 1, min(finite.size, PIXELS_PER_IMAGE))))
    if not samples:
        raise ValueError(f'none of {len(chosen)} files could be read'
                         + (f', for instance {unreadable[0]}' if unreadable else '') + '.')
    black, white = np.quantile(np.concatenate(samples), [share, 1 - share])
    if not black < white:
        black, white = low, high
    if not black < white:
        raise ValueError(f'all pixels have the value {low:g}: there is no range.')
    return Measured((float(black), float(white)), (low, high), sorted(depths), len(samples),
                    unreadable)
