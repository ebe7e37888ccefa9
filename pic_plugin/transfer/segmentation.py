# SPDX-License-Identifier: Apache-2.0
"""The module that configs of mmseg import, with
``custom_imports = dict(imports=['pic_plugin.transfer.segmentation'], allow_failed_imports=False)``.
"""
from pic_plugin.transfer.requirements import check_downstream

check_downstream('mmseg')

from pic_plugin.engine.hooks.check_pretrained_hook import CheckPretrainedHook  # noqa: E402

__all__ = ['CheckPretrainedHook']
