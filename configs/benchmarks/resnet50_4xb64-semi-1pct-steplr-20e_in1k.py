# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning with the labels of 1 % of ImageNet-1K.

The images are those of SimCLR's public list ``1percent.txt``, one file name a line, which is turned
into an annotation file by::

    python -m pic_plugin.tools.imagenet_subset 1percent.txt data/imagenet/train \
        --out data/imagenet/meta/train_1percent.txt

The authors published no settings for this that we know of (Table 7). This is the recipe of SwAV's
public eval_semisup.py: 20 epochs, batch 256, learning rate 0.02 for the backbone and 5 for the
classifier, times 0.2 at epochs 12 and 16, no weight decay. SwAV synchronises BatchNorm, this does
not.
"""
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=[
        'pic_plugin',
        'pic_plugin.engine.hooks.check_labels_hook',
        'pic_plugin.engine.hooks.check_pretrained_hook',
    ],
    allow_failed_imports=False)

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.')))
train_dataloader = dict(dataset=dict(ann_file='meta/train_1percent.txt'))

train_cfg = dict(by_epoch=True, max_epochs=20)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'head.fc': dict(lr_mult=250)}))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[12, 16], gamma=0.2)]
auto_scale_lr = dict(base_batch_size=256)

custom_hooks = [
    dict(type='CheckPretrainedHook'),
    dict(type='CheckLabelsHook'),
    dict(type='PlainCheckpointHook'),
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=5, max_keep_ckpts=2))
