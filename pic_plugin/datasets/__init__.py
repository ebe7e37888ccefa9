# SPDX-License-Identifier: Apache-2.0
"""Sampler, data sets and transforms."""
from .image_grid import ImageGrid
from .sliding_window_sampler import SlidingWindowSampler
from .transforms import LoadImageOrSkip, MarkReference

__all__ = ['ImageGrid', 'LoadImageOrSkip', 'MarkReference', 'SlidingWindowSampler']
