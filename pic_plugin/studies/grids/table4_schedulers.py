# SPDX-License-Identifier: Apache-2.0
"""The paper's Table 4: epochs or sliding window, for several lengths of training."""
title = 'Epochs and sliding window (paper, Table 4)'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width. Equal numbers of images seen in '
           'each column pair.')
options = dict(config='pic_cifar10-5k.py')
factors = {
    'scheduler': {
        'epochs': {
            'train_dataloader.sampler': dict(_delete_=True, type='DefaultSampler', shuffle=True)},
        'sliding window': {},
    },
    'images seen': {
        '30,000': {'images': 30000},
        '60,000': {'images': 60000},
        '120,000': {'images': 120000},
    },
}
metrics = dict(knn20='kNN, k = 20', knn200='kNN, k = 200', linear='linear')
figure = dict(x='images seen', y='knn20')
