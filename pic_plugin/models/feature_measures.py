# SPDX-License-Identifier: Apache-2.0
"""Measures of features that need no labels: effective rank, alignment, uniformity."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def effective_rank(features: Tensor) -> float:
    """RankMe: the exponential of the entropy of the normalised singular values.

    Garrido et al., RankMe, ICML 2023 (arXiv 2210.02885), equation 1. 1 if all features point along
    one line, min(n, d) if they fill all directions evenly. A collapse shows as a fall.

    Args:
        features (Tensor): (n, d).

    Raises:
        ValueError: If there are no features.
    """
    if not features.numel():
        raise ValueError('the effective rank of no features is not defined.')
    matrix = _on_capable_device(features).double()
    if len(matrix) < matrix.shape[1]:
        matrix = matrix.t()
    # By the smaller of the two Gram matrices: many times as fast as singular values, and what is
    # lost, values below 1e-8 of the largest, is nothing to an entropy.
    values = torch.linalg.eigvalsh(matrix.t() @ matrix).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    entropy = -(shares * shares.clamp_min(torch.finfo(values.dtype).tiny).log()).sum()
    return float(entropy.exp())


def alignment(features: Tensor, positives: Tensor) -> float:
    """Mean squared distance of normalised pairs: 0 if they agree, 2 if they are unrelated.

    Wang and Isola, ICML 2020 (arXiv 2005.10242), with alpha = 2. PIC's pairs are a feature and its
    image's class weight.

    Args:
        features (Tensor): (n, d).
        positives (Tensor): (n, d).
    """
    first, second = F.normalize(features.float(), dim=1), F.normalize(positives.float(), dim=1)
    return float((first - second).square().sum(dim=1).mean())


def uniformity(features: Tensor) -> float:
    """Log of the mean of exp(-2 squared distance) over pairs: 0 if all agree, about -4 at best.

    Wang and Isola, with t = 2.

    Args:
        features (Tensor): (n, d), n at least 2.

    Raises:
        ValueError: If there is no pair.
    """
    if len(features) < 2:
        raise ValueError('uniformity is about pairs of features, and there is no pair.')
    distances = torch.pdist(F.normalize(_on_capable_device(features).float(), dim=1)).square()
    return float((-2 * distances).exp().mean().log())


def _on_capable_device(features: Tensor) -> Tensor:
    # An Apple GPU has neither float64 nor eigenvalues nor distances of pairs.
    return features.cpu() if features.device.type == 'mps' else features
