# SPDX-License-Identifier: Apache-2.0
"""COCO: Mask R-CNN with a ConvNeXt-T that PIC has pre-trained.

Optimizer and layer-wise rates are those that mmdet has for ConvNeXt, in a third of its epochs.
"""
_base_ = './pic_mask-rcnn_r50-fpn_1x_coco.py'

# Checkpoint of PIC pre-training with this backbone.
pretrained = None

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        # A detector wants normalised maps, and pre-training a normalised mean: the same norm.
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    neck=dict(in_channels=[96, 192, 384, 768]))
custom_hooks = [
    # Norms of the stages that pre-training did not output are new.
    dict(
        type='CheckPretrainedHook',
        ignore=['backbone.norm0.', 'backbone.norm1.', 'backbone.norm2.']),
    dict(type='mmpretrain.PlainCheckpointHook'),
]

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(decay_rate=0.95, decay_type='layer_wise', num_layers=6))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
