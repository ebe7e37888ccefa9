# SPDX-License-Identifier: Apache-2.0
"""Linear evaluation on ImageNet-1K: a linear classifier on the frozen backbone.

The authors' setting: learning rate 30 for 256 images, 100 epochs, cosine, no weight decay, crops of
8 % to 100 % of the image. Give the checkpoint of a pre-training::

    python -m pic_plugin.tools.train resnet50_4xb64-linear-coslr-100e_in1k.py \
        --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/NAME/epoch_200.pth
"""
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_sgd_coslr_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=[
        'pic_plugin',
        'pic_plugin.engine.hooks.check_labels_hook',
        'pic_plugin.engine.hooks.check_pretrained_hook',
    ],
    allow_failed_imports=False)

model = dict(
    backbone=dict(
        frozen_stages=4,
        # Statistics of BatchNorm stay those of pre-training. The authors' main_linear.py freezes
        # parameters only, and its model.train() lets the statistics go on.
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.')))

# mmpretrain's schedule falls once an epoch, from the first. Options of the authors' script have a
# warm-up of 5 epochs and half precision by default as well, which their description does not name;
# of a convex problem of 100 epochs the end is not expected to depend on either (not tried).
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=30.0, momentum=0.9, weight_decay=0.0))
auto_scale_lr = dict(base_batch_size=256)

custom_hooks = [
    # Every weight must come from the checkpoint, and every weight of its backbone be used.
    dict(type='CheckPretrainedHook'),
    # A label that the classifier lacks would end in an error of the GPU that names nothing.
    dict(type='CheckLabelsHook'),
    dict(type='PlainCheckpointHook'),
]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=3))
