# SPDX-License-Identifier: Apache-2.0
"""A grid that trains for seconds: two learning rates, toy_training.py."""
title = 'Learning rates'
caption = 'Forty images.'
options = dict(config='toy_training.py', images=160)
seeds = [0, 1]
factors = {
    'rate': {
        'low': {'optim_wrapper.optimizer.lr': 0.01},
        'high': {'optim_wrapper.optimizer.lr': 0.1},
    },
}
metrics = dict(knn20='kNN', linear='linear')
figure = dict(x='rate', y='knn20')
