# SPDX-License-Identifier: Apache-2.0
"""mmengine's EMAHook swaps trained weights and averages in its files: who takes which."""
import shutil

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmpretrain.registry import HOOKS

from pic_plugin.analysis.class_weights import read_class_weights
from pic_plugin.bank import initial_rows
from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    backbone_of,
    read_checkpoint,
    weights_of,
)
from toys.training import assert_equal, bank_paths, snapshot, train

PLAIN = [dict(type='InstanceBankHook'), dict(type='RecordLoss')]
EMA = [*PLAIN, dict(type='EMAHook', momentum=0.1)]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A training with averages and one without, which trains the same weights."""
    folder = tmp_path_factory.mktemp('averages')
    averaged = train(folder / 'ema', seed=3, max_epochs=4, custom_hooks=EMA)
    plain = train(folder / 'plain', seed=3, max_epochs=4, custom_hooks=PLAIN)
    assert averaged.losses == plain.losses
    return folder, averaged, plain


def test_class_weights_are_the_trained_ones(runs):
    folder, _, plain = runs
    found, expected = (read_class_weights(folder / name / 'epoch_4.pth')
                       for name in ('ema', 'plain'))
    assert torch.equal(found, expected)
    torch.testing.assert_close(found, plain.model.head.class_weights(range(50)))


def test_backbone_trained_and_averaged(runs):
    folder, averaged, plain = runs
    file = folder / 'ema/epoch_4.pth'
    state = weights_of(read_checkpoint(file), file)
    ema_model = next(hook for hook in averaged.hooks if hasattr(hook, 'ema_model')).ema_model
    for ema, model in ((None, plain.model), (False, plain.model), (True, ema_model.module)):
        found = backbone_of(state, file, ema)
        expected = model.backbone.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(backbone_of(state, file, True)['linear.weight'],
                           backbone_of(state, file, False)['linear.weight'])


def test_a_file_without_averages_has_none(runs):
    file = runs[0] / 'plain/epoch_4.pth'
    state = weights_of(read_checkpoint(file), file)
    with pytest.raises(ValueError, match='no averaged weights'):
        backbone_of(state, file, True)


def test_resume_goes_on_with_both(runs, tmp_path):
    folder, whole, _ = runs
    for path in [folder / 'ema/epoch_2.pth', *bank_paths(folder / 'ema/epoch_2.pth')]:
        shutil.copy(path, tmp_path)
    part = train(tmp_path, seed=3, max_epochs=4, custom_hooks=EMA, resume=True,
                 load_from=str(tmp_path / 'epoch_2.pth'))
    assert part.losses == whole.losses[len(part.losses):]
    assert_equal(snapshot(part), snapshot(whole))
    both = [next(hook for hook in runner.hooks if hasattr(hook, 'ema_model')).ema_model.state_dict()
            for runner in (part, whole)]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[1])


@pytest.mark.parametrize('num_negatives', [16, None])
def test_without_the_hook_the_trained_weights_go_on(tmp_path, num_negatives):
    options = dict(seed=3, max_epochs=4, head=dict(num_negatives=num_negatives))
    whole = train(tmp_path / 'whole', custom_hooks=EMA, **options)
    rest = train(tmp_path / 'rest', custom_hooks=PLAIN, resume=True,
                 load_from=str(tmp_path / 'whole/epoch_2.pth'), **options)
    assert rest.losses == whole.losses[14:]
    assert_equal(snapshot(rest), snapshot(whole))


def test_the_run_says_what_is_averaged(tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: texts.append(str(text)))
    for hooks, said in ((EMA, 1), (PLAIN, 0)):
        texts.clear()
        train(tmp_path / str(said), max_epochs=1, custom_hooks=hooks)
        assert len([text for text in texts if 'Class weights have no averages' in text]) == said


def test_evaluation_is_of_the_averaged_network(tmp_path, monkeypatch):
    seen = []
    predict = type(train(tmp_path / 'any', max_epochs=1).model).predict

    def spy(self, inputs, data_samples=None):
        seen.append(self.backbone.linear.weight.detach().clone())
        return predict(self, inputs, data_samples)

    monkeypatch.setattr('pic_plugin.models.pic.PIC.predict', spy)
    runner = train(tmp_path / 'ema', seed=3, max_epochs=1, validate=True, custom_hooks=EMA)
    ema_model = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model')).ema_model
    averaged = ema_model.module.backbone.linear.weight
    assert seen and all(torch.equal(weight, averaged) for weight in seen)
    assert not torch.equal(runner.model.backbone.linear.weight, averaged)  # swapped back


@HOOKS.register_module()
class RowsAtStart(Hook):
    """Class weights before the first step, when every hook has done its part."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.rows = runner.model.head.class_weights(range(50)).clone()


@pytest.mark.parametrize('ema', ['EMAHook', 'mmengine.EMAHook'])
@pytest.mark.parametrize('saved, num_negatives', [(None, None), (16, 24), (24, 16), (16, None)])
def test_a_training_that_starts_from_averages_takes_no_class_weights(tmp_path, ema, saved,
                                                                     num_negatives):
    hooks = [dict(type='InstanceBankHook'), dict(type=ema, momentum=0.1)]
    train(tmp_path / 'saved', max_epochs=1, seed=1, custom_hooks=hooks,
          head=dict(num_negatives=saved))
    runner = train(tmp_path / 'next', max_epochs=1, seed=2,
                   custom_hooks=[*hooks, dict(type='RowsAtStart')],
                   head=dict(num_negatives=num_negatives),
                   load_from=str(tmp_path / 'saved/epoch_1.pth'))
    rows = next(hook.rows for hook in runner.hooks if isinstance(hook, RowsAtStart))
    assert torch.equal(rows, torch.from_numpy(initial_rows(np.arange(50), 8, 2)))
