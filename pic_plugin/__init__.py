# SPDX-License-Identifier: Apache-2.0
"""PIC, Parametric Instance Classification, for OpenMMLab.

``custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)`` in a config registers
everything below in mmpretrain's registries.
"""
from typing import Any

from .dependencies import check_dependencies
from .version import __version__

# Before the imports below, which would fail on a wrong version with a message of their own.
check_dependencies()

from . import datasets, engine, evaluation, models  # noqa: E402

__all__ = ['__version__', 'datasets', 'embed', 'engine', 'evaluation', 'load_backbone', 'models']


def __getattr__(name: str) -> Any:
    """Import what takes long only when it is asked for."""
    if name in ('embed', 'load_backbone'):
        from . import features
        return getattr(features, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
