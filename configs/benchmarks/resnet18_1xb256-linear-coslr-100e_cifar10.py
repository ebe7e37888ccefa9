# SPDX-License-Identifier: Apache-2.0
"""Linear evaluation on CIFAR-10 of what pic_resnet18_1xb128-coslr-200e_cifar10.py pre-trains.

The images are the folder that ``python -m pic_plugin.tools.prepare_cifar10`` makes. Learning rate,
length and crops are those of ImageNet's linear evaluation, not tuned here.
"""
_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    'mmpretrain::_base_/schedules/imagenet_sgd_coslr_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=[
        'pic_plugin',
        'pic_plugin.engine.hooks.check_labels_hook',
        'pic_plugin.engine.hooks.check_pretrained_hook',
    ],
    allow_failed_imports=False)

data_root = 'data/cifar10'

model = dict(
    backbone=dict(
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.')))
# As in pre-training: frozen features are those of images normalised like that.
data_preprocessor = dict(
    num_classes=10, mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True)

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=32, backend='pillow'),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ]))
val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='test',
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=30.0, momentum=0.9, weight_decay=0.0))
auto_scale_lr = dict(base_batch_size=256)

custom_hooks = [
    dict(type='CheckPretrainedHook'),
    dict(type='CheckLabelsHook'),
    dict(type='PlainCheckpointHook'),
]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=3))
