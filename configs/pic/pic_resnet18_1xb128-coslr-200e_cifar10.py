# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 with a 32x32 stem on all of CIFAR-10, one GPU.

The images are a folder of PNG files by class, made by::

    python -m pic_plugin.tools.prepare_cifar10 ARCHIVE data/cifar10

The authors trained on ImageNet only: optimizer, projection and augmentation are those of the demo
(pic_demo.py), not tuned at this length, and window and stride have the authors' proportions.
"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)

data_root = 'data/cifar10'

# Model
model = dict(
    type='PIC',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[125.3, 123.0, 113.9],
        std=[63.0, 62.1, 66.7],
        to_rgb=True),
    backbone=dict(type='ResNet_CIFAR', depth=18),
    # BatchNorm inside the projection, as in the demo; the authors have none.
    neck=dict(
        type='NonLinearNeck',
        in_channels=512,
        hid_channels=2048,
        out_channels=128,
        with_last_bn=False,
        norm_cfg=dict(type='BN1d')),
    # All 50,000 classes: 26 MB of weights, and none has to be exchanged.
    head=dict(type='PICHead', feat_dim=128, num_negatives=None))

# Data
train_pipeline = [
    dict(type='LoadImageOrSkip'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/RandomResizedCrop', size=32, scale=(0.2, 1.0)),
    dict(
        type='RandomApply',
        prob=0.8,
        transforms=[
            dict(
                type='torchvision/ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1)
        ]),
    dict(type='torchvision/RandomGrayscale', p=0.2),
    dict(type='PILToNumpy', to_bgr=True),
    # No blur: it would leave little of 32x32 pixels.
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs', meta_keys=('sample_idx', )),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    # New workers in each epoch draw random numbers that depend on the epoch alone: exact resume.
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    # A tenth of the images; an eighth of the window.
    sampler=dict(type='SlidingWindowSampler', window_size=5120, stride=640),
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

# Schedule
max_epochs = 200
warmup_epochs = 5
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.12, momentum=0.9, weight_decay=5e-4))
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
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=10, max_keep_ckpts=2))
env_cfg = dict(cudnn_benchmark=True)
randomness = dict(seed=0)
