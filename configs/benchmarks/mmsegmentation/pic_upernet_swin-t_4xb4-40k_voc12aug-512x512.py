# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC 2012 segmentation: UPerNet with a Swin-T that PIC has pre-trained.

Head and optimizer are those that mmseg has for Swin on ADE20K, the data and the 40,000 iterations
those that it has for VOC.

    mim train mmseg PATH/pic_upernet_swin-t_4xb4-40k_voc12aug-512x512.py --launcher pytorch --gpus 4
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/datasets/pascal_voc12_aug.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_40k.py',
]
custom_imports = dict(imports=['pic_plugin.transfer.segmentation'], allow_failed_imports=False)

# Checkpoint of PIC pre-training with this backbone, or what extract_backbone made of it.
pretrained = None

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        # mmseg's own has other names of weights.
        type='mmpretrain.SwinTransformer',
        arch='tiny',
        img_size=224,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        # Pictures have all sizes.
        pad_small_map=True,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21))
custom_hooks = [
    # Norms of the stages that pre-training did not output are new.
    dict(
        type='CheckPretrainedHook',
        ignore=['backbone.norm0.', 'backbone.norm1.', 'backbone.norm2.']),
    # Without it torch >= 2.6 refuses mmengine's checkpoints, in mim test and --resume.
    dict(type='mmpretrain.PlainCheckpointHook'),
]

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.00006, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.),
            relative_position_bias_table=dict(decay_mult=0.),
            norm=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=40000),
]
