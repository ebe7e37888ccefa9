# SPDX-License-Identifier: Apache-2.0
"""The training that the grids vary: PIC on the 5,000 CIFAR-10 images of the package, one core.

It stands on its own, so that results stay valid when other configs are improved. Trained and
measured by ``python -m pic_plugin.tools.ablation``, which sets length, seed and what a grid varies.
"""
default_scope = 'mmpretrain'
custom_imports = dict(
    imports=['pic_plugin', 'pic_plugin.studies.ablation'], allow_failed_imports=False)

# What an epoch is, for grids that give the length of a training in images or forward passes.
num_images = 5000
num_views = 1

# Model
model = dict(
    type='PIC',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[125.3, 123.0, 113.9],
        std=[63.0, 62.1, 66.7],
        to_rgb=True),
    # A quarter of ResNet-18's width, and stride 2 from the first stage on: a fourth of the time of
    # the demo's backbone, for more seeds and longer trainings.
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(2, 2, 2, 2),
        zero_init_residual=False),
    neck=dict(
        type='NonLinearNeck',
        in_channels=128,
        hid_channels=512,
        out_channels=128,
        with_last_bn=False,
        norm_cfg=dict(type='BN1d')),
    head=dict(
        type='PICHead',
        feat_dim=128,
        num_negatives=None,
        loss=dict(type='CosineSoftmaxLoss', temperature=0.1)))

# Data
view_pipeline = [
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
    dict(type='RandomFlip', prob=0.5),
]
pack = dict(type='PackInputs', meta_keys=('sample_idx', 'reference'))
train_dataloader = dict(
    batch_size=128,
    # One process for each training.
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='SlidingWindowSampler', window_size=1024, stride=128),
    dataset=dict(
        type='ImageGrid',
        img_file='cifar10_train_5000.webp',
        with_label=False,
        pipeline=[*view_pipeline, pack]))
# Labels are used here alone, after training.
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='ImageGrid',
                img_file='cifar10_train_5000.webp',
                pipeline=[dict(type='MarkReference'), pack]),
            dict(type='ImageGrid', img_file='cifar10_test_1000.webp', pipeline=[pack]),
        ]))

# Schedule: a grid's `epochs` scales all of it.
train_cfg = dict(by_epoch=True, max_epochs=20)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.06, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        # A third: there are too few steps for a tail of small ones.
        eta_min=0.02,
        by_epoch=True,
        begin=1,
        end=20,
        convert_to_iter_based=True),
]

# Running
custom_hooks = [dict(type='InstanceBankHook')]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=39),
    checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=2))
