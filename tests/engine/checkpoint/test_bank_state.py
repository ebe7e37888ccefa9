# SPDX-License-Identifier: Apache-2.0
"""No value that a bank cannot have saved is believed."""
from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pic_plugin.engine.checkpoint.bank_state import BankState
from toys.training import hash_files, train


def good_state():
    return dict(
        num_instances=9, num_negatives=4, num_slots=5, feat_dim=8, correct=True, num_states=1,
        seed=0, step=7, world_size=2, token='0123456789ab', complete=True, sampler_seed=None,
        instance_keys=torch.arange(9),
        active_set=dict(
            ids=torch.tensor([3, 8, -1, 0, 5]), stamps=torch.tensor([4, 5, 0, 6, 2]),
            active=torch.tensor([True, True, False, True, False]), free=torch.tensor([2])))


def full_state():
    state = dict(good_state(), num_negatives=None, num_slots=9)
    del state['active_set']
    return state


def test_what_a_bank_saves_is_accepted():
    BankState.from_dict(good_state())
    BankState.from_dict(full_state())
    BankState.from_dict(dict(good_state(), instance_keys=torch.arange(5)))


VALUES = st.one_of(
    st.none(), st.integers(-2**70, -1), st.floats(), st.booleans().map(str), st.text(max_size=12),
    st.binary(max_size=3), st.lists(st.integers(), max_size=2), st.just(torch.zeros(3)),
    st.just({}))
MAY_BE_NONE = {'num_states', 'sampler_seed'}


@settings(max_examples=300)
@given(st.sampled_from(sorted(set(good_state()) - {'instance_keys', 'seed'})), VALUES)
def test_other_values_are_refused(name, value):
    if value is None and name in MAY_BE_NONE:
        return
    if name == 'sampler_seed' and isinstance(value, int) and value >= -2**63:
        return
    state = good_state()
    state[name] = value
    with pytest.raises(ValueError):
        BankState.from_dict(state)
    del state[name]
    with pytest.raises(ValueError):
        BankState.from_dict(state)


@pytest.mark.parametrize('name, value', [
    ('ids', [3, 8, -1, 3, 5]), ('ids', [3, 9, -1, 0, 5]), ('ids', [3, 8, -2, 0, 5]),
    ('ids', [3, 8, 1, 0, 5]), ('ids', [3, 8, -1, 0]), ('ids', [3., 8., -1., 0., 5.]),
    ('stamps', [4, 5, -1, 6, 2]), ('stamps', [[4, 5, 0, 6, 2]]),
    ('active', [True, True, True, True, False]), ('active', [True, True, False, True]),
    ('active', [1, 1, 0, 1, 0]), ('free', [1]), ('free', [2, 2]), ('free', []), ('free', 'abc'),
])
def test_impossible_active_sets_are_refused(name, value):
    state = good_state()
    state['active_set'][name] = value if isinstance(value, str) else torch.tensor(
        value, dtype=torch.int64 if value == [] else None)
    with pytest.raises(ValueError, match='active set'):
        BankState.from_dict(state)


def test_more_active_classes_than_negatives():
    with pytest.raises(ValueError, match='contradicts'):
        BankState.from_dict(dict(good_state(), num_negatives=2))


@pytest.mark.parametrize('change, message', [
    (dict(token='../../../etc/x'), 'its token is'),
    (dict(token='/tmp/aaaaaaa'), 'its token is'),
    (dict(world_size=2**40), 'its world_size is 1099511627776'),
    (dict(step=-1), 'its step is -1'),
    (dict(instance_keys=torch.arange(60)), 'instance_keys'),
    (dict(head_states='momentum_buffer'), 'head_states'),
    (dict(head_states=[1]), 'head_states'),
    (dict(head_states=['x'] * 65), 'head_states'),
])
def test_a_runner_resumes_from_no_such_checkpoint(tmp_path, change, message):
    train(tmp_path, max_epochs=1)
    path = tmp_path / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['pic_bank'].update(copy.deepcopy(change))
    torch.save(checkpoint, path)
    before = hash_files(tmp_path)
    with pytest.raises(ValueError, match=f'cannot be resumed: .*{message}.* resume from another'):
        train(tmp_path, resume=True, max_epochs=2)
    assert hash_files(tmp_path) == before
