# SPDX-License-Identifier: Apache-2.0
"""Table 2 under AdamW: number of negatives, with and without the correction of absent rows.

    python -m pic_plugin.tools.ablation pic_plugin/studies/grids/_table2_adamw.py

Most systems that sample classes leave absent rows as they were under AdamW. There are no results
yet: with them the file loses its underscore, and tests look at it as at the other grids.
"""
title = 'Negatives under AdamW, and the correction of class weights'
caption = ('5,000 CIFAR-10 images, a small ViT, AdamW for network and class weights, 60,000 images '
           'seen.')
options = dict(config='vit_cifar10-5k.py', images=60000)
factors = {
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
