# SPDX-License-Identifier: Apache-2.0
"""COCO: Mask R-CNN with a ConvNeXt-T that PIC has pre-trained.

Optimizer and layer-wise rates are those that mmdet has for ConvNeXt, in a third of its epochs.
"""
_base_ = './pic_mask-rcnn_swin-t-fpn_1x_coco.py'

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
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')))

optim_wrapper = dict(
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(
        _delete_=True, decay_rate=0.95, decay_type='layer_wise', num_layers=6))
