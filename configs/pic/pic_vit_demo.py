# SPDX-License-Identifier: Apache-2.0
"""Demo with a small vision transformer and AdamW on the 5,000 CIFAR-10 images of this package.

Data and evaluation are those of pic_demo.py. The network is a ViT-Ti/8 with half the width and
depth: 16 patches of 8x8 pixels, so that it takes minutes on a CPU. Recent negatives under AdamW are
used on purpose: 1,024 of the 5,000 classes, with the exact correction.
"""
_base_ = 'pic_demo.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        arch=dict(embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384),
        img_size=32,
        patch_size=8,
        drop_path_rate=0.05,
        # The mean over patches, as the ResNet of the demo has it; 'cls_token' works too.
        out_type='avg_featmap'),
    neck=dict(in_channels=96, with_avg_pool=False),
    # Exact: no row is turned.
    head=dict(num_negatives=1024, refresh_returning=0.0, loss=dict(temperature=0.2)))

# The window holds 1,024 images: the classes of the softmax are those of the window.
train_dataloader = dict(sampler=dict(stride=128))
max_epochs = 30
warmup_epochs = 3
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(max_epochs=max_epochs, val_interval=15)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
        }))
param_scheduler = [
    # Transformers ask for a longer warm-up: a tenth of the training.
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True),
]
if warmup_epochs == 0:
    del param_scheduler[0]
