# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 with a 32x32 stem on all of CIFAR-10, one GPU.

The images are a folder of PNG files by class, made by::

    python -m pic_plugin.tools.prepare_cifar10 ARCHIVE data/cifar10

The authors trained on ImageNet only. Projection and augmentation are those of the demo
(pic_demo.py). Window, visits, classes, temperature and learning rate are the best of eight tries of
this network over 17 epochs, with which it was then trained for 46, at 512 images a step and four
times the rate: docs/results/ahead.md, "A network of full width". Nobody has trained it for 200
epochs here.
"""
_base_ = '../_base_/augmentation.py'

default_scope = 'mmpretrain'
custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)

data_root = 'data/cifar10'

# Model
model = dict(
    type='PIC',
    data_preprocessor=dict(
        mean=[125.3, 123.0, 113.9],
        std=[63.0, 62.1, 66.7],
        channels_last=True,
        # No blur: it would leave little of 32x32 pixels.
        views=dict(blur=None)),
    backbone=dict(type='ResNet_CIFAR', depth=18),
    # BatchNorm inside the projection, as in the demo; the authors have none.
    neck=dict(
        type='NonLinearNeck',
        in_channels=512,
        hid_channels=2048,
        out_channels=128,
        with_last_bn=False,
        norm_cfg=dict(type='BN1d')),
    # The classes of a window; half of the authors' temperature; and rows that are turned to the
    # image's present feature when it returns. Turned rows are no longer exactly those of SGD.
    head=dict(
        type='PICHead',
        feat_dim=128,
        num_negatives=2048,
        refresh_returning=1.0,
        loss=dict(type='CosineSoftmaxLoss', temperature=0.1)))

# Data
train_pipeline = [
    dict(type='DecodeRandomCrop', size=32, scale=(0.2, 1.0)),
    dict(type='PackInputs', meta_keys=('sample_idx', )),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    # New workers in each epoch draw random numbers that depend on the epoch alone: exact resume.
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    # 16 batches, in which each image is visited 16 times.
    sampler=dict(type='SlidingWindowSampler', window_size=2048, stride=128),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        with_label=False,
        pipeline=train_pipeline))

# Evaluation: labels are used here alone.
# The path is for messages about an image.
pack_labelled = dict(type='PackInputs', meta_keys=('sample_idx', 'reference', 'img_path'))
val_dataloader = dict(
    batch_size=250,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='CustomDataset',
                data_root=data_root,
                data_prefix='train',
                test_mode=True,
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='MarkReference'),
                    pack_labelled,
                ]),
            dict(
                type='CustomDataset',
                data_root=data_root,
                data_prefix='test',
                test_mode=True,
                pipeline=[dict(type='LoadImageFromFile'), pack_labelled]),
        ]))
val_evaluator = dict(type='KNNMetric', topk=(20, 200))
val_cfg = dict()

# What mmpretrain's FeatureExtractor and the like do with a picture. Nothing is evaluated on it.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=32, edge='short'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='test',
        with_label=False,
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = []
test_cfg = dict()

# Schedule
max_epochs = 200
warmup_epochs = 5
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.06, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True),
]
if warmup_epochs == 0:
    del param_scheduler[0]
auto_scale_lr = dict(base_batch_size=128)

# Running
custom_hooks = [dict(type='InstanceBankHook'), dict(type='CompareWithUntrainedHook')]
default_hooks = dict(
    # mmengine's own, named for mmpretrain's vis_scheduler.py.
    param_scheduler=dict(type='ParamSchedulerHook'),
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=10, max_keep_ckpts=2))
env_cfg = dict(cudnn_benchmark=True)
randomness = dict(seed=0)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
