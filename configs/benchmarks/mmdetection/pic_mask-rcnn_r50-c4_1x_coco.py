# SPDX-License-Identifier: Apache-2.0
"""COCO detection and instance segmentation: Mask R-CNN, ResNet-50 C4, 12 epochs (1x).

MoCo's protocol on mmdet's C4 detector: every layer is trained, BN is synchronised, a new norm
follows res5, short side 640 to 800 in training. 8 GPUs with 2 images each. What mmdet has otherwise
than Detectron2: warm-up over 500 iterations (there 1,000), the learning rate falls after epochs 8
and 11 (there 8 and 10.7), and BN statistics are running averages to the end.

    mim train mmdet PATH/pic_mask-rcnn_r50-c4_1x_coco.py --launcher pytorch --gpus 8
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py'
custom_imports = dict(imports=['pic_plugin.transfer.detection'], allow_failed_imports=False)

# Checkpoint of PIC pre-training, or what extract_backbone made of it.
pretrained = None

norm_cfg = dict(type='SyncBN', requires_grad=True)
trained = dict(norm_cfg=norm_cfg, norm_eval=False, style='pytorch')
model = dict(
    # RGB, and the statistics of pre-training: the base has those of a Caffe network.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        frozen_stages=-1,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.'),
        **trained),
    roi_head=dict(
        shared_head=dict(
            type='ResLayerExtraNorm',
            # None: from the backbone's file, by the hook below.
            init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
            **trained)),
    # As Detectron2: anchors that reach over the border are trained too.
    train_cfg=dict(rpn=dict(allowed_border=-1)))
custom_hooks = [
    dict(
        type='CheckPretrainedHook',
        modules=['backbone', 'roi_head.shared_head'],
        ignore=['roi_head.shared_head.norm.']),
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
