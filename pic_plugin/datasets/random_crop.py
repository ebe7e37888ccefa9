# SPDX-License-Identifier: Apache-2.0
"""Random resized crops, as torchvision draws and Pillow scales them, without Pillow and float."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

ATTEMPTS = 10
REDUCTIONS = (8, 4, 2)


class Box(NamedTuple):
    """A part of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class CropRecipe:
    """A random crop, or several of a kind.

    Args:
        size (int | tuple[int, int]): Side, or height and width, pixels.
        scale (tuple[float, float]): Least and largest share of the image's area.
        ratio (tuple[float, float]): Least and largest width / height.
        num_views (int): Crops of this kind.

    Raises:
        ValueError: If a setting is out of range.
    """

    size: int | Sequence[int]
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    num_views: int = 1

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        object.__setattr__(self, 'size', size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'size must be a number of pixels or (height, width), not {size}.')
        for name in ('scale', 'ratio'):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f'{name} must be two numbers above 0 in order, not '
                                 f'{getattr(self, name)}.')
        if self.num_views < 1:
            raise ValueError(f'num_views must be at least 1, not {self.num_views}.')


def draw_box(height: int, width: int, recipe: CropRecipe) -> Box:
    """Where to crop, from NumPy's global generator.

    As torchvision's ``RandomResizedCrop``: area and (logarithmic) ratio are uniform, drawn anew up
    to ten times until the crop fits, and else it is the largest in the middle whose ratio is
    allowed.
    """
    low, high = recipe.ratio
    for _ in range(ATTEMPTS):
        area = height * width * np.random.uniform(*recipe.scale)
        ratio = math.exp(np.random.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(np.random.randint(height - h + 1), np.random.randint(width - w + 1), h, w)
    h, w = height, width
    if width / height < low:
        h = min(height, max(1, round(width / low)))
    elif width / height > high:
        w = min(width, max(1, round(height * high)))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def reduction_for(boxes: Sequence[Box], sizes: Sequence[tuple[int, int]]) -> int:
    """How many times smaller an image may be decoded for all crops to be no smaller than wanted.

    Returns:
        int: 1, 2, 4 or 8.
    """
    for reduction in REDUCTIONS:
        if all(box.height >= reduction * height and box.width >= reduction * width
               for box, (height, width) in zip(boxes, sizes)):
            return reduction
    return 1


def crop_and_resize(pixels: np.ndarray, box: Box, full_size: tuple[int, int],
                    size: tuple[int, int]) -> np.ndarray:
    """Cut out a crop and scale it.

    Bilinear, with the filter widened where the image shrinks, as Pillow does and torchvision with
    it (of uint8 pixels the same values to within 1, by the rounding of the weights).

    Args:
        pixels (np.ndarray): (H, W, C), perhaps decoded at a fraction of its size.
        box (Box): In the full image. In a smaller one its edges are rounded to whole pixels.
        full_size (tuple[int, int]): Height and width of the full image.
        size (tuple[int, int]): Height and width to scale to.

    Returns:
        np.ndarray: (h, w, C), uint8 for uint8 and else float32 (not rounded), laid out by channels
        as ``PackInputs`` wants it.
    """
    (top, bottom), (left, right) = (
        _scaled(start, length, full, now) for start, length, full, now in zip(
            box[:2], box[2:], full_size, pixels.shape))
    part = pixels[top:bottom, left:right]
    if part.dtype != np.uint8:
        part = part.astype(np.float32)
    channels = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
    if channels.shape[2:] != size:
        channels = F.interpolate(channels, size, mode='bilinear', antialias=True)
    return channels[0].contiguous().permute(1, 2, 0).numpy()


def shrink_to(pixels: np.ndarray, short_edge: int) -> np.ndarray:
    """(H, W, C) scaled so that its short edge is at most ``short_edge`` pixels."""
    height, width = pixels.shape[:2]
    if min(height, width) <= short_edge:
        return pixels
    share = short_edge / min(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    # Averages of whole source pixels: an image in a cache is scaled once more by its crops.
    return resize(pixels, size, cv2.INTER_AREA)


def resize(pixels: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """(H, W, C) of any number of channels scaled to (width, height) by OpenCV, as (h, w, C)."""
    # It averages four channels at most in one go, and drops the axis of a single one.
    parts = [cv2.resize(np.ascontiguousarray(pixels[..., start:start + 4]), size,
                        interpolation=interpolation).reshape(size[1], size[0], -1)
             for start in range(0, pixels.shape[2], 4)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _scaled(start: int, length: int, full: int, now: int) -> tuple[int, int]:
    """Start and end of an interval in an image of side ``now`` in place of ``full``."""
    if now == full:
        return start, start + length
    first = min(round(start * now / full), now - 1)
    return first, min(max(round((start + length) * now / full), first + 1), now)
