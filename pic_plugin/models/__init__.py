# SPDX-License-Identifier: Apache-2.0
"""The algorithm, its head and its loss."""
from .augment import AugmentPreprocessor
from .cosine_softmax_loss import CosineSoftmaxLoss
from .pic import PIC
from .pic_head import PICHead

__all__ = ['PIC', 'AugmentPreprocessor', 'CosineSoftmaxLoss', 'PICHead']
