# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC 2012 segmentation: UPerNet with a ConvNeXt-T that PIC has pre-trained.

Optimizer and stage-wise rates are those that mmseg has for ConvNeXt on ADE20K.

    mim train mmseg PATH/pic_upernet_convnext-t_4xb4-40k_voc12aug-512x512.py --launcher pytorch
        --gpus 4 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = './pic_upernet_swin-t_4xb4-40k_voc12aug-512x512.py'

# Checkpoint of PIC pre-training with this backbone, or what extract_backbone made of it.
pretrained = None

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        # A segmenter wants normalised maps, and pre-training a normalised mean: the same norm.
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')))

optim_wrapper = dict(
    optimizer=dict(lr=0.0001, weight_decay=0.05),
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6))
