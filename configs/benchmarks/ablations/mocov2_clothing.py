# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's MoCo v2 on photos of clothes, as mocov2_cifar10-5k.py."""
_base_ = 'simclr_clothing.py'

model = dict(type='MoCo', queue_len=1024, feat_dim=128, momentum=0.01)
