# SPDX-License-Identifier: Apache-2.0
"""What a config of mmdet imports:
``custom_imports = dict(imports=['pic_plugin.transfer.detection'], allow_failed_imports=False)``.
"""
from .requirements import check_downstream

# Before the imports below, which need mmdet.
check_downstream('mmdet')

from .check_pretrained_hook import CheckPretrainedHook  # noqa: E402
from .cpu_runner import CPURunner  # noqa: E402
from .res_layer_extra_norm import ResLayerExtraNorm  # noqa: E402

__all__ = ['CPURunner', 'CheckPretrainedHook', 'ResLayerExtraNorm']
