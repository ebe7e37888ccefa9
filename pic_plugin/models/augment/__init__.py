# SPDX-License-Identifier: Apache-2.0
"""Augmentation of whole batches on the device: recipe, random draws, tensor functions, module."""
from .preprocessor import AugmentPreprocessor
from .recipe import ViewRecipe

__all__ = ['AugmentPreprocessor', 'ViewRecipe']
