# SPDX-License-Identifier: Apache-2.0
"""A config that trains for a second: 40 images of CIFAR-10, two epochs of five steps.

Without ``custom_imports``: the tools import pic_plugin themselves.
"""
default_scope = 'mmpretrain'
model = dict(
    type='PIC',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[125, 123, 114], std=[63, 62, 67]),
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
    neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=8, out_channels=8),
    head=dict(type='PICHead', feat_dim=8, num_negatives=24))
pack = dict(type='PackInputs', meta_keys=('sample_idx', 'reference'))
train_dataloader = dict(
    batch_size=8, num_workers=0,
    dataset=dict(type='ImageGrid', img_file='cifar10_test_1000.webp', indices=40, pipeline=[pack]),
    sampler=dict(type='SlidingWindowSampler', window_size=16, stride=8))
val_dataloader = dict(
    batch_size=20, num_workers=0,
    dataset=dict(type='ConcatDataset', datasets=[
        # Of all classes: the images are in the order of their classes. 250 and 125 of them, an
        # uneven number together.
        dict(type='ImageGrid', img_file='cifar10_test_1000.webp', indices=list(range(0, 1000, 4)),
             pipeline=[dict(type='MarkReference'), pack]),
        dict(type='ImageGrid', img_file='cifar10_test_1000.webp', indices=list(range(1, 1000, 8)),
             pipeline=[pack])]),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='KNNMetric', topk=5)
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=2)
val_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
auto_scale_lr = dict(base_batch_size=16)
custom_hooks = [dict(type='InstanceBankHook')]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1),
                     checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=0)
