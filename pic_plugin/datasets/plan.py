# SPDX-License-Identifier: Apache-2.0
"""The lines about the data in the plan of a training."""
from __future__ import annotations

from typing import Any, List

from pic_plugin.datasets.instance_numbers import number_instances


def describe_data(dataset: Any) -> List[str]:
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
        for transform in getattr(getattr(leaf, 'pipeline', None), 'transforms', ()):
            value_range = getattr(transform, 'value_range', None)
            if value_range is not None:
                lines.append(f'Pixels: {value_range[0]:g} is taken for black and '
                             f'{value_range[1]:g} for white.')
    if len(dataset) != instances.num_instances:
        lines.append(f'{type(dataset).__name__} shows {instances.num_instances:,} images as '
                     f'{len(dataset):,} samples: copies of an image are one class.')
    return lines
