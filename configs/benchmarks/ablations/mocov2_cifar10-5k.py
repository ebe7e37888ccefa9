# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's MoCo v2, as simclr_cifar10-5k.py.

Its second encoder's passes count, although nothing is propagated back through them. The ImageNet
momentum of 0.001 and queue of 65,536 are for 10^6 steps; these are for 10^3.
"""
_base_ = 'simclr_cifar10-5k.py'

model = dict(
    type='MoCo', queue_len=1024, feat_dim=128, momentum=0.01, head=dict(temperature=0.2))
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
