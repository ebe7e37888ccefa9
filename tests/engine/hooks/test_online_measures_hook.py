# SPDX-License-Identifier: Apache-2.0
"""Measures during training, and that training does not notice them."""
import numpy as np
import pytest
import torch

from pic_plugin.engine.hooks.online_measures_hook import OnlineMeasuresHook, OnlineProbe
from toys.training import assert_equal, snapshot, train

LABELLED = [dict(type='ToyPixels'), dict(type='PackInputs', meta_keys=('sample_idx', ))]
HOOKS = [dict(type='InstanceBankHook'), dict(type='RecordLoss')]
PROBE = dict(type='OnlineMeasuresHook', num_classes=3, interval=2)


def history(runner, name):
    return runner.message_hub.get_scalar(f'train/{name}').data[0]


def test_training_is_the_same_to_the_bit(tmp_path):
    """In particular, the probe's gradient does not reach the network."""
    without = train(tmp_path / 'without', max_epochs=2, seed=0, pipeline=LABELLED)
    with_hook = train(tmp_path / 'with', max_epochs=2, seed=0, pipeline=LABELLED,
                      custom_hooks=[*HOOKS, PROBE])
    assert without.losses == with_hook.losses
    assert_equal(snapshot(with_hook), snapshot(without))
    accuracies = history(with_hook, 'probe_acc')
    assert len(accuracies) == 14 and 0 <= np.min(accuracies) and np.max(accuracies) <= 100
    ranks = history(with_hook, 'effective_rank')
    assert len(ranks) == 8 and all(1 <= rank <= 16 for rank in ranks)
    assert all(-4 < value < 0 for value in history(with_hook, 'uniformity'))
    assert all(0 < value < 4 for value in history(with_hook, 'alignment'))


def test_without_labels_there_is_no_probe(tmp_path):
    runner = train(tmp_path, max_epochs=1, seed=0,
                   custom_hooks=[*HOOKS, dict(type='OnlineMeasuresHook')])
    assert 'train/probe_acc' not in runner.message_hub.log_scalars
    assert len(history(runner, 'effective_rank')) == 3  # the LoggerHook's interval, and the end


def test_gradient_does_not_reach_features():
    probe = OnlineProbe(4, 3, lr=0.1, device=torch.device('cpu'))
    weight = torch.randn(5, 4, requires_grad=True)
    features = torch.randn(6, 5) @ weight
    probe.step(features, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert weight.grad is None and probe.weight.abs().max() > 0


def test_probe_learns():
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(3, 8, generator=generator)
    probe = OnlineProbe(8, 3, lr=0.1, device=torch.device('cpu'))
    accuracies = []
    for _ in range(40):
        labels = torch.randint(3, (32, ), generator=generator)
        accuracies.append(probe.step(
            centres[labels] + torch.randn(32, 8, generator=generator), labels))
    assert accuracies[0] < 60 and np.mean(accuracies[-5:]) > 95
    assert 0 <= probe.step(centres[:1], torch.tensor([0])) <= 100  # a batch of one image


def test_probe_is_resumed(tmp_path):
    options = dict(seed=0, pipeline=LABELLED, custom_hooks=[*HOOKS, PROBE])

    def probe(runner):
        return next(hook for hook in runner.hooks
                    if isinstance(hook, OnlineMeasuresHook)).probe.state_dict()

    whole = probe(train(tmp_path / 'whole', max_epochs=4, **options))
    train(tmp_path / 'parts', max_epochs=2, **options)
    resumed = probe(train(tmp_path / 'parts', max_epochs=4, resume=True, **options))
    assert torch.equal(whole['weight'], resumed['weight'])
    assert torch.equal(whole['norm']['running_mean'], resumed['norm']['running_mean'])


def test_probe_of_another_training_is_not_taken(tmp_path):
    options = dict(seed=0, pipeline=LABELLED, max_epochs=1)
    train(tmp_path / 'saved', custom_hooks=[*HOOKS, PROBE], **options)
    new = train(tmp_path / 'next', custom_hooks=[*HOOKS, dict(PROBE, num_classes=5)],
                load_from=str(tmp_path / 'saved/epoch_1.pth'), **options)
    assert len(history(new, 'probe_acc')) == 7


@pytest.mark.parametrize('options, message', [
    (dict(num_classes=2), 'labels 0 to 2 do not fit'), (dict(num_classes=0), 'at least 1'),
])
def test_other_labels(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, max_epochs=1, pipeline=LABELLED,
              custom_hooks=[*HOOKS, dict(type='OnlineMeasuresHook', **options)])


def test_a_last_batch_of_one_image_has_no_pair(tmp_path):
    runner = train(tmp_path, max_epochs=1, num_images=17, pipeline=LABELLED,
                   custom_hooks=[*HOOKS, dict(PROBE, interval=1)])
    assert len(history(runner, 'uniformity')) == 2
    assert len(history(runner, 'probe_acc')) == len(history(runner, 'alignment')) == 3
