# SPDX-License-Identifier: Apache-2.0
"""Six tries for mmpretrain's MoCo v2, as tune_pic.py."""
title = 'Tuning of MoCo v2'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 forward passes (30,000 '
           'images seen), seed 100. The choice is by accuracy among the training images, which '
           'leaves the test images unseen.')
options = {
    'config': 'mocov2_cifar10-5k.py',
    'passes': 60000,
    'model.head.temperature': 0.2,
    'param_scheduler.1.eta_min': 0.0,
}
seeds = [100]
factors = {
    'learning rate': {
        '0.03': {'optim_wrapper.optimizer.lr': 0.03},
        '0.06': {'optim_wrapper.optimizer.lr': 0.06},
        '0.12': {'optim_wrapper.optimizer.lr': 0.12},
    },
    'momentum': {
        '0.99': {},
        '0.95': {'model.momentum': 0.05},
    },
}
metrics = dict(knn20_train='kNN among training images', knn20='kNN of test images')
figure = dict(x='learning rate', y='knn20_train')
