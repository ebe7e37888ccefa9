# SPDX-License-Identifier: Apache-2.0
"""PIC beside mmpretrain's SimCLR and MoCo v2, each as its tries came out best.

The 512 negatives are PIC's own further tuning (tune_pic_last.py).
"""
title = 'PIC, SimCLR and MoCo v2 at equal numbers of forward passes'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, one core; 1,000 test images (one '
           'standard error of an accuracy is about 1.5). SimCLR and MoCo v2 take two passes for '
           'an image: equal images seen are their row and that of PIC with half the passes.')
factors = {
    'method': {
        'PIC': {'config': 'pic_cifar10-5k.py'},
        'PIC, 512 negatives': {'config': 'pic_cifar10-5k.py', 'model.head.num_negatives': 512},
        'SimCLR': {'config': 'simclr_cifar10-5k.py'},
        'MoCo v2': {'config': 'mocov2_cifar10-5k.py'},
    },
    'forward passes': {
        '30,000': {'passes': 30000},
        '60,000': {'passes': 60000},
        '120,000': {'passes': 120000},
    },
}
metrics = dict(
    knn20='kNN, k = 20',
    knn200='kNN, k = 200',
    linear='linear',
    images='images seen',
    ms_per_image='CPU ms an image',
    peak_mb='peak memory, MB')
figure = dict(x='forward passes', y='knn20')
