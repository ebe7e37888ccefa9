# SPDX-License-Identifier: Apache-2.0
"""What a config of mmdet imports:
``custom_imports = dict(imports=['pic_plugin.transfer.detection'], allow_failed_imports=False)``.
"""
from .requirements import check_downstream

check_downstream('mmdet')

from .check_pretrained_hook import CheckPretrainedHook  # noqa: E402

__all__ = ['CheckPretrainedHook']
