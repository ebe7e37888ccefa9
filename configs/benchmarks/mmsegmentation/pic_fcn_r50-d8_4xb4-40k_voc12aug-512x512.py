# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC 2012 segmentation with the additional training set: mmseg's FCN, 40,000 iterations.

Head, data and schedule are mmseg's, the backbone is a plain ResNet-50 as pre-trained (theirs has a
deeper stem).

    mim train mmseg PATH/pic_fcn_r50-d8_4xb4-40k_voc12aug-512x512.py --launcher pytorch --gpus 4
        --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py'
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
