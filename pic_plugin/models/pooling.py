# SPDX-License-Identifier: Apache-2.0
"""One feature vector for each image from whatever a backbone gives."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pooled(outputs: Any) -> Tensor:
    """One feature vector for each image.

    Args:
        outputs (Tensor | tuple): (B, C, H, W) maps and (B, T, C) tokens are averaged over places,
            (B, C) is taken as it is; of a tuple the last. If that is several features of one image
            (a distilled transformer's two tokens, a Conformer's two branches), they are joined.

    Returns:
        Tensor: (B, C).

    Raises:
        ValueError: If it is none of these.
    """
    last = outputs
    if isinstance(outputs, (tuple, list)):
        last = outputs[-1] if len(outputs) else None
    if isinstance(last, (tuple, list)) and len(last):
        return torch.cat([pooled(part) for part in last], dim=1)
    if not isinstance(last, Tensor) or last.dim() not in (2, 3, 4):
        seen = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
        raise ValueError('a backbone must give (B, C, H, W) maps, (B, T, C) tokens or (B, C) '
                         f'features, not {seen}.')
    if last.dim() == 4:
        return last.mean(dim=(2, 3))
    return last.mean(dim=1) if last.dim() == 3 else last
