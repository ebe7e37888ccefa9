# SPDX-License-Identifier: Apache-2.0
"""The paper's Table 3: size and stride of the window."""
title = 'Window and stride (paper, Table 3)'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 images seen. An image is '
           'visited window / stride times in close succession.')
options = dict(config='pic_cifar10-5k.py', images=60000)
factors = {
    'window': {
        '256': {'train_dataloader.sampler.window_size': 256},
        '1024': {'train_dataloader.sampler.window_size': 1024},
        '4096': {'train_dataloader.sampler.window_size': 4096},
    },
    'stride': {
        '32': {'train_dataloader.sampler.stride': 32},
        '128': {'train_dataloader.sampler.stride': 128},
        '512': {'train_dataloader.sampler.stride': 512},
        '2048': {'train_dataloader.sampler.stride': 2048},
    },
}
# Wider than the window, or 32 visits and more of an image at a time.
leave_out = [
    {'window': '256', 'stride': '512'},
    {'window': '256', 'stride': '2048'},
    {'window': '1024', 'stride': '2048'},
    {'window': '1024', 'stride': '32'},
    {'window': '4096', 'stride': '32'},
    {'window': '4096', 'stride': '128'},
]
metrics = dict(knn20='kNN, k = 20', knn200='kNN, k = 200', linear='linear')
figure = dict(x='stride', y='knn20')
