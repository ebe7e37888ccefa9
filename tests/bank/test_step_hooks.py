# SPDX-License-Identifier: Apache-2.0
"""Steps are counted after torch.compile, which in torch 2.1 takes hooks out of optimizers."""
import warnings

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from toys.processes import run_alone
from toys.sampled import compile_and_train, make, num_steps

OPTIMIZERS = {'SGD': dict(lr=0.1, momentum=0.9), 'AdamW': dict(lr=0.1)}


def take_hooks_out(monkeypatch, kind):
    """What torch 2.1 does to each optimizer when it compiles for the first time."""
    plain = kind.step.__wrapped__
    assert not hasattr(plain, 'hooked')
    monkeypatch.setattr(kind, 'step', plain)
    monkeypatch.setattr(plain, 'hooked', True, raising=False)


@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('scheduled', [False, True])
def test_steps_are_counted_without_hooks_of_torch(monkeypatch, name, when, scheduled):
    kind = getattr(torch.optim, name)
    kind([torch.zeros(1)], lr=0.1)  # the first of its kind patches it
    if when == 'before':
        take_hooks_out(monkeypatch, kind)
    sampled = make(optimizer=kind, options=OPTIMIZERS[name])
    scheduler = StepLR(sampled.optimizer, 1) if scheduled else None
    if when == 'after':
        take_hooks_out(monkeypatch, kind)
    assert num_steps(sampled) == 5 and (sampled.missed > 0).any()
    if scheduler is not None:
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # that the optimizer has taken no step
            scheduler.step()


def test_steps_are_counted_after_compiling():
    assert run_alone(compile_and_train) == (5, 5)
