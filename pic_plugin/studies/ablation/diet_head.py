# SPDX-License-Identifier: Apache-2.0
"""DIET's classifier of instances, the nearest relative of PIC's head (arXiv 2302.10260)."""
from __future__ import annotations

from typing import Any

from mmpretrain.models import LinearClsHead
from mmpretrain.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class DIETHead(LinearClsHead):
    """A linear classifier over all images: mmpretrain's, with an image's id as its label.

    DIET trains it with a label smoothing of 0.8, AdamW and no projection:
    ``loss=dict(type='LabelSmoothLoss', label_smooth_val=0.8, mode='original')``.
    """

    def loss(self, feats: tuple[Tensor, ...], data_samples: list, **kwargs: Any) -> dict:
        """Loss of one step.

        Args:
            feats (tuple[Tensor]): Of the backbone; the last one, (B, C), is classified.
            data_samples (list[DataSample]): B samples with ``sample_idx``; a label is replaced.
        """
        for sample in data_samples:
            sample.set_gt_label(int(sample.sample_idx))
        return super().loss(feats, data_samples, **kwargs)
