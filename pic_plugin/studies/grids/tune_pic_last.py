# SPDX-License-Identifier: Apache-2.0
"""PIC's own settings once more, from what tune_further.py found: batch, window, negatives."""
title = 'Last tuning of PIC'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 forward passes, seed 100. '
           'Temperature 0.1, learning rate 0.06 with its end at a third, batch 128, window 1024 / '
           'stride 128, but for what the first column says.')
options = {
    'config': 'pic_cifar10-5k.py',
    'passes': 60000,
    'optim_wrapper.optimizer.lr': 0.06,
    'param_scheduler.1.eta_min': 0.02,
    'model.head.loss.temperature': 0.1,
    'train_dataloader.batch_size': 128,
    'train_dataloader.sampler.window_size': 1024,
    'train_dataloader.sampler.stride': 128,
}
seeds = [100]
factors = {
    'setting': {
        'as it was': {},
        'batch 64': {'train_dataloader.batch_size': 64},
        'window 512 / 64': {'train_dataloader.sampler.window_size': 512,
                            'train_dataloader.sampler.stride': 64},
        'window 2048 / 256': {'train_dataloader.sampler.window_size': 2048,
                              'train_dataloader.sampler.stride': 256},
        '512 negatives': {'model.head.num_negatives': 512},
        '1024 negatives': {'model.head.num_negatives': 1024},
        '512 negatives, window 512 / 64': {'model.head.num_negatives': 512,
                                           'train_dataloader.sampler.window_size': 512,
                                           'train_dataloader.sampler.stride': 64},
        'batch 64, learning rate 0.12': {'train_dataloader.batch_size': 64,
                                         'optim_wrapper.optimizer.lr': 0.12,
                                         'param_scheduler.1.eta_min': 0.04},
    },
}
metrics = dict(knn20_train='kNN among training images', knn20='kNN of test images', linear='linear')
figure = dict(x='setting', y='knn20_train', line=False)
