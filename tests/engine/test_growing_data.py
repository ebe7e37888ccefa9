# SPDX-License-Identifier: Apache-2.0
"""A run that goes on after images were added to its folder, or are listed in another order."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from toys.processes import run_ranks, train_rank
from toys.training import bank_paths, make_config, snapshot, train

OLD = [f'{i:03d}' for i in range(50)]


def options(work_dir, names, **kwargs):
    """Arguments of ``train`` for a list of files."""
    kwargs = dict(dict(seed=3, augment=False), **kwargs)
    loader = make_config(work_dir, **kwargs)['train_dataloader']
    dataset = dict(loader['dataset'], type='NamedToyImages', names=names,
                   folder=kwargs.pop('folder', '/first'))
    del dataset['num_images']
    return dict(kwargs, train_dataloader=dict(loader, dataset=dataset))


def shuffled(names, seed=0):
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]


def rows_by_name(state, names):
    return dict(zip(names, state['class_weights']))


def visited(state):
    """Old images that have been trained; the initial row of others depends on their place."""
    if 'active_ids' not in state or 'stored rows' not in state:
        return OLD
    return [OLD[i] for i in {*state['active_ids'].tolist(), *state['stored rows'].tolist()}]


HEADS = dict(recent=dict(num_negatives=16), full=dict(num_negatives=None),
             mmap=dict(num_negatives=16, storage=dict(type='mmap', dtype='float16')))


@pytest.fixture(params=HEADS)
def saved(request, tmp_path):
    """Head, checkpoint and final state of two epochs on the old images."""
    head = HEADS[request.param]
    runner = train(tmp_path / 'old', **options(tmp_path / 'old', OLD, max_epochs=2, head=head))
    return head, str(tmp_path / 'old/epoch_2.pth'), snapshot(runner)


@pytest.mark.parametrize('names', [
    OLD + ['900', '901', '902'],
    ['900'] + OLD + ['901'],
    shuffled(OLD),
    shuffled(OLD + [f'{i}' for i in range(900, 920)]),
], ids=['appended', 'put between', 'reordered', 'all of it'])
def test_class_weights_stay_with_their_images(tmp_path, saved, names):
    head, checkpoint, expected = saved
    # Nothing is trained: what was restored is looked at. The folder has moved, too.
    runner = train(tmp_path, **options(tmp_path, names, max_epochs=2, head=head, resume=True,
                                       load_from=checkpoint, folder='/second'))
    state = snapshot(runner)
    found, wanted = rows_by_name(state, names), rows_by_name(expected, OLD)
    assert len(visited(expected)) > 30
    for name in visited(expected):
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert ([names[i] for i in state['active_ids']] if head['num_negatives'] else []) == (
        [OLD[i] for i in expected['active_ids']] if head['num_negatives'] else [])
    # The momentum went along, as the next steps will show.
    places = [names.index(name) for name in OLD]
    momenta = [name for name in expected if name.startswith('momentum')]
    for name in momenta:
        moved = state[name]
        if moved.shape[0] == len(names) and not head['num_negatives']:
            moved = moved[places]
        np.testing.assert_array_equal(moved, expected[name], err_msg=name)
    if 'stored rows' in expected:
        for part in ('stored steps', 'stored values'):
            by_name = {names[i]: value for i, value in zip(state['stored rows'], state[part])}
            for i, value in zip(expected['stored rows'], expected[part]):
                np.testing.assert_array_equal(by_name[OLD[i]], value)
        assert len(state['stored rows']) == len(expected['stored rows'])


def test_training_goes_on(tmp_path, saved):
    head, checkpoint, _ = saved
    names = shuffled(OLD + ['900', '901'])
    kwargs = options(tmp_path, names, max_epochs=4, head=head)
    runner = train(tmp_path, resume=True, load_from=checkpoint, **kwargs)
    assert len(runner.losses) == 14 and np.isfinite(runner.losses).all()
    state = snapshot(runner)
    assert state['class_weights'].shape == (52, 8) and np.isfinite(state['class_weights']).all()
    # What it saves is of the new list, and is resumed without a change.
    again = snapshot(train(tmp_path, resume=True, **kwargs))
    np.testing.assert_array_equal(again['class_weights'], state['class_weights'])
    assert torch.load(tmp_path / 'epoch_4.pth', weights_only=True)['pic_bank'][
        'instance_keys'].shape == (52, )


def test_other_processes_take_over_rows_of_moved_images(tmp_path):
    runner = train(tmp_path / 'old', **options(tmp_path / 'old', OLD, max_epochs=2))
    state = snapshot(runner)
    expected = rows_by_name(state, OLD)
    names = shuffled(OLD + ['900', '901', '902'])
    kwargs = options(tmp_path, names, max_epochs=2, resume=True, batch_size=4,
                     load_from=str(tmp_path / 'old/epoch_2.pth'))
    for result in run_ranks(train_rank, 2, str(tmp_path), kwargs):
        assert isinstance(result, tuple), result
        found = rows_by_name(result[1], names)
        for name in visited(state):
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize('names, message', [
    (OLD[:-1], 'had 50 instances and this one has 49'),
    (OLD[:-1] + ['900'], r'1 of the 50 images .*by their number then: 49'),
    (OLD[1:] + ['900', '900'], 'listed more than once'),
])
def test_what_cannot_be_told_is_refused(tmp_path, names, message):
    train(tmp_path, **options(tmp_path, OLD, max_epochs=1))
    before = {path: path.read_bytes() for path in [
        tmp_path / 'epoch_1.pth', *bank_paths(tmp_path / 'epoch_1.pth')]}
    with pytest.raises(ValueError, match=f'cannot be resumed: .*{message}'):
        train(tmp_path, resume=True, **options(tmp_path, names, max_epochs=2))
    assert before == {path: path.read_bytes() for path in before}


def test_places_alone_where_told_so(tmp_path):
    hooks = [dict(type='InstanceBankHook', id_key=None), dict(type='RecordLoss')]
    runner = train(tmp_path, **options(tmp_path, OLD, max_epochs=1, custom_hooks=hooks))
    state = snapshot(runner)
    again = train(tmp_path, resume=True,
                  **options(tmp_path, shuffled(OLD), max_epochs=1, custom_hooks=hooks))
    np.testing.assert_array_equal(snapshot(again)['class_weights'], state['class_weights'])
    with pytest.raises(ValueError, match='cannot be told'):
        train(tmp_path, resume=True,
              **options(tmp_path, OLD + ['900'], max_epochs=1, custom_hooks=hooks))


@pytest.mark.parametrize('num_negatives', [16, None])
def test_averages_of_the_network_grow_too(tmp_path, num_negatives):
    hooks = [dict(type='InstanceBankHook'), dict(type='RecordLoss'), dict(type='EMAHook')]
    kwargs = dict(head=dict(num_negatives=num_negatives), custom_hooks=hooks)
    train(tmp_path, **options(tmp_path, OLD, max_epochs=2, **kwargs))
    before = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    names = ['900'] + OLD
    runner = train(tmp_path, resume=True, **options(tmp_path, names, max_epochs=2, **kwargs))
    weight = runner.model.head.weight.detach()
    # EMAHook saves the averages under the model's names, and the model under its own.
    expected = before['ema_state_dict']['module.head.weight']
    assert torch.equal(weight[1:] if num_negatives is None else weight, expected)


def test_averages_of_a_sharded_head_are_refused(tmp_path):
    hooks = [dict(type='InstanceBankHook'), dict(type='RecordLoss'), dict(type='EMAHook')]
    results = run_ranks(train_rank, 2, str(tmp_path), dict(
        seed=0, batch_size=4, head=dict(sharded=True), custom_hooks=hooks))
    assert all('EMAHook saves averages of a sharded head' in result for result in results)
