# SPDX-License-Identifier: Apache-2.0
"""PIC beside SimCLR and MoCo v2 on photos of clothes, with what was tuned on CIFAR-10.

    python -m pic_plugin.tools.ablation run compare_methods_clothing.py --data-root FOLDER
"""
title = 'PIC, SimCLR and MoCo v2 on photos of clothes'
caption = ('3,068 photos of clothes (clothing-dataset-small), 48x48 pixels, ResNet-18 of a quarter '
           'width, 60,000 forward passes, one core; 713 other photos (one standard error of an '
           'accuracy is about 1.8). All values are those chosen on CIFAR-10.')
options = dict(passes=60000)
factors = {
    'method': {
        # One epoch at a learning rate of zero: BatchNorm has the statistics of the images.
        'random weights': {
            'config': 'pic_clothing.py', 'passes': 3068, 'optim_wrapper.optimizer.lr': 0.0,
            'param_scheduler': []},
        'PIC': {'config': 'pic_clothing.py'},
        'PIC, 512 negatives': {'config': 'pic_clothing.py', 'model.head.num_negatives': 512},
        'PIC, by epochs': {
            'config': 'pic_clothing.py',
            'train_dataloader.sampler': dict(_delete_=True, type='DefaultSampler', shuffle=True)},
        'SimCLR': {'config': 'simclr_clothing.py'},
        'MoCo v2': {'config': 'mocov2_clothing.py'},
    },
}
metrics = dict(
    knn20='kNN, k = 20',
    knn200='kNN, k = 200',
    linear='linear',
    images='images seen',
    ms_per_image='CPU ms an image',
    peak_mb='peak memory, MB')
figure = dict(x='method', y='knn20', line=False)
