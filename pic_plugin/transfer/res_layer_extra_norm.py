# SPDX-License-Identifier: Apache-2.0
"""The last stage of a ResNet as the box head of a C4 detector, with one norm more."""
from __future__ import annotations

from typing import Any

from mmcv.cnn import build_norm_layer
from mmdet.models.backbones import ResNet
from mmdet.models.roi_heads.shared_heads import ResLayer
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ResLayerExtraNorm(ResLayer):
    """mmdet's ``ResLayer``, followed by a norm layer.

    MoCo's protocol for Pascal VOC, which PIC's follows, ends res5 with a newly initialised norm:
    the features of a self-supervised network have another scale than those that the learning rate
    of the box head was tuned for.

    Args:
        norm_cfg (dict): For the stage and for the norm behind it.
        **kwargs: Those of mmdet's ``ResLayer``.
    """

    def __init__(self, depth: int, stage: int = 3, norm_cfg: dict = dict(type='BN'),  # noqa: B006
                 **kwargs: Any) -> None:
        super().__init__(depth, stage=stage, norm_cfg=norm_cfg, **kwargs)
        channels = 64 * 2**stage * ResNet.arch_settings[depth][0].expansion
        self.norm = build_norm_layer(norm_cfg, channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, 14, 14) pooled regions -> (R, C', 7, 7)."""
        return self.norm(super().forward(x))
