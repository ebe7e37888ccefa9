# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC 07+12 detection: Faster R-CNN, ResNet-50 C4, 24,000 iterations.

MoCo's protocol, as in Table 8 of the PIC paper, on mmdet's C4 detector: every layer is trained, BN
is synchronised, a new norm follows res5, 8 GPUs with 2 images each. What mmdet has otherwise than
Detectron2: objects marked difficult are ignored in training (there they count), and BN statistics
are running averages to the end (there they are measured anew before each evaluation).

    mim train mmdet PATH/pic_faster-rcnn_r50-c4_ms-24k_voc0712.py --launcher pytorch --gpus 8
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py'
custom_imports = dict(imports=['pic_plugin.transfer.detection'], allow_failed_imports=False)

# Checkpoint of PIC pre-training, or what extract_backbone made of it.
pretrained = None

norm_cfg = dict(type='SyncBN', requires_grad=True)
trained = dict(norm_cfg=norm_cfg, norm_eval=False, style='pytorch')
model = dict(
    # RGB, and the statistics of pre-training: the base has those of a Caffe network.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        frozen_stages=-1,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.'),
        **trained),
    roi_head=dict(
        shared_head=dict(
            type='ResLayerExtraNorm',
            # None: from the backbone's file, by the hook below.
            init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
            **trained)))
custom_hooks = [
    dict(
        type='CheckPretrainedHook',
        modules=['backbone', 'roi_head.shared_head'],
        ignore=['roi_head.shared_head.norm.']),
    # Without it torch >= 2.6 refuses mmengine's checkpoints, in mim test and --resume.
    dict(type='mmpretrain.PlainCheckpointHook'),
]

# The base lacks ignore_keys, without which the two years do not go into one data set.
train_dataloader = dict(dataset=dict(ignore_keys=['dataset_type']))

train_cfg = dict(max_iters=24000, val_interval=24000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=24000,
        milestones=[18000, 22000],
        gamma=0.1),
]
# AP50, AP75 and, as mAP, their mean from 0.5 to 0.95.
val_evaluator = dict(iou_thrs=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
test_evaluator = val_evaluator
