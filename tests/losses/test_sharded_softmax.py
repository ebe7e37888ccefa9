# SPDX-License-Identifier: Apache-2.0
"""Real processes with a part of the class weights each, against one that has all of them."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pic_plugin.communication import Communicator
from pic_plugin.losses import Shards, cosine_softmax
from toys import sharded
from toys.processes import run_ranks
from toys.sharded import SoftmaxCase, as_arrays

WORLD_SIZES = [1, 2, 3, 4]
UNEVEN = [5, 2, 1, 4]
HALF = dict(dtype=torch.float16, weight_scale=1.0)


def make_cases(world_size):
    """Cases by name."""
    even, uneven = [3] * world_size, UNEVEN[:world_size]
    rng = np.random.default_rng(world_size)
    cases = dict(
        even=SoftmaxCase(even, 40),
        uneven=SoftmaxCase(uneven, 40),
        blocks=SoftmaxCase(uneven, 123, block_elements=64),
        one_class_a_block=SoftmaxCase(uneven, 10, block_elements=1),
        wide=SoftmaxCase(uneven, 300, feat_dim=128, seed=1),
        first_shard_is_empty=SoftmaxCase(uneven, 9, holders=[world_size - 1] * 9),
        last_shard_is_empty=SoftmaxCase(even, 9, holders=[0] * 9, block_elements=16),
        fewer_classes_than_processes=SoftmaxCase(even, 1),
        cold=SoftmaxCase(uneven, 40, temperature=0.01),
        zero_vectors=SoftmaxCase(uneven, 40, zeros=True),
        features_alone=SoftmaxCase(uneven, 40, train=('features', )),
        weights_alone=SoftmaxCase(uneven, 40, train=('class_weights', )),
        nothing_trained=SoftmaxCase(uneven, 40, train=()),
        float32=SoftmaxCase(uneven, 40, dtype=torch.float32),
        float16=SoftmaxCase(uneven, 40, **HALF),
        bfloat16=SoftmaxCase(uneven, 40, **dict(HALF, dtype=torch.bfloat16)),
        autocast=SoftmaxCase(uneven, 40, dtype=torch.float32, autocast=True),
    )
    for i in range(8):
        sizes = rng.integers(1, 9, world_size).tolist()
        num_classes = int(rng.integers(1, 80))
        cases[f'random {i}'] = SoftmaxCase(
            sizes, num_classes, int(rng.integers(2, 20)),
            rng.integers(0, world_size, num_classes).tolist(), seed=i,
            temperature=float(rng.uniform(0.05, 2)),
            block_elements=int(rng.choice([1, 50, 500, 2**20])))
    return cases


def oracle(case, rank):
    """What a process has to get, from all features and class weights at once."""
    features = case.features.double().clone().requires_grad_()
    class_weights = case.class_weights.double().clone().requires_grad_()
    losses, hits = cosine_softmax(features, class_weights, case.targets, case.temperature)
    (losses * case.coefficients()).sum().backward()
    own, held = case.own(rank), case.holders == rank
    # The class weights follow the mean over processes of their losses, as under
    # DistributedDataParallel; features their own process's loss.
    return as_arrays(dict(losses=losses.detach()[own], hits=hits[own], features=features.grad[own],
                          class_weights=class_weights.grad[held] / len(case.sizes)))


@pytest.fixture(scope='module', params=WORLD_SIZES)
def results(request):
    """Number of processes, cases, and by process what came of each case."""
    world_size = request.param
    cases = make_cases(world_size)
    if world_size == 1:
        ranks = [[as_arrays(run_alone(case)) for case in cases.values()]]
    else:
        ranks = run_ranks(sharded.work, world_size, ('run_softmax', list(cases.values())))
        for rank in ranks:
            assert isinstance(rank, list), rank
        ranks = [rank[0] for rank in ranks]
    return world_size, cases, [dict(zip(cases, rank)) for rank in ranks]


def run_alone(case):
    """In this process, which has not joined any others."""
    features = case.features.clone().requires_grad_('features' in case.train)
    class_weights = case.class_weights.clone().requires_grad_('class_weights' in case.train)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=case.autocast):
        losses, hits = cosine_softmax(features, class_weights, case.rows(0), case.temperature,
                                      case.block_elements)
    if case.train:
        (losses * case.coefficients()).sum().backward()
    return dict(losses=losses.detach(), hits=hits, features=features.grad,
                class_weights=class_weights.grad, sent={})


@pytest.mark.parametrize('name', make_cases(4))
def test_values_and_gradients_are_those_of_one_process(results, name):
    world_size, cases, ranks = results
    case = cases[name]
    # float64, up to 16 features of weight up to 16; the half types round gradients at the end.
    rtol = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-3,
            torch.bfloat16: 1e-2}[case.features.dtype]
    for rank in range(world_size):
        got, want = ranks[rank][name], oracle(case, rank)
        np.testing.assert_allclose(got['losses'], want['losses'], rtol=min(rtol, 1e-5))
        np.testing.assert_array_equal(got['hits'], want['hits'])
        for part in ('features', 'class_weights'):
            if part not in case.train:
                assert got[part] is None
                continue
            scale = np.abs(want[part]).max(initial=0) + 1e-3
            np.testing.assert_allclose(got[part], want[part], rtol=rtol, atol=rtol * scale,
                                       err_msg=f'{part} of process {rank}')


def test_precision(results):
    world_size, cases, ranks = results
    for name, case in cases.items():
        dtype = torch.float64 if case.features.dtype == torch.float64 else torch.float32
        for rank in ranks:
            assert rank[name]['losses'].dtype == dtype.__str__().split('.')[1]
            if 'features' in case.train and case.features.dtype != torch.bfloat16:
                assert str(rank[name]['features'].dtype) == str(case.features.dtype)[6:]


def test_the_bytes_do_not_depend_on_the_number_of_classes(results):
    world_size, cases, ranks = results
    for rank in ranks:
        assert rank['uneven']['sent'] == rank['zero_vectors']['sent']
        if world_size > 1:
            assert set(rank['uneven']['sent']) == {'features', 'softmax'}
            without = rank['features_alone']['sent']
            # Without weights to train nobody needs the others' gradients of losses.
            assert without['features'] == rank['uneven']['sent']['features']
            assert without['softmax'] < rank['uneven']['sent']['softmax']
            assert rank['nothing_trained']['sent']['features'] < without['features']


@pytest.fixture(scope='module')
def four():
    """Two sorts of overflow, in each of four processes."""
    overflow = SoftmaxCase([2] * 4, 12, dtype=torch.float16, weight_scale=1.0, loss_scale=100.0)
    overflow.class_weights[overflow.holders == 3] *= 0.002  # gradients of 65,536 and more
    works = [('run_softmax', [overflow])]
    scaler = getattr(torch.amp, 'GradScaler', None)
    if scaler is not None:
        works.append(('skip_together', scaler))
    ranks = run_ranks(sharded.work, 4, *works)
    for rank in ranks:
        assert isinstance(rank, list), rank
    return ranks


def test_an_overflow_in_one_shard_spoils_that_process_s_features(four):
    results = [rank[0][0] for rank in four]
    finite = [np.isfinite(result['class_weights'].astype(float)).all() for result in results]
    assert finite == [True, True, True, False]
    for result, is_finite in zip(results, finite):
        assert np.isfinite(result['losses']).all()
        assert np.isnan(result['features'].astype(float)).all() != is_finite


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'),
                    reason='this torch has gradient scalers for CUDA only')
def test_all_processes_skip_a_step_in_which_one_shard_overflows(four):
    for rank in four:
        first, second, third = rank[1]
        assert not any(second)
        assert any(first) and any(third)


class TwoProcesses(Communicator):
    size = 2


@pytest.mark.parametrize('change, message', [
    (dict(features=torch.zeros(0, 7)), 'agree in d'),
    (dict(features=torch.zeros(3, 7)), r'sizes \[2, 1\] of which process 0'),
    (dict(features=torch.zeros(2, 6)), 'agree in d'),
    (dict(targets=torch.zeros(2, dtype=torch.int64)), 'features and targets in B'),
    (dict(targets=torch.zeros(3, 1, dtype=torch.int64)), 'expected features'),
    (dict(targets=torch.tensor([0, -2, 0])), 'targets range from -2'),
    (dict(targets=torch.tensor([0, 5, 0])), 'targets range from 0 to 5'),
])
def test_inputs_that_do_not_fit(change, message):
    inputs = dict(features=torch.ones(2, 7), class_weights=torch.ones(5, 7),
                  targets=torch.zeros(3, dtype=torch.int64))
    inputs.update(change)
    with pytest.raises(ValueError, match=message):
        cosine_softmax(**inputs, shards=Shards(TwoProcesses(), [2, 1]))
