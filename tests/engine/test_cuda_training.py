# SPDX-License-Identifier: Apache-2.0
"""Training through the Runner where test_with_gpu.py shows it a GPU, and on the CPU else.

On a CPU other tests say the same and more; here they keep the tests themselves in order.
"""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from toys.overflows import OVERFLOWS, BreakGradients, allow_amp_on_cpu, no_autocast
from toys.sharded import for_ranks, in_one_process, in_ranks, options
from toys.training import make_config, move_checkpoint, snapshot, train

ON_GPU = torch.cuda.is_available()
# On a GPU sums are added up in any order.
TOLERANCE = 1e-4 if ON_GPU else 0.0
OPTIMIZERS = {
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-3),
    'AdamW': dict(type='AdamW', lr=0.01, weight_decay=0.05),
}
if ON_GPU:  # torch 2.1 has none for CPUs
    OPTIMIZERS['fused AdamW'] = dict(type='AdamW', lr=0.01, weight_decay=0.05, fused=True)
HEADS = {
    'recent': dict(),
    'all': dict(num_negatives=None),
    'refreshed': dict(refresh_returning=1.0),
    'float16': dict(storage=dict(type='memory', dtype='float16')),
}


def assert_close(state, expected, tolerance=TOLERANCE):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=tolerance, err_msg=name,
                                   atol=tolerance * np.abs(value).max(initial=0))


def test_is_where_it_should_be(work_dir):
    runner = train(work_dir, max_epochs=1)
    assert runner.model.head.weight.is_cuda == ON_GPU
    assert {parameter.is_cuda for parameter in runner.model.parameters()} == {ON_GPU}


@pytest.mark.parametrize('optimizer', ['SGD', 'AdamW'])
@pytest.mark.parametrize('head', HEADS)
def test_resume(tmp_path, head, optimizer):
    settings = dict(head=HEADS[head], seed=5, augment=False,
                    optim_wrapper=dict(optimizer=OPTIMIZERS[optimizer]))
    whole = train(tmp_path / 'whole', **settings)
    move_checkpoint(tmp_path / 'whole', tmp_path / 'part')
    part = train(tmp_path / 'part', resume=True, **settings)
    assert len(part.losses) == len(whole.losses) // 2
    np.testing.assert_allclose(part.losses, whole.losses[len(part.losses):], rtol=TOLERANCE)
    assert_close(snapshot(part), snapshot(whole))


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('of', ['class_weights', 'network'])
def test_steps_that_a_gradient_scaler_skips(tmp_path, monkeypatch, of, optimizer):
    """The scale is a power of two: without autocast nothing else is left of mixed precision."""
    if not ON_GPU:
        allow_amp_on_cpu(monkeypatch)
    monkeypatch.setattr('mmengine.runner.amp.autocast', no_autocast)
    states = []
    for name, wrapper in dict(scaler=dict(type='AmpOptimWrapper', loss_scale='dynamic'),
                              skipping=dict(type='SkipOverflows')).items():
        config = make_config(
            tmp_path / name, seed=0, augment=False, default_hooks=dict(checkpoint=None),
            optim_wrapper=dict(wrapper, optimizer=OPTIMIZERS[optimizer]))
        runner = Runner.from_cfg(Config(config))
        runner.register_hook(BreakGradients(of))
        runner.train()
        assert runner.model.head.bank.step == runner.iter - len(OVERFLOWS)
        if name == 'scaler':
            assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0**16 / 2**len(OVERFLOWS)
        states.append(snapshot(runner))
    assert_close(*states)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'] if ON_GPU else ['bfloat16'])
def test_mixed_precision(tmp_path, monkeypatch, dtype):
    """Close to float32, with a row of each image that is finite.

    The loss is not scaled: float16 would overflow at first, and steps would be skipped.
    """
    if not ON_GPU:
        allow_amp_on_cpu(monkeypatch)
    losses = []
    mixed = dict(type='AmpOptimWrapper', dtype=dtype, loss_scale=1.0)
    for name, wrapper in dict(full=dict(), mixed=mixed).items():
        runner = train(tmp_path / name, seed=0, augment=False, optim_wrapper=dict(
            wrapper, optimizer=OPTIMIZERS['SGD']))
        assert np.isfinite(snapshot(runner)['class_weights']).all()
        losses.append(runner.losses)
    np.testing.assert_allclose(*losses, rtol=0.05)


SHARDED = {
    'recent': options(8),
    'all': options(4, dict(num_negatives=None)),
    'AdamW': options(6, optim=dict(optimizer=OPTIMIZERS['AdamW'])),
}


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Outcomes by case, of two processes that share a GPU."""
    folder = tmp_path_factory.mktemp('two')
    return in_ranks(folder, 2, {name: for_ranks(folder, True, **kwargs)
                                for name, kwargs in SHARDED.items()})


@pytest.mark.parametrize('name', SHARDED)
def test_a_softmax_in_shares(tmp_path, two_processes, name):
    alone = in_one_process(tmp_path, 2, **SHARDED[name])
    ranks = two_processes[name]
    np.testing.assert_allclose(np.mean([rank['losses'] for rank in ranks], axis=0),
                               alone['losses'], rtol=1e-4)
    keys = ['class_weights', 'backbone.linear.weight', 'neck.linear.weight', 'active_ids']
    for rank in ranks:
        assert_close({key: rank['state'][key] for key in keys},
                     {key: alone['state'][key] for key in keys}, 1e-3)
