# SPDX-License-Identifier: Apache-2.0
"""Demo: a small ResNet on the 5,000 CIFAR-10 images of this package, in minutes on a CPU.

It ends with the k-nearest-neighbour accuracy on 1,000 other images, of the trained network beside
the untrained one. Small images and few of them ask for other values than the authors' ImageNet
setting (pic_resnet50_4xb64-coslr-200e_in1k.py); a comment says where and why.
"""
_base_ = '../_base_/augmentation.py'

default_scope = 'mmpretrain'
custom_imports = dict(imports=['pic_plugin'], allow_failed_imports=False)

# Model
model = dict(
    type='PIC',
    # Colour jitter, greyscale and flip of whole batches at a time.
    data_preprocessor=dict(
        mean=[125.3, 123.0, 113.9],
        std=[63.0, 62.1, 66.7],
        # No blur: it would leave little of 32x32 pixels.
        views=dict(blur=None)),
    # A quarter of ResNet-18's width, for a CPU; a 3x3 stem without pooling, for 32x32 pixels.
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        # The first stage halves the resolution and not the second: a fifth less to compute.
        strides=(2, 1, 2, 2),
        # The authors start the last BatchNorm of a block at zero, for long trainings. In one this
        # short blocks should work from the start (6 epochs, one seed: kNN 33.4 % against 32.8 %,
        # about one standard error).
        zero_init_residual=False),
    # BatchNorm inside the projection (the authors have none): a short training at a high learning
    # rate is better with it.
    neck=dict(
        type='NonLinearNeck',
        in_channels=128,
        hid_channels=512,
        out_channels=128,
        with_last_bn=False,
        norm_cfg=dict(type='BN1d')),
    # A tenth of the classes, half of the authors' temperature, and rows that are turned to the
    # image's present feature when it returns: in a training this short better than a softmax over
    # all classes at 0.2 (docs/get_started.md). Turned rows are no longer exactly those of SGD.
    head=dict(
        type='PICHead',
        feat_dim=128,
        num_negatives=512,
        refresh_returning=1.0,
        loss=dict(type='CosineSoftmaxLoss', temperature=0.1)))

# Data
train_pipeline = [
    dict(type='DecodeRandomCrop', size=32, scale=(0.2, 1.0)),  # of arrays: nothing to decode
    dict(type='PackInputs', meta_keys=('sample_idx', )),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=False,
    # 5,000 is 39 batches and 8 images: no step on these 8.
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    # A fifth of the images: the authors' tenth would be 4 batches. Each is visited 16 times in
    # close succession, twice as often as the authors', as the first visit after a return teaches
    # little where its row is turned.
    sampler=dict(type='SlidingWindowSampler', window_size=1024, stride=64),
    dataset=dict(
        type='ImageGrid',
        img_file='cifar10_train_5000.webp',
        with_label=False,
        pipeline=train_pipeline))

# Evaluation: labels are used here alone.
pack_labelled = dict(type='PackInputs', meta_keys=('sample_idx', 'reference'))
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
                pipeline=[dict(type='MarkReference'), pack_labelled]),
            dict(type='ImageGrid', img_file='cifar10_test_1000.webp', pipeline=[pack_labelled]),
        ]))
val_evaluator = dict(type='KNNMetric', topk=(20, 200))
val_cfg = dict()

# What mmpretrain's FeatureExtractor and the like do with a picture. Nothing is evaluated on it.
test_pipeline = [
    dict(type='ResizeEdge', scale=32, edge='short'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=250,
    num_workers=0,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ImageGrid', img_file='cifar10_test_1000.webp', pipeline=test_pipeline))
test_evaluator = []
test_cfg = dict()

# Schedule: 20 passes are 100,000 images. The learning rate is 8 times the authors' for this batch,
# and the weight decay 5 times: there are only 780 steps.
max_epochs = 20
warmup_epochs = 2
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.12, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    # A tenth of the training.
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True),
    # It ends at a third of its peak: there are too few steps for a tail of small ones.
    dict(
        type='CosineAnnealingLR',
        eta_min=0.04,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True),
]
if warmup_epochs == 0:
    del param_scheduler[0]

# Running
custom_hooks = [dict(type='InstanceBankHook'), dict(type='CompareWithUntrainedHook')]
default_hooks = dict(
    # mmengine's own, named for mmpretrain's vis_scheduler.py.
    param_scheduler=dict(type='ParamSchedulerHook'),
    logger=dict(type='LoggerHook', interval=13),
    # Two are kept, so that there is always a whole one.
    checkpoint=dict(type='CheckpointHook', interval=4, max_keep_ckpts=2))
visualizer = dict(
    type='UniversalVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
        # For curves: pip install tensorboard, and
        # dict(type='TensorboardVisBackend'),
    ])
randomness = dict(seed=0)
