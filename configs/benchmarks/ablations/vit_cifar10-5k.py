# SPDX-License-Identifier: Apache-2.0
"""A small ViT with AdamW in the place of the ResNet of pic_cifar10-5k.py, for grids."""
_base_ = 'pic_cifar10-5k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        arch=dict(embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384),
        img_size=32,
        patch_size=8,
        drop_path_rate=0.05,
        out_type='avg_featmap'),
    neck=dict(in_channels=96, with_avg_pool=False))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05))
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
        eta_min=1e-5,
        by_epoch=True,
        begin=2,
        end=20,
        convert_to_iter_based=True),
]
