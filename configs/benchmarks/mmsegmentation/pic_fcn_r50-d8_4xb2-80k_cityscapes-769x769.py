# SPDX-License-Identifier: Apache-2.0
"""Cityscapes segmentation: mmseg's own FCN, ResNet-50 with output stride 8, 80,000 iterations.

For comparison with mmseg's published models: head, data and schedule are theirs, the backbone is a
plain ResNet as pre-trained (theirs has a deeper stem). The protocol of the papers on
self-supervised learning is in pic_fcn-d6_r50-d16_4xb4-90k_cityscapes-769x769.py.

    mim train mmseg PATH/pic_fcn_r50-d8_4xb2-80k_cityscapes-769x769.py --launcher pytorch --gpus 4
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-80k_cityscapes-769x769.py'
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
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')))
custom_hooks = [
    dict(type='CheckPretrainedHook'),
    # Without it torch >= 2.6 refuses mmengine's checkpoints, in mim test and --resume.
    dict(type='mmpretrain.PlainCheckpointHook'),
]
