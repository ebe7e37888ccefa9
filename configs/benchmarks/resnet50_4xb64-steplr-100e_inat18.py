# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on iNaturalist 2018: 437,513 training and 24,426 validation images, 8,142 species.

``data/inat2018`` has ``train2018.json``, ``val2018.json`` and ``train_val2018/``, as the archives
of the competition unpack. The authors published no settings for this that we know of; this is the
recipe of MoCo's appendix: all layers, 100 epochs, batch 256, learning rate 0.025, a tenth of it
from epoch 70 and again from 90.
"""
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_sgd_steplr_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=[
        'pic_plugin',
        'pic_plugin.engine.hooks.check_labels_hook',
        'pic_plugin.engine.hooks.check_pretrained_hook',
    ],
    allow_failed_imports=False)

data_root = 'data/inat2018'

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.')),
    head=dict(num_classes=8142))
# The data preprocessor of the base says 1000.
data_preprocessor = dict(num_classes=8142)

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='INaturalist2018',
        data_root=data_root,
        ann_file='train2018.json',
        pipeline={{_base_.train_pipeline}}))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='INaturalist2018',
        data_root=data_root,
        ann_file='val2018.json',
        test_mode=True,
        pipeline={{_base_.test_pipeline}}))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.025, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[70, 90], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=256)

custom_hooks = [
    dict(type='CheckPretrainedHook'),
    dict(type='CheckLabelsHook'),
    dict(type='PlainCheckpointHook'),
]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=2))
