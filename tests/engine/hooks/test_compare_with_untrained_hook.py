# SPDX-License-Identifier: Apache-2.0
"""CompareWithUntrainedHook: in a real Runner, and without a trace in the training."""
import itertools
import logging
import random
import re

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from pic_plugin.engine import CompareWithUntrainedHook

NUMBERS = itertools.count()


class Points(Dataset):
    """y = 2 x, read with random numbers, as an augmentation would."""

    metainfo = {}

    def __len__(self):
        return 12

    def __getitem__(self, index):
        noise = 1e-3 * (random.random() + np.random.rand() + torch.rand(()).item())
        return dict(inputs=torch.tensor([index / 12 + noise]), data_samples=index / 6)


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.dropout = nn.Dropout(0.1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        y = self.linear(self.dropout(torch.stack(list(inputs))))[:, 0]
        wanted = torch.as_tensor(data_samples, dtype=torch.float32)
        if mode == 'loss':
            return dict(loss=(y - wanted).square().mean())
        # Validation code may draw random numbers too.
        random.random(), np.random.rand(), torch.rand(())
        return [dict(error=error) for error in (y - wanted).abs()]


class MeanError(BaseMetric):
    default_prefix = 'test'

    def process(self, data_batch, data_samples):
        self.results += [float(sample['error']) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(error=float(np.mean(results)), shape=[1, 2])


class Recorder(Hook):
    """What other hooks see of the run."""

    def __init__(self):
        self.calls, self.losses = [], []

    def before_val_epoch(self, runner):
        self.calls.append(('val', runner.iter, runner.epoch))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss']))


def build(work_dir, hook=True, epochs=2, val_interval=1, num_workers=0, **settings):
    """A runner on Line, and its Recorder."""
    workers = dict(num_workers=num_workers, persistent_workers=num_workers > 0)
    recorder = Recorder()
    options = dict(
        model=Line(), work_dir=str(work_dir),
        train_dataloader=dict(batch_size=4, dataset=Points(), num_workers=0,
                              sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=val_interval),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.3)),
        val_dataloader=dict(batch_size=5, dataset=Points(), **workers,
                            sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(), val_evaluator=[MeanError()],
        randomness=dict(seed=1), default_scope='mmengine',
        experiment_name=f'compare_{next(NUMBERS)}',
        custom_hooks=[recorder] + ([dict(type='mmpretrain.CompareWithUntrainedHook', interval=2)]
                                   if hook is True else []))
    options.update(settings)
    return Runner(**options), recorder


@pytest.fixture
def said(caplog):
    """Text of everything the runner's logger has said."""
    class Collect(logging.Handler):
        def __init__(self):
            super().__init__()
            self.lines = []

        def emit(self, record):
            self.lines.append(record.getMessage())

    collect = Collect()

    def listen(runner):
        runner.logger.addHandler(collect)
        return collect.lines

    return listen


def rows(lines):
    """{metric: [untrained, trained, difference]} of the table that was printed."""
    table = [line for line in lines if line.startswith('Before and after training')]
    assert len(table) == 1
    return {cells[0]: cells[1:] for cells in (line.split() for line in table[0].split('\n')[2:])}


def test_prints_both_results_their_difference_and_the_checkpoint(work_dir, said):
    runner, recorder = build(work_dir)
    lines = said(runner)
    runner.train()
    # Mean of |0 - i / 6| over i = 0 .. 11.
    before = runner.message_hub.get_info('untrained_metrics')['test/error']
    assert before == pytest.approx(11 / 12)
    after = runner.message_hub.get_scalar('val/test/error').current()
    assert after < before / 2
    printed = rows(lines)
    assert printed['test/error'] == [f'{before:.2f}', f'{after:.2f}', f'{after - before:+.2f}']
    assert printed['Checkpoint:'] == [str(work_dir / 'epoch_2.pth')]
    # Three validation batches of 5, 5 and 2 with interval 2.
    assert [line for line in lines if line.startswith('Evaluated')] == ['Evaluated 2 of 3 batches']


@pytest.mark.parametrize('num_workers', [0, 1])
def test_training_does_not_notice(work_dir, num_workers):
    """Losses, weights, counters, histories and generators, with and without the hook."""
    results = []
    for hook in (False, True):
        runner, recorder = build(work_dir / str(hook), hook, num_workers=num_workers)
        runner.train()
        history = runner.message_hub.log_scalars['val/test/error']
        assert isinstance(history, HistoryBuffer)
        results.append((recorder.losses, recorder.calls, history.data[0].tolist(),
                        [p.tolist() for p in runner.model.parameters()], torch.rand(3).tolist(),
                        np.random.rand(3).tolist(), random.random()))
    assert results[0] == results[1]
    assert results[0][1] == [('val', 3, 1), ('val', 6, 2)]


def test_untrained_result_is_no_best_checkpoint(work_dir):
    hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='test/error', rule='greater'))
    runner, _ = build(work_dir, default_hooks=hooks)
    runner.train()
    assert not list(work_dir.glob('best*epoch_0*')) and list(work_dir.glob('best*epoch_1*'))


