# SPDX-License-Identifier: Apache-2.0
"""ViT-S/16 on ImageNet-1K, 300 epochs, one view: PIC with the recipe of transformers.

The PIC paper has no transformers. Data, window and head are those of its ResNet-50 setting;
network, learning rate, weight decay and warm-up are those of MoCo v3 (arXiv 2104.02057), and what
MoCo v3 does without (comments name it) is DINO's (arXiv 2104.14294). Nobody has trained this at
full length yet.
"""
_base_ = 'pic_resnet50_4xb64-coslr-200e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        # mmpretrain's VisionTransformer with MoCo v3's 12 heads, fixed sine-cosine positions and
        # its trick for stability: the patch embedding stays as random as it begins.
        type='MoCoV3ViT',
        arch='mocov3-small',
        img_size=224,
        patch_size=16,
        stop_grad_conv1=True,
        # DINO's; MoCo v3 has none.
        drop_path_rate=0.1,
        # The class token. 'avg_featmap' is the mean over patches; docs/transformers.md.
        out_type='cls_token'),
    # No pooling: a class token is a vector already.
    neck=dict(in_channels=384, with_avg_pool=False))

train_dataloader = dict(batch_size=128)
max_epochs = 300
warmup_epochs = 40
warmup_epochs = min(warmup_epochs, max_epochs // 2)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='AdamW',
        # MoCo v3: 1.5e-4 for each 256 images.
        lr=6e-4,
        weight_decay=0.1),
    # No decay on what is not a matrix of weights, as in DINO; class weights have it. MoCo v3 decays
    # everything.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
        }),
    # DINO's; MoCo v3 does not clip.
    clip_grad=dict(max_norm=3.0))
param_scheduler = [
    # MoCo v3's 40 epochs.
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        # DINO's; MoCo v3 ends at 0.
        eta_min=1e-6,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True),
]
if warmup_epochs == 0:
    del param_scheduler[0]
auto_scale_lr = dict(base_batch_size=1024)
