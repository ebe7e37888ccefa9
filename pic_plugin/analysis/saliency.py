# SPDX-License-Identifier: Apache-2.0
"""Occlusion saliency: how far the feature of an image moves when a patch of it is covered.

After Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section
4.2, who slide a grey square over the image and watch the class score; the feature needs no labels,
and is what self-supervised and supervised networks have in common (PIC paper, Figure 3).
"""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

Features = Callable[[Tensor], Tensor]


def spans(length: int, patch: int, stride: int) -> Tensor:
    """Where a patch lies along one side of an image, from edge to edge.

    Args:
        length (int): Of the side, pixels.
        patch (int): Pixels.
        stride (int): Pixels from one place to the next; the last place ends at the edge, and may
            be nearer to the one before.

    Returns:
        Tensor: (P, length) bool, True where the patch covers a pixel.

    Raises:
        ValueError: If the patch does not fit, or pixels would never be covered.
    """
    if not 1 <= patch <= length:
        raise ValueError(f'a patch of {patch} pixels does not fit an image of {length}: choose a '
                         f'patch from 1 to {length}.')
    if not 1 <= stride <= patch:
        raise ValueError(f'with a stride of {stride} and a patch of {patch} pixels some pixels are '
                         f'never covered: choose a stride from 1 to {patch}.')
    starts = list(range(0, length - patch, stride)) + [length - patch]
    first = torch.tensor(starts)[:, None]
    pixel = torch.arange(length)[None]
    return (pixel >= first) & (pixel < first + patch)


@torch.inference_mode()
def occlusion_distances(features: Features,
                        images: Tensor,
                        grey: Tensor,
                        patch: int,
                        stride: int,
                        batch_size: int = 128,
                        on_progress: Callable[[int], None] | None = None) -> Tensor:
    """Relative distance ``|f(occluded) - f(image)| / |f(image)|`` for each place of the patch.

    At most ``batch_size`` occluded images exist at a time, however many images and places there
    are; a batch may hold the last places of one image and the first of the next.

    Args:
        features (Callable): (b, 3, H, W) -> (b, C), independent of the rest of the batch.
        images (Tensor): (B, 3, H, W), normalised.
        grey (Tensor): (3, 1, 1) that covered pixels become.
        patch (int): Side of the patch, pixels.
        stride (int): Pixels between two places, at most ``patch``.
        batch_size (int): Occluded images in one forward pass. Defaults to 128.
        on_progress (Callable, optional): Called with the number of occluded images just done.

    Returns:
        Tensor: (B, Py, Px) float32, on the CPU.

    Raises:
        ValueError: If patch or stride is out of range, or a feature is not finite.
    """
    rows = spans(images.shape[2], patch, stride).to(images.device)
    columns = spans(images.shape[3], patch, stride).to(images.device)
    num_places = len(rows) * len(columns)
    originals = torch.cat([features(part) for part in images.split(batch_size)])
    lengths = originals.norm(dim=1).clamp_min(torch.finfo(originals.dtype).tiny)
    distances = torch.empty(len(images) * num_places)
    for start in range(0, len(distances), batch_size):
        task = torch.arange(start, min(start + batch_size, len(distances)), device=images.device)
        image = task // num_places
        place = task % num_places
        covered = (rows[place // len(columns)][:, :, None]
                   & columns[place % len(columns)][:, None, :])
        occluded = torch.where(covered[:, None], grey.to(images), images[image])
        moved = (features(occluded) - originals[image]).norm(dim=1) / lengths[image]
        distances[start:start + len(task)] = moved.cpu()
        if on_progress is not None:
            on_progress(len(task))
    if not torch.isfinite(distances).all():
        raise ValueError('the features of some images are not finite: the network gives nothing '
                         'that could be compared; look at its checkpoint and losses.')
    return distances.view(len(images), len(rows), len(columns))


def saliency_maps(distances: Tensor, height: int, width: int, patch: int, stride: int) -> Tensor:
    """Saliency of each pixel: the mean distance over the patches that cover it.

    Args:
        distances (Tensor): (B, Py, Px), of :func:`occlusion_distances`.
        height (int): Pixels.
        width (int): Pixels.
        patch (int): As for the distances.
        stride (int): Likewise.

    Returns:
        Tensor: (B, height, width) float32.
    """
    rows = spans(height, patch, stride).float()
    columns = spans(width, patch, stride).float()
    total = torch.einsum('bpq,ph,qw->bhw', distances.float(), rows, columns)
    return total / torch.outer(rows.sum(dim=0), columns.sum(dim=0))


def salient_regions(maps: Tensor, share: float | None = None) -> Tensor:
    """Binarise saliency maps.

    Args:
        maps (Tensor): (B, H, W).
        share (float, optional): Share of an image's pixels that its region has, the most salient
            ones, from 0 to 1. Defaults to None: the pixels above the mean of their map, so that
            regions may be small or large.

    Returns:
        Tensor: (B, H, W) bool. A map that is the same everywhere has no region above its mean.

    Raises:
        ValueError: If ``share`` is not between 0 and 1.
    """
    flat = maps.flatten(1)
    if share is None:
        # In float64: a constant map's float32 mean can be a rounding error below its values.
        wide = flat.double()
        mean = wide.mean(dim=1, keepdim=True)
        return (wide > mean + 1e-9 * wide.amax(dim=1, keepdim=True)).view_as(maps)
    if not 0 < share < 1:
        raise ValueError(f'the share of a region must be between 0 and 1, not {share}.')
    count = max(1, round(share * flat.shape[1]))
    chosen = flat.topk(count, dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view_as(maps)
