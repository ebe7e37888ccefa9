# SPDX-License-Identifier: Apache-2.0
"""Refresh of returning rows: a class weight is turned to its image's present feature."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Refresh(NamedTuple):
    """What happens to the class weight of an image that comes back after an absence.

    Attributes:
        share (float): 0 to 1, by which its row is turned to the image's present feature. Defaults
            to 0: the row stays as the optimizer made it.
        away (int): Optimizer steps since the image's last visit beyond which it counts as having
            been away; the first visit always does. Defaults to 0: every step without a visit. With
            a sliding window it is two windows' steps: visits in neighbouring windows lie at most
            two windows apart, so a longer absence says that the window had left the image.
    """

    share: float = 0.0
    away: int = 0


class LastVisits:
    """When each image was last visited.

    Args:
        num_instances (int): N.

    Attributes:
        steps (np.ndarray): (N,) int64 optimizer steps that had been taken, -1 for never: 8 bytes
            an image.
    """

    def __init__(self, num_instances: int) -> None:
        self.steps = np.full(num_instances, -1, dtype=np.int64)

    def visit(self, ids: np.ndarray, step: int, away: int) -> np.ndarray:
        """Record a batch (B,) int64 after a number of steps, and find the images that return.

        Returns:
            np.ndarray: (R,) int64, places in the batch of images that return, each image once, at
            its first place.
        """
        before = self.steps[ids]
        returns = (before < 0) | (step - before > away)
        first = np.zeros(len(ids), dtype=bool)
        first[np.unique(ids, return_index=True)[1]] = True
        self.steps[ids] = step
        return np.flatnonzero(returns & first)


def turned(weight: Tensor, features: Tensor, share: float) -> Tensor:
    """Rows whose direction is a mixture of their own and the features'.

    ``|w| * normalise((1 - share) * w / |w| + share * z / |z|)``: the length of a row stays, because
    the cosine softmax does not see it while it sets how far a gradient turns the row. With
    ``share=1`` this is the weight imprinting of Qi et al., *Low-Shot Learning with Imprinted
    Weights*, CVPR 2018, and the memory of Wu et al. (InstDisc), CVPR 2018, with ``share=0``
    nothing happens. Where there is no direction to turn to (a feature of length zero or one that is
    not finite, or one opposite to the row, half way), the row stays as it is.

    Args:
        weight (Tensor): (R, d) floating point.
        features (Tensor): (R, d) floating point, of any length.
        share (float): 0 to 1.

    Returns:
        Tensor: (R, d) in the dtype of ``weight``, computed in float32 or wider.

    Raises:
        ValueError: If the share is outside of 0 to 1 or the shapes differ.
    """
    if not 0 <= share <= 1:
        raise ValueError(f'a row is turned by a share of 0 to 1, not {share}.')
    if weight.shape != features.shape:
        raise ValueError(f'each row needs a feature: rows are {tuple(weight.shape)} and features '
                         f'{tuple(features.shape)}.')
    if share == 0:
        return weight
    dtype = torch.promote_types(weight.dtype, torch.float32)
    rows, present = weight.to(dtype), features.to(dtype)
    length = rows.norm(dim=1, keepdim=True)
    # Of a huge feature the squares would be infinite.
    present = present / present.abs().amax(dim=1, keepdim=True)
    mixture = (1 - share) * F.normalize(rows, dim=1) + share * F.normalize(present, dim=1)
    mixed = mixture.norm(dim=1, keepdim=True)
    new = torch.where(mixed > 1e-6, length * mixture / mixed, rows)  # NaN is not more than that
    return new.to(weight.dtype)


@torch.no_grad()
def refresh_rows(weight: Tensor, states: Sequence[Tensor], rows: Tensor, features: Tensor,
                 share: float) -> None:
    """Turn rows of a parameter to features, in place, and clear what the optimizer kept for them.

    The momentum of SGD and the moments of AdamW were gathered along the old direction; kept, they
    would turn the row back. A cleared second moment is what a row has that was never visited.

    Args:
        weight (Tensor): (S, d) parameter.
        states (Sequence[Tensor]): (S, d) each: momentum buffer, or both moments.
        rows (Tensor): (R,) int64, distinct rows that have returned.
        features (Tensor): (R, d) their images' present features.
        share (float): 0 to 1; with 0 nothing is changed, states included.

    Raises:
        ValueError: See :func:`turned`.
    """
    # Not skipped where there are no rows: that would have to wait for the device.
    new = turned(weight[rows], features, share)
    if share == 0:
        return
    weight.index_copy_(0, rows, new)
    for state in states:
        state.index_fill_(0, rows, 0)
