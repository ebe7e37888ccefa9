# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints, and those that could run code, are not loaded."""
from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.model import BaseModule, PretrainedInit

from pic_plugin.engine.checkpoint.checkpoint_file import check_checkpoint_file, guard_loading


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('evil', )


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=dict(weight=torch.arange(1000.))), path)
    return path


def test_a_whole_one_passes(path):
    check_checkpoint_file(path)
    check_checkpoint_file('s3://somewhere/else.pth')


def test_every_flipped_bit_of_the_weights_is_found(path):
    content = path.read_bytes()
    start = content.find(torch.arange(1000.).numpy().tobytes())
    rng = np.random.default_rng(0)
    for place in start + rng.integers(0, 4000, 25):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        torch.load(path, weights_only=True)  # sees nothing
        with pytest.raises(ValueError, match='epoch_1.pth is damaged .*checksum'):
            check_checkpoint_file(path)


@pytest.mark.parametrize('keep', [0, 100, -1])
def test_truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match='truncated or damaged.* copy it again'):
        check_checkpoint_file(path)


def test_code_is_not_run(path, monkeypatch):
    torch.save(dict(state_dict=Evil()), path)
    # As with a torch that would load it.
    monkeypatch.setattr(torch, '__version__', '2.1.2')
    with pytest.raises(pickle.UnpicklingError):
        check_checkpoint_file(path)
    assert not os.path.exists('evil')


class FakeRunner:
    """Loads as mmengine does with a torch before 2.6."""

    def __init__(self, model):
        self.model = model

    def load_checkpoint(self, filename):
        return torch.load(filename, weights_only=False)


def test_a_runner_loads_nothing_that_could_run_code(path, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.1.2')
    runner = FakeRunner(BaseModule())
    guard_loading(runner)
    assert 'state_dict' in runner.load_checkpoint(str(path))
    torch.save(dict(state_dict=Evil()), path)
    with pytest.raises(pickle.UnpicklingError):
        runner.load_checkpoint(str(path))
    pretrained = dict(type='Pretrained', checkpoint=str(path))
    for init_cfg in (pretrained, dict(pretrained, type=PretrainedInit),
                     [dict(type='Xavier', layer='Linear'), pretrained]):
        with pytest.raises(pickle.UnpicklingError):
            guard_loading(FakeRunner(torch.nn.Sequential(BaseModule(init_cfg))))
    assert not os.path.exists('evil')
