# SPDX-License-Identifier: Apache-2.0
"""AdamW with recent negatives: runs that are resumed, rounded rows, and another optimizer.

Every step against dense AdamW is in test_sampled_training.py; sharded heads and other numbers of
processes are in test_sharded_training.py.
"""
from __future__ import annotations

import numpy as np
import pytest

from toys.training import assert_equal, make_config, snapshot, train

ADAMW = dict(type='AdamW', lr=0.01, weight_decay=0.1)
SGD = dict(type='SGD', lr=0.1, momentum=0.9)
NAMES = [f'{i:03d}' for i in range(50)]


def options(optimizer=ADAMW, head=None, **kwargs):
    return dict(dict(seed=3, head=head or {}, optim_wrapper=dict(optimizer=dict(optimizer))),
                **kwargs)


@pytest.mark.parametrize('head', [
    dict(num_negatives=16), dict(num_negatives=None),
    dict(num_negatives=16, storage=dict(type='mmap', dtype='float16')),
    dict(num_negatives=16, storage=dict(type='memory', dtype='bfloat16')),
], ids=['recent', 'full', 'float16 on disk', 'bfloat16'])
def test_two_epochs_and_two_are_four(tmp_path, head):
    whole = train(tmp_path / 'whole', max_epochs=4, **options(head=head))
    train(tmp_path / 'parts', max_epochs=2, **options(head=head))
    resumed = train(tmp_path / 'parts', max_epochs=4, resume=True, **options(head=head))
    assert resumed.iter == whole.iter == 28
    assert_equal(snapshot(resumed), snapshot(whole))
    for runner in (whole, resumed):
        runner.state = runner.optim_wrapper.optimizer.state_dict()['state']
    for place, state in whole.state.items():
        for name, value in state.items():
            np.testing.assert_array_equal(resumed.state[place][name], value)
    if head['num_negatives']:
        steps = whole.model.head.bank.correction.state_dict()['steps']
        assert len(steps) == 28 and (np.diff(steps[:, 1]) < 0).all()


@pytest.mark.parametrize('dtype, tolerance', [('float16', 2e-3), ('bfloat16', 2e-2)])
def test_rounded_rows(tmp_path, dtype, tolerance):
    """Half precision costs what it costs SGD: the rounding of weights, not that of moments."""
    rows = {}
    for kept in ('float32', dtype):
        runner = train(tmp_path / kept, max_epochs=4, augment=False, **options(
            head=dict(num_negatives=16, storage=dict(dtype=kept))))
        rows[kept] = runner.model.head.class_weights(range(50)).numpy()
    error = np.linalg.norm(rows[dtype] - rows['float32']) / np.linalg.norm(rows['float32'])
    assert tolerance / 100 < error < tolerance


def named(names, **kwargs):
    kwargs = options(**kwargs)
    loader = make_config('', **kwargs)['train_dataloader']
    del loader['dataset']['num_images']
    loader['dataset'].update(type='NamedToyImages', names=names)
    return dict(kwargs, train_dataloader=loader)


def stored_rows(bank, ids):
    return bank.stored.fetch(ids, bank.step)


def test_images_are_added(tmp_path):
    """Weights and both moments stay with their images."""
    before = train(tmp_path / 'old', max_epochs=3, **named(NAMES, augment=False))
    more = [*NAMES[25:], '900', '901', *NAMES[:25]]
    after = train(tmp_path / 'new', max_epochs=3, resume=True,
                  load_from=str(tmp_path / 'old/epoch_3.pth'), **named(more, augment=False))
    banks = [runner.model.head.bank for runner in (before, after)]
    seen = {*banks[0].active_set.ids.tolist(),
            *np.concatenate([rows for rows, _, _ in banks[0].store.written()]).tolist()} - {-1}
    assert len(seen) > 30
    places = np.array([more.index(NAMES[i]) for i in sorted(seen)])
    np.testing.assert_array_equal(
        before.model.head.class_weights(sorted(seen)), after.model.head.class_weights(places))
    stored = np.array([i for i in sorted(seen) if i not in set(banks[0].active_set.ids.tolist())])
    there = np.array([more.index(NAMES[i]) for i in stored])
    np.testing.assert_array_equal(stored_rows(banks[0], stored), stored_rows(banks[1], there))
    assert stored_rows(banks[0], stored)[:, 2].any()


@pytest.mark.parametrize('num_negatives', [16, None])
@pytest.mark.parametrize('saved, resumed', [(SGD, ADAMW), (ADAMW, SGD)], ids=['from SGD', 'to SGD'])
def test_optimizer_is_swapped(tmp_path, saved, resumed, num_negatives):
    head = dict(num_negatives=num_negatives)
    train(tmp_path, max_epochs=1, **options(saved, head))
    with pytest.raises(ValueError, match='cannot be resumed.*Set the optimizer as it was, or '
                                         'start anew.*load_from'):
        train(tmp_path, max_epochs=2, resume=True, **options(resumed, head))


def test_betas_are_changed_by_a_scheduler(tmp_path):
    scheduler = [dict(type='ConstantMomentum', factor=0.5, end=3, by_epoch=False)]
    with pytest.raises(ValueError, match=r'goes on with betas=\(0.9, 0.999\).*after steps with '
                                         r'betas=\(0.45.*no momentum scheduler'):
        train(tmp_path, max_epochs=1, param_scheduler=scheduler, **options())
