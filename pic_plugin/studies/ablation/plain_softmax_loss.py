# SPDX-License-Identifier: Apache-2.0
"""The softmax that PIC's cosine softmax is compared with (paper, Table 1)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class PlainSoftmaxLoss(nn.Module):
    """Cross-entropy over the products of features with class weights, neither of unit length.

    All logits are in memory: for a few thousand classes.
    """

    def forward(self, features: Tensor, class_weights: Tensor, targets: Tensor) -> Tensor:
        """Mean loss.

        Args:
            features (Tensor): (B, d).
            class_weights (Tensor): (C, d).
            targets (Tensor): (B,) int64, rows of ``class_weights``.
        """
        return self.with_accuracy(features, class_weights, targets)[0]

    def with_accuracy(self, features: Tensor, class_weights: Tensor,
                      targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss, and percent of features whose own class has the largest logit."""
        logits = features.float() @ class_weights.float().T
        correct = (logits.detach().argmax(dim=1) == targets).float()
        return F.cross_entropy(logits, targets), torch.mean(correct) * 100
