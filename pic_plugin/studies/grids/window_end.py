# SPDX-License-Identifier: Apache-2.0
"""Are features worse right after the window has moved to images not seen for long?

Accuracy within the windows of the last 64 steps, with the learning rate of the cosine and with a
constant one, at which the network follows the window more.
"""
title = 'Features within a window, by quarter'
caption = ('4,992 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 images seen; kNN among the '
           'training images (k = 20), mean over the windows of the last 64 steps. Half of each '
           'window is new.')
options = {
    'config': 'pic_cifar10-5k.py',
    'images': 60000,
    # Whole batches: the end of a window is the end of a step.
    'train_dataloader.dataset.indices': 4992,
}
factors = {
    'learning rate': {
        'cosine': {},
        'constant': {'param_scheduler': [dict(
            type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1,
            convert_to_iter_based=True)]},
    },
    'window / stride': {
        '1024 / 512': {
            'train_dataloader.sampler.window_size': 1024,
            'train_dataloader.sampler.stride': 512,
            'window_phase': dict(period=8, begin=404)},
        '4096 / 2048': {
            'train_dataloader.sampler.window_size': 4096,
            'train_dataloader.sampler.stride': 2048,
            'window_phase': dict(period=32, begin=404)},
    },
}
metrics = dict(
    quarter1='after a quarter',
    quarter2='after a half',
    quarter3='after three quarters',
    quarter4='at the end of a window',
    knn20='kNN of test images, at the end of training')
figure = dict(x='window / stride', y='quarter4')
