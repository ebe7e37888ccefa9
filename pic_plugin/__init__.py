# SPDX-License-Identifier: Apache-2.0
"""PIC, Parametric Instance Classification, for OpenMMLab.

``custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)`` in a config registers
its algorithm, head, loss, sampler, hooks and data sets in mmpretrain's registries.

Where mmengine, mmcv and mmpretrain are not installed at all, there is the core for training loops
of one's own, which needs torch and numpy alone: ``pic_plugin.bank`` with ``SampledClassWeights``,
and ``pic_plugin.losses``.
"""
import warnings
from typing import Any

from .dependencies import CORE_ONLY, check_dependencies, has_openmmlab, warn_of_core_only
from .version import __version__

# mmcv-lite's, of an operation that nothing here uses.
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')

if has_openmmlab():
    # Before the imports below, which would fail on a wrong version with a message of their own.
    check_dependencies()

    from . import bank, datasets, engine, evaluation, losses, models

    __all__ = ['__version__', 'bank', 'datasets', 'embed', 'engine', 'evaluation', 'load_backbone',
               'losses', 'models']
else:
    from . import bank, losses

    __all__ = ['__version__', 'bank', 'losses']
    warn_of_core_only()


def __getattr__(name: str) -> Any:
    """Import what takes long only when it is asked for; say what is missing where it is."""
    if name in ('embed', 'load_backbone') and has_openmmlab():
        from . import features
        return getattr(features, name)
    if name in ('embed', 'load_backbone', 'datasets', 'engine', 'evaluation', 'models'):
        raise AttributeError(f'pic_plugin.{name} is not there: {CORE_ONLY}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
