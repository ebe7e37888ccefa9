# SPDX-License-Identifier: Apache-2.0
"""What the study of saliency trains: the demo with a softmax over all classes, for 30 passes.

It keeps the values that the study was made with; docs/results/saliency/reproduce.sh runs it.
"""
_base_ = ['../../pic/pic_demo.py']

model = dict(
    head=dict(num_negatives=None, refresh_returning=0.0, loss=dict(temperature=0.2)))
train_dataloader = dict(sampler=dict(stride=128))
train_cfg = dict(max_epochs=30, val_interval=15)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.04,
        by_epoch=True,
        begin=2,
        end=30,
        convert_to_iter_based=True),
]
