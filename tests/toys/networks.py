# SPDX-License-Identifier: Apache-2.0
"""Networks and images whose informative region is known by construction."""
import cv2
import numpy as np
import torch
from mmpretrain.registry import MODELS
from torch import nn

import pic_plugin  # noqa: F401
from pic_plugin.analysis.network import Network, Settings

SIDE = 32
CONVNET = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
TRANSFORMER = dict(
    type='VisionTransformer', img_size=SIDE, patch_size=8, out_type='avg_featmap',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32))
TOKENS = dict(TRANSFORMER, out_type='raw')
MEAN, STD = [125.0, 123.0, 114.0], [63.0, 62.0, 67.0]


class Watcher(nn.Module):
    """Sees the pixels in a box of the image and nothing else."""

    def __init__(self, top, left, side, length=SIDE):
        super().__init__()
        mask = torch.zeros(length, length)
        mask[top:top + side, left:left + side] = 1
        self.register_buffer('mask', mask)

    def forward(self, images):
        # Each seen pixel is a feature of its own.
        return ((images * self.mask).flatten(1), )


def random_network(cfg, seed=0):
    """A backbone of mmpretrain with random weights."""
    torch.manual_seed(seed)
    return Network(MODELS.build(cfg), Settings(None, dict(mean=MEAN, std=STD, to_rgb=True)))


def grey_picture_with_square(top, left, side, seed=0, length=SIDE):
    """(length, length, 3) uint8, BGR: the mean colour, and noise in a square."""
    picture = np.empty((length, length, 3), dtype=np.uint8)
    picture[:] = MEAN[::-1]
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
    picture[top:top + side, left:left + side] = noise
    return picture


def write_pictures(folder, sizes, classes=('cat', 'dog')):
    """Noise pictures of (height, width), in folders by class in turns."""
    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        file = folder / (classes[number % len(classes)] if classes else '') / f'{number:02d}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return folder
