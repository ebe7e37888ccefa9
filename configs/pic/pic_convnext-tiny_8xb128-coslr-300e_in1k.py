# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt-T on ImageNet-1K, 300 epochs, one view.

Optimizer, warm-up and drop path are those of ConvNeXt's supervised training (arXiv 2201.03545),
which Swin's is like. Nobody has trained this at full length yet.
"""
_base_ = 'pic_resnet50_4xb64-coslr-200e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ConvNeXt', arch='tiny', drop_path_rate=0.1, with_cp=False),
    # ConvNeXt pools its last map and normalises what comes out: a vector.
    neck=dict(in_channels=768, with_avg_pool=False))

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    # 4e-3 for 4096 images.
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    # Swin's; ConvNeXt's training does not clip.
    clip_grad=dict(max_norm=5.0))
max_epochs = 300
warmup_epochs = 20
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
auto_scale_lr = dict(base_batch_size=1024)
