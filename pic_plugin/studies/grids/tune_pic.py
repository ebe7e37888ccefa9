# SPDX-License-Identifier: Apache-2.0
"""Six tries for PIC, as many as for the other two methods, with a seed that is not used again."""
title = 'Tuning of PIC'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 forward passes, seed 100. '
           'The choice is by accuracy among the training images, which leaves the test images '
           'unseen.')
options = {
    'config': 'pic_cifar10-5k.py',
    'passes': 60000,
    'model.head.loss.temperature': 0.2,
    'param_scheduler.1.eta_min': 0.0,
}
seeds = [100]
factors = {
    'learning rate': {
        '0.03': {'optim_wrapper.optimizer.lr': 0.03},
        '0.06': {'optim_wrapper.optimizer.lr': 0.06},
        '0.12': {'optim_wrapper.optimizer.lr': 0.12},
    },
    'window / stride': {
        '512 / 64': {'train_dataloader.sampler.window_size': 512,
                     'train_dataloader.sampler.stride': 64},
        '1024 / 128': {'train_dataloader.sampler.window_size': 1024,
                       'train_dataloader.sampler.stride': 128},
    },
}
metrics = dict(knn20_train='kNN among training images', knn20='kNN of test images')
figure = dict(x='learning rate', y='knn20_train')
