# SPDX-License-Identifier: Apache-2.0
"""The loss: a cosine softmax over instance classes. Needs torch alone."""
from .blockwise_softmax import Shards
from .cosine_softmax_loss import CosineSoftmaxLoss, cosine_softmax

__all__ = ['CosineSoftmaxLoss', 'Shards', 'cosine_softmax']
