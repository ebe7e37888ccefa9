# SPDX-License-Identifier: Apache-2.0
"""Faster R-CNN on the network of the demo (pic_demo.py), on generated scenes, for a CPU.

    python -m pic_plugin.tools.make_scenes data --train 400 --val 100 --size 160 120
    mim train mmdet configs/benchmarks/mmdetection/pic_demo_faster-rcnn_scenes.py --cfg-options
        model.backbone.init_cfg.checkpoint=work_dirs/pic_demo/epoch_20.pth

It shows how a backbone of mmpretrain goes into mmdet, and takes minutes. All sizes are those of a
network that was trained on 32x32 pixels: objects of this size, levels of stride 4 and 8.
"""
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['pic_plugin.transfer.detection'], allow_failed_imports=False)

# Checkpoint of the demo.
pretrained = None
data_root = 'data/VOCdevkit/VOC2012/'
image_scale = (160, 120)

anchors = dict(scales=[3, 5], strides=[4, 8, 16])
model = dict(
    # As in pre-training.
    data_preprocessor=dict(
        mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], bgr_to_rgb=True, pad_size_divisor=16),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(2, 1, 2, 2),
        out_indices=(2, 3),
        zero_init_residual=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    neck=dict(in_channels=[64, 128], out_channels=64, num_outs=3, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=anchors),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8], finest_scale=28),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=20)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)))
custom_hooks = [
    dict(type='CheckPretrainedHook'),
    dict(type='mmpretrain.PlainCheckpointHook'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='VOCDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=image_scale, keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VOCDataset',
        data_root=data_root,
        ann_file='ImageSets/Main/val.txt',
        data_prefix=dict(sub_data_root=''),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=image_scale, keep_ratio=True),
            # After Resize: boxes stay those of the file.
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='area')
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=12,
        T_max=12,
        convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=12), visualization=dict(draw=False))
randomness = dict(seed=0)
