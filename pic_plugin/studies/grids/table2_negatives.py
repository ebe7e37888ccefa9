# SPDX-License-Identifier: Apache-2.0
"""The paper's Table 2: number of negatives, with and without the correction of absent rows.

A row that is never touched shrinks by exp(-sum of learning rate / (1 - momentum) x weight decay)
in a training. With weight decay 5e-4 the sum is 0.09, so that it hardly matters whether absent rows
decay. In the paper's million steps it is about 15; the stronger decay here, of the class weights
alone, makes it 18.5.
"""
title = 'Negatives and the correction of class weights (paper, Table 2)'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 images seen in 468 '
           'steps. Weight decay is that of the class weights; the network has 5e-4 throughout.')
options = dict(config='pic_cifar10-5k.py', images=60000)
factors = {
    'weight decay': {
        '5e-4': {},
        '1e-1': {'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(decay_mult=200)))},
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
