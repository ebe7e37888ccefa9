# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .blockwise_softmax import BlockwiseCosineSoftmax


def cosine_softmax(features, class_weights, targets, temperature, block_elements=2**24):
    grad = torch.is_grad_enabled()
    return BlockwiseCosineSoftmax.apply(features, class_weights, targets, temperature,
        block_elements, grad and features.requires_grad, grad and class_weights.requires_grad)
