# SPDX-License-Identifier: Apache-2.0
"""The supervised twin of pic_saliency.py: its backbone, images, crops and length, with labels.

For the comparison of what the two look at: docs/results/saliency/reproduce.sh runs it.
"""
_base_ = ['../../pic/pic_demo.py']

model = dict(
    _delete_=True,
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        mean=[125.3, 123.0, 113.9],
        std=[63.0, 62.1, 66.7],
        to_rgb=True),
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(2, 1, 2, 2),
        zero_init_residual=False),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))

# The same images and augmentation, here on the host: the loss alone differs.
train_dataloader = dict(
    # A sliding window would show one class after another.
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(
        with_label=True,
        pipeline=[
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
            dict(type='PackInputs'),
        ]))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageGrid',
        img_file='cifar10_test_1000.webp',
        pipeline=[dict(type='PackInputs')]))
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, ))

# As in pic_saliency.py.
train_cfg = dict(max_epochs=30, val_interval=15)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.04,
        by_epoch=True,
        begin=2,
        end=30,
        convert_to_iter_based=True),
]

# No bank of class weights to keep; checkpoints that load without running code.
custom_imports = dict(
    imports=['pic_plugin', 'pic_plugin.engine.hooks.plain_checkpoint_hook'],
    allow_failed_imports=False)
custom_hooks = [dict(type='PlainCheckpointHook')]
