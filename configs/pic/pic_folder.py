# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 on a folder of your own images: flat or nested, no labels, no list. Copy and adapt.

One GPU, or for a first try a CPU. What to set is at the top; the rest is the authors' ImageNet
setting (pic_resnet50_4xb64-coslr-200e_in1k.py), but for float32 (``--amp`` trains in mixed
precision, on a GPU only).
"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)

# Every image in this folder and the folders in it. To resume, all of them must still be there; the
# folder may have gained images or be somewhere else.
data_root = 'data/images'
image_size = 224
batch_size = 64
# 0.03 for each 256 images of a batch.
learning_rate = 0.0075
max_epochs = 200
warmup_epochs = 5
# Images that are visited again and again before others come, and by how many they move on. None: a
# tenth of the images and an eighth of that, the authors' proportions; at least four batches.
window_size = None
stride = None

# Model
model = dict(
    type='PIC',
    # Augmentation, on the device: SimCLR's, as MoCo v2 has it.
    data_preprocessor=dict(
        type='AugmentPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        # A memory format in which a GPU is faster.
        channels_last=True,
        views=dict(
            jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8),
            grey=0.2,
            blur=dict(sigma=(0.1, 2.0), prob=0.5),
            flip=0.5)),
    backbone=dict(type='ResNet', depth=50, zero_init_residual=True),
    # in_channels=None: as many as the backbone gives.
    neck=dict(type='MoCoV2Neck', in_channels=None, hid_channels=2048, out_channels=128),
    # With fewer images than num_negatives the softmax runs over all of them.
    head=dict(type='PICHead', feat_dim=128, num_negatives=65536))

# Data
train_pipeline = [
    # 16-bit or float images: add value_range=(black, white).
    dict(type='DecodeRandomCrop', size=image_size, scale=(0.2, 1.0)),
    dict(type='PackInputs', meta_keys=('sample_idx', )),
]
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='SlidingWindowSampler', window_size=window_size, stride=stride),
    # Folders, .tar and .zip files, lists; what is read and what is one class: docs/your_data.md.
    dataset=dict(type='ImageFiles', data_root=data_root, pipeline=train_pipeline))

# What mmpretrain's FeatureExtractor and the like do with a picture. Nothing is evaluated on it: the
# images are those of the training.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=image_size * 8 // 7, edge='short'),
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(train_dataloader['dataset'], test_mode=True, pipeline=test_pipeline))
test_evaluator = []
test_cfg = dict()

# Schedule
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=learning_rate, momentum=0.9, weight_decay=1e-4))
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
auto_scale_lr = dict(base_batch_size=64)

# Running
custom_hooks = [dict(type='InstanceBankHook')]
default_hooks = dict(
    # mmengine's own, named for mmpretrain's vis_scheduler.py.
    param_scheduler=dict(type='ParamSchedulerHook'),
    logger=dict(type='LoggerHook', interval=50),
    # Two are kept, so that there is always a whole one.
    checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=2))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
