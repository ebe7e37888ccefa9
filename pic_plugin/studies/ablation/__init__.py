# SPDX-License-Identifier: Apache-2.0
"""Tables of trainings: a grid of settings and seeds, trained one by one, resumed, and summarised.

``python -m pic_plugin.tools.ablation`` is the command; the grids are in ``studies/grids``.
"""
from pic_plugin.studies.ablation.diet_head import DIETHead
from pic_plugin.studies.ablation.plain_softmax_loss import PlainSoftmaxLoss

__all__ = ['DIETHead', 'PlainSoftmaxLoss']
