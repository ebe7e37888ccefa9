# SPDX-License-Identifier: Apache-2.0
"""Augmentation that a loader's pipeline does already, and the device would do once more."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pic_plugin.models.augment.recipe import ViewRecipe

# Names of transforms of mmcv, mmpretrain and torchvision, by the operation of a recipe.
OPERATIONS = {
    'jitter': {'ColorJitter', 'ColorTransform', 'Brightness', 'Contrast'},
    'grey': {'RandomGrayscale'},
    'blur': {'GaussianBlur'},
    'flip': {'RandomFlip', 'RandomHorizontalFlip'},
}
_WRAPPERS = {'TorchVisonTransformWrapper', 'TorchVisionTransformWrapper'}
_PARTS = ('transforms', 'transform', 'pipelines', 'pipeline', 'datasets', 'dataset')


def doubled_operations(dataset: Any, recipes: list[ViewRecipe]) -> list[str]:
    """Which operations both the pipeline of a data set and the device's recipes have.

    Args:
        dataset: A data set with ``pipeline``, or a wrapper of such.
        recipes (list[ViewRecipe]): Of ``AugmentPreprocessor``.

    Returns:
        list[str]: For each, the operation and the transform.
    """
    names = sorted(set(_names(dataset, set())))
    return [f'{operation} ({name})' for operation, known in OPERATIONS.items()
            for name in names if name in known
            and any(getattr(recipe, operation) for recipe in recipes)]


def _names(node: Any, seen: set[int]) -> Iterator[str]:
    """Class names of a pipeline's transforms, those inside of others included."""
    if id(node) in seen or isinstance(node, (str, bytes, dict)):
        return
    seen.add(id(node))
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _names(part, seen)
        return
    # mmpretrain wraps torchvision's transforms in one class.
    wrapped = getattr(node, 't', None) if type(node).__name__ in _WRAPPERS else None
    yield type(node if wrapped is None else wrapped).__name__
    for attribute in _PARTS:
        part = getattr(node, attribute, None)
        if part is not None and not callable(getattr(type(node), attribute, None)):
            yield from _names(part, seen)
