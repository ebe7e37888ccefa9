# SPDX-License-Identifier: Apache-2.0
"""Saliency of many images under one or several networks, and where two networks differ."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pic_plugin.analysis.images import Images
from pic_plugin.analysis.inputs import progress
from pic_plugin.analysis.network import Network
from pic_plugin.analysis.overlap import intersection_over_union
from pic_plugin.analysis.saliency import occlusion_distances, saliency_maps, salient_regions, spans

READ_PIXELS = 4 * 2**20  # pixels of images in memory at a time: 48 MB as float32


class Occlusion(NamedTuple):
    """How saliency is measured.

    Attributes:
        side (int): Of the images, pixels.
        patch (int): Side of the grey patch, pixels.
        stride (int): Pixels between two places of it.
        batch_size (int): Occluded images in one forward pass.
        share (float | None): Of the pixels that a salient region has; None: those above the mean.
    """

    side: int
    patch: int
    stride: int
    batch_size: int = 128
    share: float | None = None

    @property
    def num_places(self) -> int:
        """Occluded images for each image."""
        return len(spans(self.side, self.patch, self.stride)) ** 2

    def maps(self, distances: Tensor) -> Tensor:
        """(B, Py, Px) distances -> (B, side, side) saliency."""
        return saliency_maps(distances, self.side, self.side, self.patch, self.stride)

    def regions(self, distances: Tensor) -> Tensor:
        """(B, Py, Px) distances -> (B, side, side) bool, the salient region of each image."""
        return salient_regions(self.maps(distances), self.share)


def occlusion(side: int, patch: int | None = None, stride: int | None = None,
              batch_size: int = 128, share: float | None = None) -> Occlusion:
    """Settings with what is not given filled in: a quarter of the image, a quarter of the patch.

    Raises:
        ValueError: If the patch does not fit the image, or the stride the patch, or the share or
            the batch size is out of range.
    """
    patch = max(1, side // 4) if patch is None else patch
    chosen = Occlusion(side, patch, max(1, patch // 4) if stride is None else stride, batch_size,
                       share)
    # All that can be wrong with them, before minutes are spent.
    spans(side, chosen.patch, chosen.stride)
    if share is not None and not 0 < share < 1:
        raise ValueError(f'the share of a region must be between 0 and 1, not {share}.')
    if batch_size < 1:
        raise ValueError(f'the batch size must be at least 1, not {batch_size}.')
    return chosen


class Measured(NamedTuple):
    """Distances of all images that could be read.

    Attributes:
        indices (list[int]): Which images these are.
        distances (list[Tensor]): (n, Py, Px) float32 for each network.
    """

    indices: list[int]
    distances: list[Tensor]


def measure(networks: Sequence[Network],
            images: Images,
            indices: Sequence[int],
            settings: Occlusion) -> Measured:
    """Saliency of images under several networks; each image is read once.

    Memory grows with the number of images by their (Py, Px) distances alone.

    Raises:
        ValueError: If no image can be read, or features are not finite.
    """
    kept: list[int] = []
    parts: list[list[Tensor]] = [[] for _ in networks]
    at_a_time = max(1, READ_PIXELS // settings.side**2)
    with progress(len(indices) * settings.num_places * len(networks)) as advance:
        for batch, pictures in images.batches(indices, settings.side, at_a_time):
            kept += batch
            for network, distances in zip(networks, parts):
                distances.append(occlusion_distances(
                    network.features, network.normalise(pictures), network.grey, settings.patch,
                    settings.stride, settings.batch_size, advance))
    images.check_any(kept)
    return Measured(kept, [torch.cat(distances) for distances in parts])


class Comparison(NamedTuple):
    """Overlap of two networks' salient regions.

    Attributes:
        overlaps (Tensor): (n,) float64 intersection over union of each image.
        other_images (Tensor): (n,) with the region of the next image under the second network; NaN
            for a single image.
        areas (Tensor): (n, 2) float64, the regions' share of the image.
    """

    overlaps: Tensor
    other_images: Tensor
    areas: Tensor


def compare(first: Tensor, second: Tensor, settings: Occlusion) -> Comparison:
    """Compare two networks on the same images, a block of images at a time.

    Args:
        first (Tensor): (n, Py, Px) distances.
        second (Tensor): (n, Py, Px) distances.
        settings (Occlusion): They were measured with.
    """
    parts = []
    at_a_time = max(1, READ_PIXELS // settings.side**2)
    blocks = (one.split(at_a_time) for one in (first, second, second.roll(-1, dims=0)))
    for block in zip(*blocks):
        region, other, elsewhere = map(settings.regions, block)
        areas = [one.flatten(1).double().mean(dim=1) for one in (region, other)]
        parts.append((intersection_over_union(region, other),
                      intersection_over_union(region, elsewhere), torch.stack(areas, dim=1)))
    overlaps, other_images, areas_of_all = map(torch.cat, zip(*parts))
    if len(first) == 1:
        other_images = torch.full_like(other_images, float('nan'))
    return Comparison(overlaps, other_images, areas_of_all)


def most_different(overlaps: Tensor, count: int) -> list[int]:
    """Positions of the images with the least overlap, least first; NaN come last."""
    order = overlaps.nan_to_num(nan=2.0).argsort(stable=True)
    return order[:count].tolist()
