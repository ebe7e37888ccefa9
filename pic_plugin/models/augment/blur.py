# SPDX-License-Identifier: Apache-2.0
"""Gaussian blur of a batch in which each image has its own sigma."""
from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def gaussian_blur(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Blur each image, as torchvision's ``gaussian_blur`` with a kernel of 2 * radius + 1 pixels.

    Rows and columns are blurred one after the other, each by a product with a banded matrix in
    which the reflection at the edges is included: two batched matrix products for the whole batch,
    where a convolution would need a kernel, a group and a padded copy for each image.

    Args:
        images (Tensor): (n, C, H, W) float32.
        sigmas (Tensor): (n,) float32, pixels, above 0.
        radius (int): Reach of the kernel, pixels. In an image that is no larger the kernel is cut
            to what reflection allows, one pixel less than the side.

    Returns:
        Tensor: (n, C, H, W) float32.
    """
    num_images, channels, height, width = images.shape
    rows = _blur_matrices(sigmas, width, radius)  # (n, W, W)
    images = torch.bmm(images.reshape(num_images, channels * height, width), rows.transpose(1, 2))
    columns = _blur_matrices(sigmas, height, radius)  # (n, H, H)
    images = images.view(num_images, channels, height, width)
    return torch.matmul(columns[:, None], images)


def kernel_radius(max_sigma: float) -> int:
    """Three sigma, pixels: what lies beyond is 0.3 % of the weight."""
    return math.ceil(3 * max_sigma)


def _blur_matrices(sigmas: Tensor, side: int, radius: int) -> Tensor:
    """(n, side, side): entry (i, j) is the weight of pixel j in the blurred pixel i."""
    radius = min(radius, side - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=sigmas.dtype, device=sigmas.device)
    kernels = torch.exp(-0.5 * (offsets / sigmas[:, None])**2)  # (n, K)
    kernels = kernels / kernels.sum(1, keepdim=True)
    return torch.mm(kernels, _places(side, radius, sigmas.device)).view(-1, side, side)


@lru_cache(maxsize=32)
def _places(side: int, radius: int, device: torch.device) -> Tensor:
    """(K, side * side) of 0 and 1: which pixel (column) each tap of each pixel (row) falls on."""
    places = torch.zeros(2 * radius + 1, side, side)
    pixel = torch.arange(side)
    for tap in range(2 * radius + 1):
        source = (pixel + tap - radius).abs()  # reflected at the first pixel
        source = side - 1 - (side - 1 - source).abs()  # and at the last
        places[tap, pixel, source] = 1
    return places.view(2 * radius + 1, -1).to(device)
