# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 on ImageNet-1K, 200 epochs, one view: the authors' setting.

Every value is that of the PIC paper and its authors' code, unless a comment says otherwise. The
images lie in ``data/imagenet/train``, by class or not: no label is read.
"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)

# Model
model = dict(
    type='PIC',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    # Plain BatchNorm, not synchronised: with one view there is nothing for it to leak.
    backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='BN'), zero_init_residual=True),
    # fc - ReLU - fc, no BatchNorm.
    neck=dict(type='MoCoV2Neck', in_channels=2048, hid_channels=2048, out_channels=128),
    head=dict(
        type='PICHead',
        feat_dim=128,
        # DistributedDataParallel fixes the size of parameters before the data set is read.
        num_instances=1281167,
        # The authors' code has a softmax over all instances (num_negatives=None), 656 MB of
        # weights on each GPU with as much again for gradient and momentum. The paper's recent
        # negatives, which that code lacks, need a twentieth, and with the weight-update correction
        # hardly cost accuracy (its Table 2).
        num_negatives=65536,
        loss=dict(type='CosineSoftmaxLoss', temperature=0.2)))

# Data
train_pipeline = [
    # The authors stop at an image that cannot be read; this goes on without it, and says so.
    dict(type='LoadImageOrSkip'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/RandomResizedCrop', size=224, scale=(0.2, 1.0)),
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
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs', meta_keys=('sample_idx', )),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    # New workers in each epoch draw random numbers that depend on the epoch alone: exact resume.
    persistent_workers=False,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    # The window of the paper, which slides by the stride; that of the authors' code stands still or
    # is drawn anew. A new order for each pass, as with their option shuffle-per-epoch.
    sampler=dict(type='SlidingWindowSampler', window_size=131072, stride=16384, reshuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='data/imagenet',
        data_prefix='train',
        extensions=('.jpeg', ),
        with_label=False,
        pipeline=train_pipeline))

# Schedule
max_epochs = 200
warmup_epochs = 5
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
# Weight decay on everything, class weights, biases and BatchNorm included.
optim_wrapper = dict(
    # torch's mixed precision for apex; class weights, norms and softmax stay in float32.
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    # From lr / 100, over a fortieth of the epochs.
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
# For another number of GPUs, train with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=256)

# Running
custom_hooks = [dict(type='InstanceBankHook')]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=100),
    # A checkpoint comes with the class weights of all instances and their momentum, 1.3 GB.
    checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=3))
env_cfg = dict(cudnn_benchmark=True)
