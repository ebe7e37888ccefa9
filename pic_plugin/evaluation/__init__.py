# SPDX-License-Identifier: Apache-2.0
"""Evaluation of features."""
from pic_plugin.evaluation.knn_metric import KNNMetric

__all__ = ['KNNMetric']
