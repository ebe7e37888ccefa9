# SPDX-License-Identifier: Apache-2.0
"""The module that configs of mmdet import, with
``custom_imports = dict(imports=['pic_plugin.transfer.detection'], allow_failed_imports=False)``.
"""
from pic_plugin.transfer.requirements import check_downstream

check_downstream('mmdet')

from pic_plugin.engine.hooks.check_pretrained_hook import CheckPretrainedHook  # noqa: E402

__all__ = ['CheckPretrainedHook']
