# SPDX-License-Identifier: Apache-2.0
"""The algorithm, its head and its loss, registered for OpenMMLab's configs."""
from mmpretrain.registry import MODELS

from pic_plugin.losses import CosineSoftmaxLoss

from .pic import PIC
from .pic_head import PICHead

MODELS.register_module(module=CosineSoftmaxLoss)

__all__ = ['PIC', 'CosineSoftmaxLoss', 'PICHead']
