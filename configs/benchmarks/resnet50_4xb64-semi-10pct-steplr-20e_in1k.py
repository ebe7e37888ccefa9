# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning with the labels of 10 % of ImageNet-1K, as with 1 %.

SwAV's learning rates for this part are 0.01 for the backbone and 0.2 for the classifier.
"""
_base_ = 'resnet50_4xb64-semi-1pct-steplr-20e_in1k.py'

train_dataloader = dict(dataset=dict(ann_file='meta/train_10percent.txt'))
optim_wrapper = dict(
    optimizer=dict(lr=0.01), paramwise_cfg=dict(custom_keys={'head.fc': dict(lr_mult=20)}))
