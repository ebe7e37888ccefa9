# SPDX-License-Identifier: Apache-2.0
"""Colour jitter and greyscale of a batch in which each image has its own factors and order.

Brightness, contrast, saturation and greyscale are one operation with other coefficients:

    y = clip(gain * x + grey_share * grey(x) + mean_share * mean(grey(x)), 0, 1)

with ``gain`` the factor f, and 1 - f as ``grey_share`` for saturation or ``mean_share`` for
contrast; greyscale is saturation with f = 0, and gain 1 with no shares changes nothing. The four
operations of colour jitter in any order are then at most three such tones, a turn of the hue, and
at most three tones, so that images with different orders go through the same arithmetic and no
image has to be picked out. The operations are those of ``torchvision.transforms.functional`` on
float images, and nothing is rounded between them; torchvision on uint8 truncates after each.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
TONES_BEFORE_HUE = 3


class Colours(NamedTuple):
    """Coefficients of a batch of B images: S tones, with the hue turned after the third.

    Attributes:
        gain (Tensor): (B, S) float32.
        grey_share (Tensor): (B, S) float32, of each pixel's grey.
        mean_share (Tensor): (B, S) float32, of the mean grey of the image.
        hue (Tensor): (B,) float32, share of a full turn; 0 leaves an image as it is.
        turns_hue (bool): Whether any image may have another hue than 0.
    """

    gain: Tensor
    grey_share: Tensor
    mean_share: Tensor
    hue: Tensor
    turns_hue: bool = True


def grey(images: Tensor) -> Tensor:
    """Grey of each pixel; of images that are not RGB the mean of their channels.

    Args:
        images (Tensor): (B, C, H, W).

    Returns:
        Tensor: (B, 1, H, W).
    """
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return torch.add(red * GREY[0], green, alpha=GREY[1]).add(blue, alpha=GREY[2])


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue, as torchvision's ``adjust_hue``.

    Maximum and minimum of the channels stay. With the hue h in sixths of a turn, the inverse of
    HSV is ``min + chroma * clip(|h - 3| - 1, 0, 1)`` for red, and ``clip(2 - |h - 2|, 0, 1)`` and
    ``clip(2 - |h - 4|, 0, 1)`` in its place for green and blue.

    Args:
        images (Tensor): (B, 3, H, W), RGB in [0, 1].
        turns (Tensor): (B,) in [-0.5, 0.5]; an image with 0 comes back bit for bit.

    Returns:
        Tensor: (B, 3, H, W).
    """
    red, green, blue = images.unbind(1)  # (B, H, W)
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    divisor = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    hue = torch.where(high == red, (green - blue) / divisor,
                      torch.where(high == green, (blue - red) / divisor + 2,
                                  (red - green) / divisor + 4))
    hue = torch.remainder(hue + 6 * turns[:, None, None], 6)
    red_share = (hue - 3).abs().sub(1).clamp(0, 1)
    green_share = (2 - (hue - 2).abs()).clamp(0, 1)
    blue_share = (2 - (hue - 4).abs()).clamp(0, 1)
    channels = [torch.addcmul(low, chroma, share) for share in (red_share, green_share, blue_share)]
    return torch.where(turns[:, None, None, None] == 0, images, torch.stack(channels, 1))


def change_colours(images: Tensor, colours: Colours) -> Tensor:
    """Apply all tones and the turn of the hue.

    Args:
        images (Tensor): (B, C, H, W) float32 in [0, 1]; RGB if C is 3.
        colours (Colours): One set of coefficients for each image.

    Returns:
        Tensor: (B, C, H, W) float32 in [0, 1].
    """
    return _chain(images, colours, None)


def change_colours_in_two_sweeps(images: Tensor, colours: Colours) -> Tensor:
    """The same for a compiler that fuses: each sweep becomes one kernel over the batch.

    Only contrast needs more than a pixel, the mean grey of the image as the operations before it
    leave it. The first sweep goes that far and keeps the mean alone; the second does everything.
    Run without a compiler it takes twice as long as :func:`change_colours`.
    """
    # From the contrast's slot on, and in the turn of the hue if it comes later, nothing happens.
    reached = (colours.mean_share != 0).cumsum(1) > 0  # (B, S)
    hue_later = reached[:, :TONES_BEFORE_HUE].any(1)  # (B,)
    before = Colours(
        torch.where(reached, torch.ones_like(colours.gain), colours.gain),
        torch.where(reached, torch.zeros_like(colours.grey_share), colours.grey_share),
        torch.zeros_like(colours.mean_share),
        torch.where(hue_later, torch.zeros_like(colours.hue), colours.hue), colours.turns_hue)
    no_mean = images.new_zeros(len(images), 1, 1, 1)
    mean = grey(_chain(images, before, no_mean)).mean((2, 3), keepdim=True)  # (B, 1, 1, 1)
    return _chain(images, colours, mean)


def _chain(images: Tensor, colours: Colours, mean: Tensor | None) -> Tensor:
    """All operations; without a mean (B, 1, 1, 1) each tone takes that of what it is given."""
    is_rgb = images.shape[1] == 3
    for i in range(colours.gain.shape[1]):
        if i == TONES_BEFORE_HUE and colours.turns_hue and is_rgb:
            images = turn_hue(images, colours.hue)
        gain, grey_share, mean_share = [
            part[:, i, None, None, None] for part in colours[:3]]  # (B, 1, 1, 1)
        pixel_grey = grey(images)  # (B, 1, H, W)
        own = pixel_grey.mean((2, 3), keepdim=True) if mean is None else mean
        added = mean_share * own
        if is_rgb:
            added = torch.addcmul(added, grey_share, pixel_grey)
        images = torch.addcmul(added, gain, images).clamp(0, 1)
    return images
