# SPDX-License-Identifier: Apache-2.0
"""Half the chosen learning rate for each method, all else as chosen.

Among the first six tries 0.03 and 0.06 were level for PIC and SimCLR, and the lowest rate was the
best for MoCo v2: would less be better?
"""
title = 'Half the learning rate'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 forward passes, seed 100. '
           'PIC and SimCLR: 0.06 and 0.03, the end of the cosine at a third; MoCo v2: 0.03 and '
           '0.015, its end at 0.')
seeds = [100]
options = dict(passes=60000)
_half = {'optim_wrapper.optimizer.lr': 0.03, 'param_scheduler.1.eta_min': 0.01}
factors = {
    'method': {
        'PIC': {'config': 'pic_cifar10-5k.py'},
        'PIC, half': {'config': 'pic_cifar10-5k.py', **_half},
        'PIC, 512 negatives': {'config': 'pic_cifar10-5k.py', 'model.head.num_negatives': 512},
        'PIC, 512 negatives, half': {
            'config': 'pic_cifar10-5k.py', 'model.head.num_negatives': 512, **_half},
        'SimCLR': {'config': 'simclr_cifar10-5k.py'},
        'SimCLR, half': {'config': 'simclr_cifar10-5k.py', **_half},
        'MoCo v2': {'config': 'mocov2_cifar10-5k.py'},
        'MoCo v2, half': {'config': 'mocov2_cifar10-5k.py', 'optim_wrapper.optimizer.lr': 0.015},
    },
}
metrics = dict(knn20_train='kNN among training images', knn20='kNN of test images', linear='linear')
figure = dict(x='method', y='knn20_train', line=False)
