# SPDX-License-Identifier: Apache-2.0
"""Rows move when the loss wants them, behind the backbone: a GPU has work in the meantime."""
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from toys.processes import run_ranks, train_rank
from toys.training import assert_equal, make_config, snapshot


class Order(Hook):
    """What happens in a step, in order; it may look at the classes before the loss does."""

    def __init__(self, looks=False):
        self.looks, self.events = looks, []

    def before_train(self, runner):
        model = runner.model
        model.backbone.register_forward_hook(lambda *_: self.events.append('backbone'))
        sampled = model.head._sampled
        sample, loss = sampled.sample, model.head.loss
        sampled.sample = lambda ids: (self.events.append('sample'), sample(ids))[1]
        model.head.loss = lambda *args, **kwargs: (
            loss(*args, **kwargs), self.events.append('loss'))[0]

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.looks:
            ids = {one.sample_idx for one in data_batch['data_samples']}
            assert ids <= set(runner.model.head.active_ids.tolist())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.events.append('|')


def train(work_dir, hook, **changes):
    runner = Runner.from_cfg(Config(make_config(work_dir, max_epochs=1, seed=0, **changes)))
    runner.register_hook(hook)
    runner.train()
    steps = ' '.join(hook.events).split('|')[:-1]
    return {step.strip() for step in steps}, snapshot(runner)


def test_a_step_samples_behind_the_backbone(tmp_path):
    steps, state = train(tmp_path / 'plain', Order())
    assert steps == {'backbone sample loss'}
    steps, looked = train(tmp_path / 'looked', Order(looks=True))
    assert steps == {'sample backbone loss'}
    assert_equal(looked, state)


@pytest.mark.parametrize('compiled', [True, dict(), dict(backend='eager')])
def test_compiled_steps_find_rows_in_place(tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(Runner, '_maybe_compile', lambda self, target: None)
    steps, _ = train(tmp_path, Order(), compile=compiled)
    assert steps == {'sample backbone loss'}


def test_one_of_several_processes_may_look(tmp_path):
    """The others, which it would bring the classes in with, are not there."""
    options = dict(seed=0, batch_size=4, max_epochs=1,
                   head=dict(num_instances=50, num_negatives=16))
    looks = dict(options, custom_hooks=[dict(type='InstanceBankHook'), dict(type='RecordLoss'),
                                        dict(type='LookInOne')])
    found = [run_ranks(train_rank, 2, str(tmp_path / name), kwargs, seconds=120)
             for name, kwargs in (('plain', options), ('looks', looks))]
    for plain, looked in zip(*found):
        assert plain[0] == looked[0], looked
        assert_equal(looked[1], plain[1])


def test_a_batch_without_a_loss_brings_no_classes_in(tmp_path, monkeypatch):
    class Skip(Hook):
        """Leaves a step out, as is done with a last batch of one image."""

        priority = 'LOWEST'

        def before_train(self, runner):
            step = runner.model.train_step
            runner.model.train_step = lambda *args, **kwargs: (
                dict(loss=0) if runner.iter == 5 else step(*args, **kwargs))

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter in (4, 5):
                states.append(runner.model.head.active_ids.tolist())

    states = []
    runner = Runner.from_cfg(Config(make_config(
        tmp_path, max_epochs=1, seed=0, custom_hooks=[dict(type='InstanceBankHook')])))
    runner.register_hook(Skip())
    runner.train()
    assert len(states) == 2 and states[0] == states[1]
