# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 for small images, projections, and parameters that lie in one piece."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Basic residual block."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/s, W/s)
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.downsample(x), inplace=True)


class ResNet18(nn.Module):
    """Stem of one 3x3 convolution, four stages of two blocks, average pooling.

    Args:
        width (int): Channels of the first stage.
        strides (Sequence[int]): Of the four stages.
    """

    def __init__(self, width: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
                                  nn.ReLU(inplace=True))
        blocks: list[nn.Module] = []
        channels = width
        for stride, factor in zip(strides, (1, 2, 4, 8)):
            blocks += [Block(channels, width * factor, stride),
                       Block(width * factor, width * factor, 1)]
            channels = width * factor
        self.blocks = nn.Sequential(*blocks)
        self.out_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C)
        return self.blocks(self.stem(x)).mean(dim=(2, 3))


def projection(channels: int, hidden: int, out_channels: int, layers: int = 2,
               last_norm: bool = False) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them."""
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        channels = hidden
    parts.append(nn.Linear(channels, out_channels))
    if last_norm:
        parts.append(nn.BatchNorm1d(out_channels, affine=False))
    return nn.Sequential(*parts)


class FlatParameters:
    """Parameters as views of one tensor, so that an optimizer step is a handful of operations.

    Args:
        modules (Sequence[nn.Module]): Their parameters move into :attr:`values`.
        channels_last (bool): Whether convolutions lie channels last, as a GPU computes them.
    """

    def __init__(self, modules: Sequence[nn.Module], channels_last: bool = False) -> None:
        self.channels_last = channels_last
        self.parameters = [p for module in modules for p in module.parameters()]
        total = sum(p.numel() for p in self.parameters)
        self.values = torch.empty(total, device=self.parameters[0].device)
        start = 0
        with torch.no_grad():
            for p in self.parameters:
                part = self.values[start:start + p.numel()]
                start += p.numel()
                view = part.view(p.shape)
                if p.dim() == 4 and self.channels_last:
                    out, inner, height, width = p.shape
                    view = part.view(out, height, width, inner).permute(0, 3, 1, 2)
                view.copy_(p)
                p.data = view

    def flatten(self, grads: Sequence[Tensor]) -> Tensor:
        """Gradients in the order of :attr:`values`."""
        if self.channels_last:
            grads = [grad.permute(0, 2, 3, 1) if grad.dim() == 4 else grad for grad in grads]
        return torch.cat([grad.reshape(-1) for grad in grads])
