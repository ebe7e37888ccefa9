# SPDX-License-Identifier: Apache-2.0
"""A network with a past: a narrow ResNet-18 that tells the ten classes of CIFAR-10 apart.

docs/continue.md continues it on other pictures with PIC. It stands for the ImageNet, CLIP or DINOv2
weights that people have, and needs no download but CIFAR-10, as the folder that
``python -m pic_plugin.tools.prepare_cifar10`` makes.
"""
default_scope = 'mmpretrain'
custom_imports = dict(
    imports=['pic_plugin', 'pic_plugin.engine.hooks.plain_checkpoint_hook'],
    allow_failed_imports=False)

data_root = 'data/cifar10'

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=10,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    # The network that `pretrain` takes on a CPU.
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss')))

# Twice the size of the pictures: the stem is ImageNet's and divides it by four.
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        pipeline=[
            dict(type='DecodeRandomCrop', size=64, scale=(0.2, 1.0)),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ]))
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='test',
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale=64, edge='short'),
            dict(type='PackInputs'),
        ]))
val_evaluator = dict(type='Accuracy', topk=(1, ))
val_cfg = dict()

train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=5)
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=0.1, total_steps=10, by_epoch=True, convert_to_iter_based=True)
]
custom_hooks = [dict(type='PlainCheckpointHook')]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1))
randomness = dict(seed=0)