def test_no_validation_after_the_last_step_is_made_up_for(work_dir, said):
    runner, recorder = build(work_dir, epochs=2, val_interval=5,
                             train_cfg=dict(by_epoch=False, max_iters=7, val_interval=5))
    # mmengine's loops validate at the very end, whatever the interval; this one stops early.
    runner.register_hook(StopAfter(6))
    lines = said(runner)
    runner.train()
    assert [call[1] for call in recorder.calls] == [5, 6]
    assert float(rows(lines)['test/error'][1]) < 0.9


class StopAfter(Hook):
    def __init__(self, num_iters):
        self.num_iters = num_iters

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.train_loop.stop_training = runner.iter + 1 >= self.num_iters


def test_resumed_run_compares_with_the_first_start(work_dir, said):
    first, _ = build(work_dir)
    first.train()
    saved = torch.load(work_dir / 'epoch_1.pth', map_location='cpu', weights_only=False)
    numbers = saved['message_hub']['runtime_info']['untrained_metrics']
    assert type(numbers) is dict and {type(value) for value in numbers.values()} == {float}

    # Resuming is another test's subject; here the counter and the hub are what it restores.
    second, recorder = build(work_dir / 'second', epochs=3)
    second.register_hook(Restore(saved))
    lines = said(second)
    second.train()
    assert not [line for line in lines if 'before training' in line]
    assert rows(lines)['test/error'][0] == f'{numbers["test/error"]:.2f}'
    assert recorder.calls == [('val', 6, 2), ('val', 9, 3)]


class Restore(Hook):
    """A resumed runner's state, set before any hook's before_train."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint

    def before_run(self, runner):
        runner.message_hub.load_state_dict(self.checkpoint['message_hub'])
        runner.train_loop._epoch, runner.train_loop._iter = 1, 3


def test_resumed_without_numbers_shows_a_dash(work_dir, said):
    runner, _ = build(work_dir, hook=False)
    hook = CompareWithUntrainedHook()
    runner.register_hook(hook)
    runner.register_hook(Restore(dict(message_hub=dict(
        log_scalars={}, runtime_info={}, resumed_keys={}))))
    lines = said(runner)
    runner.train()
    assert rows(lines)['test/error'][::2] == ['-', '-']


def test_new_run_in_an_old_hub_measures_anew(work_dir):
    runner, _ = build(work_dir)
    runner.message_hub.update_info('untrained_metrics', {'test/error': -1.})
    runner.train()
    assert runner.message_hub.get_info('untrained_metrics')['test/error'] > 0


def test_without_checkpoints_says_so(work_dir, said):
    runner, _ = build(work_dir, default_hooks=dict(checkpoint=None))
    lines = said(runner)
    runner.train()
    assert re.search('Checkpoint: none was saved', '\n'.join(lines))


def test_validation_alone_prints_no_table(work_dir, said):
    runner, _ = build(work_dir)
    lines = said(runner)
    runner.val()
    assert not [line for line in lines if 'Before and after' in line]


def test_generators_and_hooks_return_when_the_evaluation_fails(work_dir):
    class Failing(MeanError):
        def compute_metrics(self, results):
            raise RuntimeError('no metric today')

    runner, recorder = build(work_dir, val_evaluator=[Failing()])
    hooks = list(runner.hooks)
    with pytest.raises(RuntimeError, match='no metric today'):
        runner.train()
    assert runner.hooks == hooks
    assert recorder.losses == []


def test_needs_validation(work_dir):
    runner, _ = build(work_dir, val_dataloader=None, val_cfg=None, val_evaluator=None)
    with pytest.raises(ValueError, match='val_dataloader, val_cfg and val_evaluator'):
        runner.train()


def test_bad_interval():
    with pytest.raises(ValueError, match='at least 1 batch, not 0'):
        CompareWithUntrainedHook(interval=0)
