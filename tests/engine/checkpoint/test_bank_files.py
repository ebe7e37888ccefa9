# SPDX-License-Identifier: Apache-2.0
"""A bank goes through its files unchanged, and no file of another save is taken for one of them."""
from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from pic_plugin.analysis.class_weights import read_class_weights
from pic_plugin.bank import BankFileError, SampledClassWeights
from pic_plugin.engine.checkpoint.bank_files import bank_path, restore_bank, write_bank_file
from pic_plugin.engine.checkpoint.bank_state import BankState
from toys.training import train

N, K, D = 40, 8, 4
TOKEN = '0123456789ab'


def trained(steps, seed=0):
    torch.manual_seed(seed)
    weight = torch.nn.Parameter(torch.zeros(K, D))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    class_weights = SampledClassWeights(weight, optimizer, N, K, seed=seed)
    class_weights.start()
    for step in range(steps):
        class_weights.sample(torch.arange(5 * step, 5 * step + 5) % N)
        weight.grad = torch.randn(K, D)
        optimizer.step()
    return class_weights


def saved(class_weights, folder, token=TOKEN):
    state = BankState.of(class_weights.bank, token=token, complete=True, optimizer='SGD')
    path = bank_path(folder / 'epoch_1.pth', token, 0, 1)
    write_bank_file(path, class_weights.bank, token)
    return state, path


def test_back_from_file(tmp_path):
    before = trained(12)
    state, path = saved(before, tmp_path)
    after = trained(0)
    after.weight.data.copy_(before.weight)
    restore_bank(after.bank, BankState.from_dict(state.to_dict()), [path])
    ids = np.arange(N)
    assert torch.equal(after.bank.class_weights(ids, after.weight),
                       before.bank.class_weights(ids, before.weight))
    assert after.bank.step == 12 and after.active_ids.tolist() == before.active_ids.tolist()


def test_entry_survives_the_file_of_a_checkpoint(tmp_path):
    state = dataclasses.replace(
        BankState.of(trained(3).bank, token=TOKEN, complete=True, optimizer='SGD',
                     sampler_seed=5, head_states=['momentum_buffer']),
        instance_keys=np.arange(N), last_visits=np.full(N, -1))
    torch.save(state.to_dict(), tmp_path / 'entry.pth')
    again = BankState.from_dict(torch.load(tmp_path / 'entry.pth', weights_only=True))
    for field in dataclasses.fields(BankState):
        np.testing.assert_equal(getattr(again, field.name), getattr(state, field.name))


@pytest.mark.parametrize('steps, token', [(12, 'f' * 12), (13, TOKEN), (12, TOKEN)],
                         ids=['another save of the same step', 'another step', 'another process'])
def test_file_of_another_save_under_the_right_name(tmp_path, steps, token):
    state, path = saved(trained(12), tmp_path)
    other = tmp_path / 'other'
    other.mkdir()
    _, foreign = saved(trained(steps, seed=1), other, token)
    if (steps, token) == (12, TOKEN):
        path = bank_path(tmp_path / 'epoch_1.pth', TOKEN, 1, 2)
        state = dataclasses.replace(state, world_size=2)
    shutil.copy(foreign, path)
    with pytest.raises(BankFileError, match='belongs to another checkpoint or process'):
        restore_bank(trained(0).bank, state, [path])


def test_neither_resume_nor_analysis_takes_a_foreign_bank(tmp_path):
    """Of a run of the same config and step, renamed into place."""
    files = {}
    for name, seed in (('a', 0), ('b', 1)):
        train(tmp_path / name, max_epochs=1, seed=seed)
        files[name], = (tmp_path / name).glob('*.bank-0of1')
    shutil.copy(files['b'], files['a'])
    with pytest.raises(BankFileError, match='belongs to another checkpoint or process'):
        train(tmp_path / 'a', resume=True, max_epochs=2)
    with pytest.raises(BankFileError, match='belongs to another checkpoint or process'):
        read_class_weights(tmp_path / 'a' / 'epoch_1.pth')
