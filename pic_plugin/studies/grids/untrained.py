# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the tables' networks before any training.

One epoch at a learning rate of zero: weights stay random, and BatchNorm has the statistics of the
images.
"""
title = 'Random weights'
caption = ('Networks of the tables below as they begin: 5,000 CIFAR-10 images, ResNet-18 of a '
           'quarter width, with the statistics of BatchNorm taken from one pass over the images.')
options = {
    'config': 'pic_cifar10-5k.py',
    'images': 5000,
    'optim_wrapper.optimizer.lr': 0.0,
    'param_scheduler': [],
}
factors = {'weights': {'random': {}}}
metrics = dict(knn20='kNN, k = 20', knn200='kNN, k = 200', linear='linear')
figure = dict(x='weights', y='knn20', line=False)
