# SPDX-License-Identifier: Apache-2.0
"""Cityscapes segmentation: FCN, ResNet-50 with output stride 16, 90,000 iterations.

MoCo's protocol, the nearest to that of Table 8 of the PIC paper which mmseg's parts allow: the 3x3
convolutions of the last stage have stride 1 and dilation 2, two more of 256 channels and dilation 6
follow, then the classifier; no auxiliary loss; batch 16, learning rate 0.01, a tenth of it after
70 % and again after 90 % of the training, weight decay 1e-4. Of mmseg's own settings, photometric
distortion, the limit on one class's share of a crop, dropout, and inference in windows are turned
off. What differs still: images are enlarged to 2049x1025 for inference (its result is shrunk back),
as features are aligned at the corners, and the loss is averaged over all pixels of a crop, those
without a class included.

    mim train mmseg PATH/pic_fcn-d6_r50-d16_4xb4-90k_cityscapes-769x769.py --launcher pytorch
        --gpus 4 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = 'mmseg::fcn/fcn-d6_r50-d16_4xb2-80k_cityscapes-769x769.py'
custom_imports = dict(imports=['pic_plugin.transfer.segmentation'], allow_failed_imports=False)

# Checkpoint of PIC pre-training, or what extract_backbone made of it.
pretrained = None

# The base has RGB, the statistics of pre-training, SyncBN and no frozen stage.
model = dict(
    # The base's own weights, which the backbone's init_cfg replaces.
    pretrained=None,
    backbone=dict(
        # PIC's is a plain ResNet: in the base's ResNetV1c 15 tensors of the stem would stay random.
        type='ResNet',
        # All three blocks have dilation 2; the base's first one would have 1.
        contract_dilation=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    decode_head=dict(channels=256, num_convs=2, concat_input=False, dropout_ratio=0),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'))
custom_hooks = [
    dict(type='CheckPretrainedHook'),
    # Without it torch >= 2.6 refuses mmengine's checkpoints, in mim test and --resume.
    dict(type='mmpretrain.PlainCheckpointHook'),
]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2049, 1025), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(769, 769)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

train_cfg = dict(max_iters=90000, val_interval=9000)
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=1e-4))
param_scheduler = [
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=90000,
        milestones=[63000, 81000],
        gamma=0.1)
]
