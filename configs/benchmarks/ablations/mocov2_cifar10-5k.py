# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's MoCo v2, as simclr_cifar10-5k.py.

Its second encoder's passes count, although nothing is propagated back through them. The ImageNet
momentum of 0.001 and queue of 65,536 are for 10^6 steps; these are for 10^3.
"""
_base_ = 'simclr_cifar10-5k.py'

model = dict(type='MoCo', queue_len=1024, feat_dim=128, momentum=0.01)
