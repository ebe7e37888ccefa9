# SPDX-License-Identifier: Apache-2.0
"""The lines about the data in the plan of a training."""
from __future__ import annotations

import os
from typing import Any

from mmengine.dist import is_main_process
from mmpretrain.datasets import CustomDataset

from pic_plugin.datasets.endings import as_endings
from pic_plugin.datasets.file_names import printable
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.datasets.walk import walk


def describe_data(dataset: Any) -> list[str]:
    """Lines on what was read, what was left out and what is one class.

    Args:
        dataset: A training data set, or wrappers of such.
    """
    instances = number_instances(dataset)
    lines = []
    for leaf in instances.leaves:
        report = getattr(leaf, 'report', None)
        if report is not None:
            lines += [f'{getattr(leaf, "places", type(leaf).__name__)}:', str(report)]
        elif isinstance(leaf, CustomDataset) and not leaf.ann_file and is_main_process():
            # The one process that prints it: the folder is walked through once more.
            lines += _describe_folder(leaf)
        for transform in getattr(getattr(leaf, 'pipeline', None), 'transforms', ()):
            value_range = getattr(transform, 'value_range', None)
            if value_range is not None:
                lines.append(f'Pixels: {value_range[0]:g} is taken for black and '
                             f'{value_range[1]:g} for white.')
    if len(dataset) != instances.num_instances:
        lines.append(f'{type(dataset).__name__} shows {instances.num_instances:,} images as '
                     f'{len(dataset):,} samples: copies of an image are one class.')
    return lines


def _describe_folder(dataset: CustomDataset) -> list[str]:
    """What mmpretrain's data set of a folder leaves out without a word, and what it takes in."""
    folder = dataset.img_prefix.rstrip('/')
    if not os.path.isdir(folder):
        return []  # of a storage back-end
    name = type(dataset).__name__
    found = walk(folder, as_endings(dataset.extensions))
    lines = [f'{name} of {printable(folder)}:', str(found.report)]
    more = len(dataset) - len(found.names)
    if more > 0:
        lines.append(f'{name} trains on {more:,} of those left out all the same, hidden ones for '
                     'instance. ImageFiles does not.')
    return lines
