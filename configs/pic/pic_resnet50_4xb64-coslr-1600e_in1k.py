# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 on ImageNet-1K, 1600 epochs, one view.

Only the length differs from the 200 epochs that this starts from, and with it the warm-up: a
fortieth of the epochs. The authors' code is said to turn NaN at this length: see
docs/numerical_health.md.
"""
_base_ = 'pic_resnet50_4xb64-coslr-200e_in1k.py'

max_epochs = 1600
warmup_epochs = 40
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
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
