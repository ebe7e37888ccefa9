# SPDX-License-Identifier: Apache-2.0
"""Measuring by quarter of a window."""
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from pic_plugin.studies.ablation.window_phase import WindowPhaseHook


class Clock(torch.nn.Module):
    """Its accuracy is the number of steps, its mode that of the last call."""


def run(hook, first, last):
    model = Clock().train()
    for step in range(first, last + 1):
        hook.measure = mock.Mock(side_effect=lambda given, step=step: (
            float(step) if not given.training else 1 / 0))
        hook.after_train_iter(SimpleNamespace(iter=step - 1, model=model), 0)
        assert model.training


def test_quarters_of_windows_by_hand():
    # Windows of 8 steps: 1-8, 9-16, 17-24. After step 8 the first is done.
    hook = WindowPhaseHook(None, period=8, begin=8)
    run(hook, 1, 24)
    assert hook.values == [[10, 18], [12, 20], [14, 22], [16, 24]]
    assert hook.means() == dict(quarter1=14, quarter2=16, quarter3=18, quarter4=20)


def test_values_survive_a_resume():
    whole, parts = WindowPhaseHook(None, 8, 8), WindowPhaseHook(None, 8, 8)
    run(whole, 1, 24)
    run(parts, 1, 13)
    checkpoint = dict(message_hub=dict(runtime_info={}))
    parts.before_save_checkpoint(None, checkpoint)
    resumed = WindowPhaseHook(None, 8, 8)
    hub = SimpleNamespace(get_info=checkpoint['message_hub']['runtime_info'].get)
    resumed.before_train(SimpleNamespace(iter=13, max_iters=24, message_hub=hub))
    run(resumed, 14, 24)
    assert resumed.means() == whole.means()


@pytest.mark.parametrize('period', [0, 6, -4])
def test_windows_without_quarters(period):
    with pytest.raises(ValueError, match='positive multiple of 4'):
        WindowPhaseHook(None, period, 0)


def test_training_too_short_to_measure():
    with pytest.raises(ValueError, match='15 steps has no whole window of 8 steps after step 8'):
        WindowPhaseHook(None, 8, 8).before_train(SimpleNamespace(iter=0, max_iters=15))
