# SPDX-License-Identifier: Apache-2.0
"""How much the salient regions of two networks overlap (PIC paper, Figure 3)."""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

HIGH = 0.6  # the paper counts the images above it
NUM_BINS = 20


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Overlap of the regions of each image.

    Args:
        first (Tensor): (B, H, W) bool.
        second (Tensor): (B, H, W) bool.

    Returns:
        Tensor: (B,) float64; NaN where neither has a region.
    """
    shared = (first & second).flatten(1).sum(dim=1).double()
    either = (first | second).flatten(1).sum(dim=1).double()
    return shared / either


def summarise_overlap(overlaps: Tensor, other_images: Tensor) -> dict[str, Any]:
    """Numbers of the histogram.

    Args:
        overlaps (Tensor): (N,) of :func:`intersection_over_union`, NaN for images without regions.
        other_images (Tensor): (N,) overlap of one network's region in an image with the other's in
            another image: what two networks share without looking at the image, such as a liking
            for its middle.

    Returns:
        dict: ``images`` counted, ``mean``, ``standard_error`` (None for one image), ``share_above``
        HIGH, ``standard_error_of_share``, ``other_image_mean``, and ``histogram`` as ``edges`` and
        ``counts``; means are None if nothing was counted.
    """
    values = overlaps[~overlaps.isnan()].double()
    others = other_images[~other_images.isnan()].double()
    count = len(values)
    mean = float(values.mean()) if count else None
    share = float((values > HIGH).double().mean()) if count else None
    several = count > 1
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64)
    bins = (values * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    return dict(
        images=count,
        mean=mean,
        standard_error=float(values.std()) / math.sqrt(count) if several else None,
        share_above=share,
        threshold=HIGH,
        standard_error_of_share=(
            math.sqrt(share * (1 - share) / count) if several and share is not None else None),
        other_image_mean=float(others.mean()) if len(others) else None,
        histogram=dict(edges=[round(float(edge), 6) for edge in edges],
                       counts=torch.bincount(bins, minlength=NUM_BINS).tolist()))
