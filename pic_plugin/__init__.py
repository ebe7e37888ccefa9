# SPDX-License-Identifier: Apache-2.0
"""PIC, Parametric Instance Classification, for OpenMMLab.

``custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)`` in a config registers
its algorithm, head, loss, sampler, hooks and data sets in mmpretrain's registries.

Where mmengine, mmcv and mmpretrain are not installed at all, there is the core for training loops
of one's own, which needs torch and numpy alone: ``pic_plugin.bank`` with ``SampledClassWeights``,
and ``pic_plugin.losses``.
"""
from .dependencies import check_dependencies, has_openmmlab, warn_of_core_only
from .version import __version__

if has_openmmlab():
    # Before the imports below, which would fail on a wrong version with a message of their own.
    check_dependencies()

    from . import bank, datasets, engine, evaluation, losses, models

    __all__ = ['__version__', 'bank', 'datasets', 'engine', 'evaluation', 'losses', 'models']
else:
    from . import bank, losses

    __all__ = ['__version__', 'bank', 'losses']
    warn_of_core_only()
