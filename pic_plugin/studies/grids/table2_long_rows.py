# SPDX-License-Identifier: Apache-2.0
"""Where the paper's effect of the correction shows: rows too long to turn, unless they decay.

The cosine softmax sees the direction of a row alone, and a step turns a row by the learning rate
over the square of its length. So a hundredth of the learning rate is the same as rows ten times as
long. Training lengthens rows, as its gradient is at right angles to them; weight decay shortens
them again, also while they are absent - if that is corrected.
"""
# The same part of both learning rates.
_end = {'param_scheduler.1.eta_min': None, 'param_scheduler.1.eta_min_ratio': 1 / 3}
title = 'Negatives and the correction, rows ten times as long'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 images seen in 468 steps. '
           'Class weights have a hundredth of the learning rate, which is the same as starting '
           'ten times as long. Decay: the sum of learning rate / (1 - momentum) x weight decay '
           'over all steps; a row that is not touched shrinks by exp(-decay).')
options = {'config': 'pic_cifar10-5k.py', 'images': 60000, **_end}
factors = {
    'decay': {
        '0.55': {'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(
            lr_mult=0.01, decay_mult=600)))},
        '5.5': {'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(
            lr_mult=0.01, decay_mult=6000)))},
    },
    'absent rows': {
        'corrected': {'model.head.correct_weights': True},
        'left as they were': {'model.head.correct_weights': False},
    },
    'negatives': {
        '128': {'model.head.num_negatives': 128},
        '512': {'model.head.num_negatives': 512},
        'all 5,000': {'model.head.num_negatives': None},
    },
}
# Where all rows are in the softmax there is nothing to correct.
leave_out = [{'absent rows': 'left as they were', 'negatives': 'all 5,000'}]
metrics = dict(knn20='kNN, k = 20', knn200='kNN, k = 200', linear='linear')
figure = dict(x='negatives', y='knn20')
