# SPDX-License-Identifier: Apache-2.0
"""Pictures of two objects, put together from two, and how evenly a network looks at both."""
from __future__ import annotations

from typing import List, Tuple

import numpy as np
import torch
from torch import Tensor

from pic_plugin.analysis.images import Images, square

GREY = 127


class PairedImages(Images):
    """Two pictures of different classes side by side on grey.

    A picture is ``2 * side`` pixels wide and high; the two lie in its middle, left and right.

    Args:
        images (Images): With labels, or any two pictures are paired.
        side (int): Pixels of each of the two.
        count (int): Pairs, drawn without telling classes apart otherwise.
        seed (int): Same pictures, count and seed, same pairs. Defaults to 0.

    Raises:
        ValueError: If there is no pair.
    """

    def __init__(self, images: Images, side: int, count: int, seed: int = 0) -> None:
        labels = images.labels or images.names
        if len(set(labels)) < 2:
            raise ValueError('two objects need pictures of two classes, or two without labels: '
                             'give more pictures.')
        generator = np.random.default_rng(seed)
        self.pairs: List[Tuple[int, int]] = []
        while len(self.pairs) < count:
            first, second = generator.integers(len(labels), size=2).tolist()
            if labels[first] != labels[second]:
                self.pairs.append((first, second))
        self.images, self.side = images, side
        super().__init__([f'{images.names[first]} + {images.names[second]}'
                          for first, second in self.pairs], None)

    def read(self, index: int) -> np.ndarray:
        """See :meth:`Images.read`."""
        side = self.side
        canvas = np.full((2 * side, 2 * side, 3), GREY, dtype=np.uint8)
        for place, picture in enumerate(self.pairs[index]):
            canvas[side // 2:side // 2 + side, place * side:(place + 1) * side] = square(
                self.images.read(picture), side)
        return canvas


def balance(maps: Tensor) -> Tensor:
    """How evenly saliency is spread over the left and right picture.

    That of the grey above and below is left out: a network that is moved by patches there would
    seem to look at both.

    Args:
        maps (Tensor): (B, H, W), not negative, of :class:`PairedImages`.

    Returns:
        Tensor: (B,) float64: 1 if both pictures have the same, 0 if one has all; NaN for a map that
        is zero on both.
    """
    grey, half = maps.shape[1] // 4, maps.shape[2] // 2
    pictures = maps[:, grey:maps.shape[1] - grey].double()
    sides = torch.stack([pictures[:, :, :half].sum(dim=(1, 2)),
                         pictures[:, :, -half:].sum(dim=(1, 2))])
    return 2 * sides.amin(dim=0) / sides.sum(dim=0)
