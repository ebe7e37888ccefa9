# SPDX-License-Identifier: Apache-2.0
"""PIC's own settings, tried one at a time after the six tries that each method had.

From learning rate 0.06 at batch 128, window 1024, stride 128: of tune_pic.py, level with the best.
"""
title = 'Further tuning of PIC'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 forward passes, seed 100. '
           'Learning rate 0.06, batch 128, window 1024 / stride 128, temperature 0.2, cosine to 0, '
           'but for what the first column says.')
options = {
    'config': 'pic_cifar10-5k.py',
    'passes': 60000,
    'optim_wrapper.optimizer.lr': 0.06,
    'model.head.loss.temperature': 0.2,
    'param_scheduler.1.eta_min': 0.0,
}
seeds = [100]
_head = 'optim_wrapper.paramwise_cfg'
factors = {
    'setting': {
        'as it was': {},
        'batch 64': {'train_dataloader.batch_size': 64},
        'batch 32': {'train_dataloader.batch_size': 32},
        'learning rate to a third': {'param_scheduler.1.eta_min': 0.02},
        'temperature 0.1': {'model.head.loss.temperature': 0.1},
        'temperature 0.4': {'model.head.loss.temperature': 0.4},
        'class weights 1/3 of the learning rate': {
            _head: dict(custom_keys=dict(head=dict(lr_mult=1 / 3)))},
        'class weights 3 times the learning rate': {
            _head: dict(custom_keys=dict(head=dict(lr_mult=3.0)))},
        'window 2048 / 256': {'train_dataloader.sampler.window_size': 2048,
                              'train_dataloader.sampler.stride': 256},
        'window 1024 / 512': {'train_dataloader.sampler.stride': 512},
        '512 negatives': {'model.head.num_negatives': 512},
    },
}
metrics = dict(knn20_train='kNN among training images', knn20='kNN of test images', linear='linear')
figure = dict(x='setting', y='knn20_train', line=False)
