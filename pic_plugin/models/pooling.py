# SPDX-License-Identifier: Apache-2.0
"""One feature vector for each image out of what a backbone gives."""
from __future__ import annotations

from typing import Any

from torch import Tensor


def pooled(outputs: Any) -> Tensor:
    """One feature vector for each image from what a backbone gives.

    Args:
        outputs (Tensor | tuple): (B, C, H, W) maps and (B, T, C) tokens are averaged over places,
            (B, C) is taken as it is; of a tuple the last.

    Returns:
        Tensor: (B, C).

    Raises:
        ValueError: If it is not one of these.
    """
    last = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
    if not isinstance(last, Tensor) or last.dim() not in (2, 3, 4):
        seen = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
        raise ValueError('a backbone must give (B, C, H, W) maps, (B, T, C) tokens or (B, C) '
                         f'features, not {seen}.')
    if last.dim() == 4:
        return last.mean(dim=(2, 3))
    return last.mean(dim=1) if last.dim() == 3 else last
