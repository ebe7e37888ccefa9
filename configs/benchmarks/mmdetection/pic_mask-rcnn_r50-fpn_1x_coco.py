# SPDX-License-Identifier: Apache-2.0
"""COCO detection and instance segmentation: Mask R-CNN, ResNet-50 FPN, 12 epochs (1x).

mmdet's 1x with MoCo's changes for self-supervised backbones: every layer is trained, BN is
synchronised and is in the new layers of FPN and of the mask head too, short side 640 to 800 in
training. 8 GPUs with 2 images each.

    mim train mmdet PATH/pic_mask-rcnn_r50-fpn_1x_coco.py --launcher pytorch --gpus 8
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['pic_plugin.transfer.detection'], allow_failed_imports=False)

# Checkpoint of PIC pre-training, or what extract_backbone made of it.
pretrained = None

norm_cfg = dict(type='SyncBN', requires_grad=True)
# The base has RGB and the statistics of pre-training.
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(mask_head=dict(norm_cfg=norm_cfg)))
custom_hooks = [
    dict(type='CheckPretrainedHook'),
    # Without it torch >= 2.6 refuses mmengine's checkpoints, in mim test and --resume.
    dict(type='mmpretrain.PlainCheckpointHook'),
]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
        keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
