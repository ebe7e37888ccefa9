# SPDX-License-Identifier: Apache-2.0
"""Findings of docs/numerical_health.md, on a shorter run of the script that made them."""
from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / 'benchmarks' / 'long_training_health.py'


@pytest.fixture(scope='module')
def health():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # NamedTuple looks its annotations up there.
    sys.modules[SCRIPT.stem] = module
    spec.loader.exec_module(module)
    # Switched-off ReLU units decay into denormals, which are slow on a CPU.
    torch.set_flush_denormal(True)
    yield module
    torch.set_flush_denormal(False)
    del sys.modules[SCRIPT.stem]


@pytest.mark.parametrize('seed', [0, 1])
def test_decayed_classes_stop_a_half_precision_run_for_good(health, seed):
    history = health.simulate('half everything', absent_epochs=150, stop_epoch=200,
                              steps_per_epoch=2, seed=seed, records=10**6)
    before = [r['loss'] for r in history if r['epoch'] < 150]
    after = [r['loss'] for r in history if r['epoch'] >= 150]
    assert all(map(math.isfinite, before))
    # Every step from there on, and the loss scale runs away: no later step can mend it.
    assert len(after) == 40 and all(map(math.isnan, after))
    assert history[-1]['scale'] < 1e-5


# Nearly gone: a pull of 1 / norm throws them far. Gone: they count as dead.
@pytest.mark.parametrize(('absent_epochs', 'norm'), [(150, 1e-7), (300, 1e-12)])
def test_decayed_classes_do_not_stop_the_plugins_loss(health, absent_epochs, norm):
    history = health.simulate('plugin', absent_epochs=absent_epochs, stop_epoch=absent_epochs + 50,
                              steps_per_epoch=2, records=10**6)
    assert history[-1]['epoch'] > absent_epochs + 49
    assert all(math.isfinite(value) for r in history for value in r.values())
    before = next(r for r in history if r['epoch'] >= absent_epochs - 1)
    assert before['w_min'] < norm
    assert min(r['scale'] for r in history) >= 2**12
    after = [r['loss'] for r in history if r['epoch'] >= absent_epochs]
    assert sum(after[-20:]) / 20 < sum(after[:20]) / 20 + 0.5  # training goes on


def test_1600_epochs_with_the_plugins_loss(health):
    history = health.simulate('plugin', steps_per_epoch=1, records=10**6)
    assert len(history) == 1600
    assert all(math.isfinite(value) for r in history for value in r.values())
    # Visited classes balance decay against noise; decay alone would leave e**-120 of them.
    assert min(r['w_min'] for r in history) > 5e-3
    assert max(r['w_max'] for r in history) < 1
    assert min(r['scale'] for r in history) >= 2**12


def test_a_zero_feature_breaks_the_plain_formula_but_not_the_plugins(health):
    class_weights = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    features = torch.zeros(2, 128)
    features[1, 0] = 1
    targets = torch.tensor([0, 1])
    assert health.half_loss(features, class_weights, targets).isnan()

    def gradient(loss):
        leaf = features.clone().requires_grad_()
        loss(leaf, class_weights, targets).backward()
        return leaf.grad

    plain, ours = gradient(health.plain_loss), gradient(health.our_loss)
    assert plain[0].half().isinf().any()  # what the float16 layer before it receives
    assert ours.isfinite().all() and not ours[0].any() and ours[1].any()
