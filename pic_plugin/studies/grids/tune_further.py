# SPDX-License-Identifier: Apache-2.0
"""Four more tries for each method, from the best of its first six: temperature and end of the rate.

A lower temperature and a learning rate that does not end at zero came out better for PIC
(tune_pic_more.py), so the other two methods have to get the same chance.
"""
title = 'Four more tries for each method'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 forward passes, seed 100. '
           'Learning rate 0.06 for PIC (window 1024 / stride 128) and SimCLR, 0.03 for MoCo v2 '
           '(momentum 0.99); its end is that of the cosine.')
options = dict(passes=60000)
seeds = [100]
_temperature = 'model.head.temperature'
_methods = {
    'PIC': ({'config': 'pic_cifar10-5k.py', 'optim_wrapper.optimizer.lr': 0.06},
            'model.head.loss.temperature', 0.02),
    'SimCLR': ({'config': 'simclr_cifar10-5k.py', 'optim_wrapper.optimizer.lr': 0.06},
               _temperature, 0.02),
    'MoCo v2': ({'config': 'mocov2_cifar10-5k.py', 'optim_wrapper.optimizer.lr': 0.03},
                _temperature, 0.01),
}
factors = {'method, temperature, end of the learning rate': {}}
for _method, (_changes, _name, _third) in _methods.items():
    for _value, _end in ((0.2, 'a third'), (0.1, '0'), (0.1, 'a third'), (0.07, 'a third')):
        _label = f'{_method}, {_value}, {_end}'
        factors['method, temperature, end of the learning rate'][_label] = {
            **_changes, _name: _value,
            'param_scheduler.1.eta_min': 0.0 if _end == '0' else _third}
metrics = dict(knn20_train='kNN among training images', knn20='kNN of test images', linear='linear')
figure = dict(x='method, temperature, end of the learning rate', y='knn20_train', line=False)
