# SPDX-License-Identifier: Apache-2.0
"""FCN on the network of the demo (pic_demo.py), on generated scenes, for a CPU.

    python -m pic_plugin.tools.make_scenes data --train 400 --val 100 --size 160 120
    mim train mmseg configs/benchmarks/mmsegmentation/pic_demo_fcn_scenes.py --cfg-options
        model.backbone.init_cfg.checkpoint=work_dirs/pic_demo/epoch_20.pth

It shows how a backbone of mmpretrain goes into mmseg, and takes minutes.
"""
_base_ = ['mmseg::_base_/models/fcn_r50-d8.py', 'mmseg::_base_/default_runtime.py']
custom_imports = dict(imports=['pic_plugin.transfer.segmentation'], allow_failed_imports=False)

# Checkpoint of the demo.
pretrained = None
data_root = 'data/VOCdevkit/VOC2012'
crop_size = (96, 96)

norm_cfg = dict(type='BN')
head = dict(num_classes=21, channels=64, norm_cfg=norm_cfg)
model = dict(
    # As in pre-training.
    data_preprocessor=dict(
        mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], bgr_to_rgb=True, size=crop_size),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(2, 1, 2, 2),
        out_indices=(0, 1, 2, 3),
        zero_init_residual=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    decode_head=dict(in_channels=128, **head),
    auxiliary_head=dict(in_channels=64, **head))
custom_hooks = [
    dict(type='CheckPretrainedHook'),
    dict(type='mmpretrain.PlainCheckpointHook'),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='PascalVOCDataset',
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.95),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ]))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PascalVOCDataset',
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

train_cfg = dict(type='IterBasedTrainLoop', max_iters=600, val_interval=600)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=0.9, eta_min=0, by_epoch=False, begin=50, end=600),
]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=600))
randomness = dict(seed=0)
