# SPDX-License-Identifier: Apache-2.0
"""Augmentation of many images at once on the device: crop, flip, colour jitter, grey.

The recipe of configs/pic/pic_demo.py. Views of several steps are made together, because the cost
on a GPU is that of starting operations and not of the pixels.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Groups of images that get the four colour operations in an order of their own.
NUM_ORDERS = 4
GREY = (0.299, 0.587, 0.114)


class Augment:
    """Random views of uint8 images.

    Args:
        size (int): Pixels of a view's side.
        mean (Sequence[float]): Of the channels, 0 to 1.
        std (Sequence[float]): Of the channels.
        device (torch.device): Of images and views.
        seed (int): Views are a function of the seed and of the calls before.
        scale (tuple[float, float]): Area of the crop, as a share of the image's.
    """

    def __init__(self, size: int, mean: Tensor, std: Tensor, device: torch.device, seed: int,
                 scale: tuple = (0.2, 1.0)) -> None:
        self.size, self.scale, self.device = size, scale, device
        self.mean, self.std = (value.to(device).view(1, 3, 1, 1) for value in (mean, std))
        self.grey = torch.tensor(GREY, device=device).view(1, 3, 1, 1)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.order = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        """(M, 3, H, W) uint8 -> (M, size, size, 3) normalised float32, channels last."""
        x = self._crop(images.float() / 255)
        jittered = torch.empty_like(x)
        for group in range(NUM_ORDERS):
            part = x[group::NUM_ORDERS]
            if len(part):
                jittered[group::NUM_ORDERS] = self._jitter(part)
        x = torch.where(self._uniform(len(x), 0, 1).view(-1, 1, 1, 1) < 0.8, jittered, x)
        is_grey = self._uniform(len(x), 0, 1).view(-1, 1, 1, 1) < 0.2
        x = torch.where(is_grey, self._luma(x).expand_as(x), x)
        return ((x - self.mean) / self.std).permute(0, 2, 3, 1).contiguous()

    def _uniform(self, count: int, low: float, high: float) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self.device) * (high - low) + low

    def _luma(self, x: Tensor) -> Tensor:
        return (x * self.grey).sum(dim=1, keepdim=True)

    def _crop(self, x: Tensor) -> Tensor:
        count = len(x)
        area = self._uniform(count, *self.scale)
        ratio = torch.exp(self._uniform(count, math.log(3 / 4), math.log(4 / 3)))
        width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
        transform = torch.zeros(count, 2, 3, device=self.device)
        flip = torch.where(self._uniform(count, 0, 1) < 0.5, -1.0, 1.0)
        transform[:, 0, 0], transform[:, 1, 1] = width * flip, height
        transform[:, 0, 2] = (1 - width) * self._uniform(count, -1, 1)
        transform[:, 1, 2] = (1 - height) * self._uniform(count, -1, 1)
        grid = F.affine_grid(transform, [count, 3, self.size, self.size], align_corners=False)
        return F.grid_sample(x, grid, mode='bilinear', padding_mode='reflection',
                             align_corners=False)

    def _jitter(self, x: Tensor) -> Tensor:
        for operation in torch.randperm(4, generator=self.order).tolist():
            factor = self._uniform(len(x), 0.6, 1.4).view(-1, 1, 1, 1)
            if operation == 0:
                x = (x * factor).clamp(0, 1)
            elif operation == 1:
                mean = self._luma(x).mean(dim=(2, 3), keepdim=True)
                x = ((x - mean) * factor + mean).clamp(0, 1)
            elif operation == 2:
                grey = self._luma(x)
                x = ((x - grey) * factor + grey).clamp(0, 1)
            else:
                x = shift_hue(x, self._uniform(len(x), -0.1, 0.1))
        return x


def shift_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of (M, 3, H, W) images in 0 to 1 by (M,) full turns."""
    largest, which = x.max(dim=1)
    smallest = x.amin(dim=1)
    chroma = largest - smallest
    divisor = chroma.clamp_min(1e-6)
    red, green, blue = x.unbind(dim=1)
    hue = torch.where(which == 0, ((green - blue) / divisor) % 6,
                      torch.where(which == 1, (blue - red) / divisor + 2,
                                  (red - green) / divisor + 4)) / 6
    hue = (hue + turn.view(-1, 1, 1)) % 1

    def channel(offset: int) -> Tensor:
        place = (offset + hue * 6) % 6
        return largest - chroma * torch.minimum(place, 4 - place).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)
