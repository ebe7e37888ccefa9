# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's MoCo v2 on photos of clothes, as mocov2_cifar10-5k.py."""
_base_ = 'pic_clothing.py'
num_views = 2

model = dict(
    type='MoCo',
    queue_len=1024,
    feat_dim=128,
    momentum=0.01,
    head=dict(
        _delete_=True,
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.2))
train_dataloader = dict(
    batch_size=64,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=[
        dict(type='MultiView', num_views=2, transforms=[{{_base_.view_pipeline}}]),
        {{_base_.pack}},
    ]))
custom_hooks = [dict(type='PlainCheckpointHook')]
# As its tries came out best (tune_mocov2.py, tune_further.py).
optim_wrapper = dict(optimizer=dict(lr=0.03))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=1,
        end=20,
        convert_to_iter_based=True),
]
