# SPDX-License-Identifier: Apache-2.0
"""COCO: Mask R-CNN with another backbone of mmpretrain that PIC has pre-trained, a Swin-T.

How any of them goes into mmdet or mmseg: ``type='mmpretrain.NAME'`` with the arguments of
pre-training, an output of each stage, and their channels for the neck. Norms of the stages that
pre-training did not output are new; the hook's ``ignore`` lists them. Optimizer and schedule are
those that mmdet has for Swin.
"""
_base_ = './pic_mask-rcnn_r50-fpn_1x_coco.py'

# Checkpoint of PIC pre-training with this backbone.
pretrained = None

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch='tiny',
        img_size=224,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        # Detection has images of all sizes.
        pad_small_map=True,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    neck=dict(in_channels=[96, 192, 384, 768]))
custom_hooks = [
    dict(
        type='CheckPretrainedHook',
        ignore=['backbone.norm0.', 'backbone.norm1.', 'backbone.norm2.']),
    dict(type='mmpretrain.PlainCheckpointHook'),
]

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.),
            relative_position_bias_table=dict(decay_mult=0.),
            norm=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
