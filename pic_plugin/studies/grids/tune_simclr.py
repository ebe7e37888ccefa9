# SPDX-License-Identifier: Apache-2.0
"""Six tries for mmpretrain's SimCLR, as tune_pic.py."""
title = 'Tuning of SimCLR'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 forward passes (30,000 '
           'images seen), seed 100. The choice is by accuracy among the training images, which '
           'leaves the test images unseen.')
options = {
    'config': 'simclr_cifar10-5k.py',
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
    'temperature': {
        '0.2': {},
        '0.5': {'model.head.temperature': 0.5},
    },
}
metrics = dict(knn20_train='kNN among training images', knn20='kNN of test images')
figure = dict(x='learning rate', y='knn20_train')
