# SPDX-License-Identifier: Apache-2.0
"""Sampler, data sets and transforms."""
from pic_plugin.datasets.image_files import ImageFiles
from pic_plugin.datasets.image_grid import ImageGrid
from pic_plugin.datasets.inaturalist import INaturalist2018
from pic_plugin.datasets.sliding_window_sampler import SlidingWindowSampler
from pic_plugin.datasets.transforms import LoadImageOrSkip, MarkReference

__all__ = [
    'INaturalist2018', 'ImageFiles', 'ImageGrid', 'LoadImageOrSkip', 'MarkReference',
    'SlidingWindowSampler'
]
