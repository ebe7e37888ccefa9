# SPDX-License-Identifier: Apache-2.0
"""Refresh of returning rows: a class weight is turned to its image's present feature."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def returning(absence: Tensor, away: float) -> Tensor:
    """Which images come back after an absence.

    Args:
        absence (Tensor): (B,) integer, optimizer steps since each image's last visit; for one that
            was never visited, any number above ``away``.
        away (float): Steps beyond which an image has been away.

    Returns:
        Tensor: (B,) bool.
    """
    return absence > away


def turned(weight: Tensor, features: Tensor, share: float) -> Tensor:
    """Rows whose direction is a mixture of their own and the features'.

    ``|w| * normalise((1 - share) * w / |w| + share * z / |z|)``: the length of a row stays, because
    the cosine softmax does not see it while it sets how far a gradient turns the row. With
    ``share=1`` this is the weight imprinting of Qi et al., *Low-Shot Learning with Imprinted
    Weights*, CVPR 2018, and the memory of Wu et al. (InstDisc), CVPR 2018, with ``share=0``
    nothing happens. A feature of length zero has no direction, and its row stays as it is.

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
    mixture = (1 - share) * F.normalize(rows, dim=1) + share * F.normalize(present, dim=1)
    has_direction = present.norm(dim=1, keepdim=True) > 0
    return torch.where(has_direction, length * F.normalize(mixture, dim=1), rows).to(weight.dtype)


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
