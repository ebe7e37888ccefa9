# SPDX-License-Identifier: Apache-2.0
"""Why few negatives cost accuracy in table2_negatives.py: class weights without momentum.

A row that leaves the softmax coasts on its momentum, unless it is left as it was. Without momentum
nothing but weight decay is left to correct. With momentum m a gradient, and the decay of a step,
move a row by 1 / (1 - m) times the learning rate in the end: ten times the learning rate without
momentum is as much of both.
"""
# The same part of both learning rates.
_end = {'param_scheduler.1.eta_min': None, 'param_scheduler.1.eta_min_ratio': 1 / 3}
title = 'Few negatives, class weights with and without momentum'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 images seen in 468 steps, '
           '128 negatives. Without momentum class weights have 10 times the learning rate, so '
           'that a gradient moves them as far in the end. The network has momentum 0.9 '
           'throughout.')
options = {'config': 'pic_cifar10-5k.py', 'images': 60000, 'model.head.num_negatives': 128}
factors = {
    'class weights': {
        'momentum 0.9, decay 5e-4': {},
        'momentum 0.9, decay 1e-1': {
            'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(decay_mult=200)))},
        'momentum 0, decay 5e-4': {
            **_end,
            'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(
                momentum=0.0, lr_mult=10, decay_mult=1)))},
        'momentum 0, decay 1e-1': {
            **_end,
            'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(head=dict(
                momentum=0.0, lr_mult=10, decay_mult=200)))},
    },
    'absent rows': {
        'corrected': {'model.head.correct_weights': True},
        'left as they were': {'model.head.correct_weights': False},
    },
}
metrics = dict(knn20='kNN, k = 20', knn200='kNN, k = 200', linear='linear')
figure = dict(x='class weights', y='knn20', line=False)
