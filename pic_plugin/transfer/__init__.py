# SPDX-License-Identifier: Apache-2.0
"""From a PIC checkpoint to other tasks and libraries, and from the authors' checkpoints to ours.

Configs for detection import ``pic_plugin.transfer.detection``, for segmentation
``pic_plugin.transfer.segmentation``; nothing else imports mmdet or mmseg.
"""
