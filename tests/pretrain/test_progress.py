# SPDX-License-Identifier: Apache-2.0
"""Lines of progress by a clock that is set."""
from types import SimpleNamespace

import torch

from pic_plugin.pretrain.progress import ProgressHook


class Training:
    """Steps of 10 images, each of 1 s for loading and 1 s for the network, but for the pause."""

    def __init__(self, num_steps, num_workers=2):
        self.now = 0.0
        self.lines = []
        self.hook = ProgressHook(self.lines.append, 8.0, lambda: self.now)
        self.runner = SimpleNamespace(
            epoch=3, iter=0, max_iters=num_steps,
            train_dataloader=SimpleNamespace(batch_size=10, num_workers=num_workers))
        self.hook.before_train(self.runner)
        self.hook.before_train_epoch(self.runner)

    def step(self, loading=1.0, computing=1.0):
        self.now += loading
        self.hook.before_train_iter(self.runner, 0)
        self.now += computing
        self.hook.after_train_iter(self.runner, 0, outputs=dict(loss=torch.tensor(2.5)))
        self.runner.iter += 1


def test_rate_share_and_time_left():
    training = Training(100)
    for _ in range(3):
        training.step()
    assert not training.lines
    training.step()
    assert training.lines == ['40 of 1,000 images (4 %), 5 images/s, 50 % of the time waiting for '
                              'pictures, loss 2.500, 3 min left']


def test_each_line_is_about_the_time_since_the_last():
    training = Training(100)
    for _ in range(4):
        training.step()
    for _ in range(2):
        training.step(loading=0.0, computing=4.0)
    assert '2 images/s, 0 % of the time' in training.lines[-1]


def test_the_hint_comes_once_and_only_with_workers():
    training = Training(100)
    for _ in range(4):
        training.step(loading=8.0)
    assert sum('more loader workers' in line for line in training.lines) == 1
    training = Training(100, num_workers=0)
    training.step(loading=8.0)
    assert not any('more loader workers' in line for line in training.lines)


def test_the_last_step_always_has_a_line_and_nothing_left():
    training = Training(1)
    training.step()
    assert training.lines[0].startswith('10 of 10 images (100 %)')
    assert 'left' not in training.lines[0]


def test_evaluation_is_no_training_time():
    training = Training(100)
    training.step()
    training.now += 1000
    training.hook.after_val_epoch(training.runner, {'knn/top1_k20': 31.25})
    assert training.lines == ['labels (epoch 3, 10 images): knn/top1_k20 31.2 %']
    training.hook.before_train_epoch(training.runner)
    for _ in range(4):
        training.step()
    assert '5 images/s' in training.lines[-1]
