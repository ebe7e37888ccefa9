# SPDX-License-Identifier: Apache-2.0
"""Evaluation of features."""
from .knn_metric import KNNMetric

__all__ = ['KNNMetric']
