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


def mean_and_error(values: Tensor) -> tuple[float | None, float | None]:
    """Mean of the values that are not NaN, and its standard error; None where there are too few."""
    known = values[~values.isnan()].double()
    error = float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else None
    return float(known.mean()) if len(known) else None, error


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
    mean, error = mean_and_error(values)
    share, _ = mean_and_error((values > HIGH).double())
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64)
    bins = (values * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    return dict(
        images=len(values),
        mean=mean,
        standard_error=error,
        share_above=share,
        threshold=HIGH,
        standard_error_of_share=(None if error is None or share is None else
                                 math.sqrt(share * (1 - share) / len(values))),
        other_image_mean=mean_and_error(other_images)[0],
        histogram=dict(edges=[round(float(edge), 6) for edge in edges],
                       counts=torch.bincount(bins, minlength=NUM_BINS).tolist()))
