# SPDX-License-Identifier: Apache-2.0
"""Sampler, data sets and transforms."""
from .image_grid import ImageGrid
from .inaturalist import INaturalist2018
from .sliding_window_sampler import SlidingWindowSampler
from .transforms import LoadImageOrSkip, MarkReference

__all__ = [
    'INaturalist2018', 'ImageGrid', 'LoadImageOrSkip', 'MarkReference', 'SlidingWindowSampler'
]
