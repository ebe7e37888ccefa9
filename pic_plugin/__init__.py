# SPDX-License-Identifier: Apache-2.0
"""PIC, Parametric Instance Classification, for OpenMMLab.

``custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)`` in a config registers
everything below in mmpretrain's registries.
"""
from . import datasets, engine, evaluation, models
from .version import __version__

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models']
