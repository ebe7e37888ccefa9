# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's SimCLR with the images, backbone, projection and augmentation of PIC's trainings.

Two views of each image: 64 images are as many forward passes as 128 images of PIC.
"""
_base_ = 'pic_cifar10-5k.py'
num_views = 2

model = dict(
    type='SimCLR',
    head=dict(
        _delete_=True,
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.1))
train_dataloader = dict(
    batch_size=64,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=[
        dict(type='MultiView', num_views=2, transforms=[{{_base_.view_pipeline}}]),
        {{_base_.pack}},
    ]))
custom_hooks = [dict(type='PlainCheckpointHook')]
# Learning rate and its end are PIC's: its tries came out best with the same (tune_simclr.py,
# tune_further.py).
