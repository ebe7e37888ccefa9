# SPDX-License-Identifier: Apache-2.0
"""PIC on 40 images, 5 steps an epoch, in the form that grids need."""
default_scope = 'mmpretrain'
custom_imports = dict(
    imports=['pic_plugin', 'pic_plugin.studies.ablation'], allow_failed_imports=False)
num_images = 40
num_views = 1
model = dict(
    type='PIC',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[125, 123, 114], std=[63, 62, 67]),
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8),
    neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=8, out_channels=8),
    head=dict(type='PICHead', feat_dim=8, num_negatives=24))
pack = dict(type='PackInputs', meta_keys=('sample_idx', 'reference'))
train_dataloader = dict(
    batch_size=8, num_workers=0, collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageGrid', img_file='cifar10_test_1000.webp', indices=40,
                 with_label=False, pipeline=[dict(type='RandomFlip', prob=0.5), pack]),
    sampler=dict(type='SlidingWindowSampler', window_size=16, stride=8))
val_dataloader = dict(
    batch_size=20, num_workers=0, collate_fn=dict(type='default_collate'),
    dataset=dict(type='ConcatDataset', datasets=[
        dict(type='ImageGrid', img_file='cifar10_test_1000.webp',
             indices=list(range(0, 1000, 4)), pipeline=[dict(type='MarkReference'), pack]),
        dict(type='ImageGrid', img_file='cifar10_test_1000.webp',
             indices=list(range(1, 1000, 50)), pipeline=[pack])]),
    sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=1, begin=1, end=2, convert_to_iter_based=True)]
custom_hooks = [dict(type='InstanceBankHook')]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1),
                     checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2))
