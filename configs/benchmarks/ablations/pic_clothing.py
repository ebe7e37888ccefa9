# SPDX-License-Identifier: Apache-2.0
"""PIC on photos of clothes: clothing-dataset-small (A. Grigorev and contributors, CC0).

Folders ``train``, ``validation`` and ``test``, each with a folder of photos for each of 10 classes;
``--data-root`` of the ablation tool says where. The short side of the photos is 96 pixels or more.
"""
_base_ = 'pic_cifar10-5k.py'

num_images = 3068

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))

view_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/RandomResizedCrop', size=48, scale=(0.2, 1.0)),
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
eval_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=54, edge='short'),
    dict(type='CenterCrop', crop_size=48),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=None,
        data_prefix='train',
        with_label=False,
        pipeline=[*view_pipeline, pack]))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='CustomDataset',
                data_root=None,
                data_prefix='train',
                pipeline=[*eval_pipeline, dict(type='MarkReference'), pack]),
            dict(
                type='CustomDataset',
                data_root=None,
                data_prefix='validation',
                pipeline=[*eval_pipeline, pack]),
            dict(
                type='CustomDataset',
                data_root=None,
                data_prefix='test',
                pipeline=[*eval_pipeline, pack]),
        ]))
