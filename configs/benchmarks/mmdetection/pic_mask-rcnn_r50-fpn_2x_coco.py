# SPDX-License-Identifier: Apache-2.0
"""COCO: Mask R-CNN, ResNet-50 FPN, 24 epochs (2x); otherwise as 1x."""
_base_ = './pic_mask-rcnn_r50-fpn_1x_coco.py'

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1),
]
