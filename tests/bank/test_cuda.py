# SPDX-License-Identifier: Apache-2.0
"""Sampled class weights and their loss on a GPU: exact there too, and nothing waits for it."""
import copy

import numpy as np
import pytest
import torch

from pic_plugin.bank import SampledClassWeights, Storage, initial_rows
from pic_plugin.losses import cosine_softmax

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(),
                                reason='this process sees no GPU: see test_with_gpu.py')

N, K, BATCH, D, STEPS = 300, 64, 16, 8, 150
OPTIMIZERS = {
    'SGD': lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2),
    'nesterov': lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9,
                                                   weight_decay=1e-2, nesterov=True),
    'AdamW': lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.05),
    'fused AdamW': lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.05,
                                                        fused=True),
}


def make(name, num_negatives=K, **storage):
    weight = torch.nn.Parameter(torch.empty(num_negatives, D, device='cuda'))
    optimizer = OPTIMIZERS[name]([weight])
    sampled = SampledClassWeights(weight, optimizer, N, num_negatives, seed=3,
                                  storage=Storage(**storage))
    sampled.start()
    return sampled


def batches(rng, steps=STEPS):
    for step in range(steps):
        ids = (7 * step + rng.integers(0, 120, BATCH)) % N
        yield ids, torch.from_numpy(rng.normal(size=(BATCH, D)))


@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('num_negatives', [K, N])
def test_equals_dense_training(name, num_negatives):
    sampled = make(name, num_negatives)
    dense = torch.nn.Parameter(torch.from_numpy(initial_rows(np.arange(N), D, 3)).double())
    dense_name = name.replace('fused ', '')
    optimizer = OPTIMIZERS[dense_name]([dense])
    recent = [] if num_negatives < N else list(range(N))
    for ids, features in batches(np.random.default_rng(0)):
        recent = [i for i in recent if i not in ids] + list(dict.fromkeys(ids[::-1].tolist()))[::-1]
        recent = recent[-num_negatives:]
        expected, _ = cosine_softmax(features, dense[recent],
                                     torch.tensor([recent.index(i) for i in ids.tolist()]))
        targets = sampled.sample(ids)
        losses, _ = cosine_softmax(features.float().cuda(), sampled.active, targets)
        # float32 against float64.
        torch.testing.assert_close(losses.detach().cpu().double(), expected.detach(), rtol=1e-3,
                                   atol=1e-3)
        for loss, trained in ((losses, sampled.optimizer), (expected, optimizer)):
            trained.zero_grad()
            loss.mean().backward()
            trained.step()
    rows = sampled.rows(np.arange(N)).cpu().double()
    assert (rows - dense.detach()).norm() / dense.detach().norm() < 2e-4


@pytest.mark.parametrize('name', ['SGD', 'AdamW'])
def test_a_step_never_waits_for_the_gpu(name):
    sampled = make(name)
    rng = np.random.default_rng(0)
    data = [(ids, features.float().cuda()) for ids, features in batches(rng, 40)]
    mode = torch.cuda.get_sync_debug_mode()
    try:
        for step, (ids, features) in enumerate(data):
            if step == 20:  # rows come and go by now
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode('error')
            targets = sampled.sample(ids)
            losses, _ = cosine_softmax(features, sampled.active, targets)
            sampled.optimizer.zero_grad()
            losses.mean().backward()
            sampled.optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert len(sampled.missed) and sampled.bank.store is not None


def test_half_precision_stores_and_files(tmp_path):
    rows = []
    for storage in (dict(), dict(dtype='float16'), dict(path=tmp_path / 'rows')):
        sampled = make('SGD', **storage)
        for ids, features in batches(np.random.default_rng(0)):
            losses, _ = cosine_softmax(features.float().cuda(), *reversed(
                (sampled.sample(ids), sampled.active)))
            sampled.optimizer.zero_grad()
            losses.mean().backward()
            sampled.optimizer.step()
        rows.append(sampled.rows(np.arange(N)).cpu())
        sampled.bank.store.close()
    assert torch.equal(rows[0], rows[2])
    assert 0 < (rows[0] - rows[1]).norm() / rows[0].norm() < 5e-3


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_loss_and_gradients_are_those_of_a_cpu(dtype):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(33, 16, generator=generator).to(dtype)
    weights = torch.randn(500, 16, generator=generator).to(dtype)
    targets = torch.randint(500, (33, ), generator=generator)
    results = []
    for device in ('cpu', 'cuda'):
        inputs = [copy.deepcopy(tensor).to(device).requires_grad_()
                  for tensor in (features, weights)]
        losses, hits = cosine_softmax(*inputs, targets.to(device), block_elements=33 * 100)
        losses.sum().backward()
        results.append([losses.detach(), *(one.grad for one in inputs)])
    for cpu, gpu in zip(*results):
        tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 2e-2)
        torch.testing.assert_close(gpu.cpu().float(), cpu.float(), rtol=tolerance, atol=tolerance)


def test_a_target_outside_the_classes_is_nan():
    features = torch.randn(2, 4, device='cuda', requires_grad=True)
    losses, _ = cosine_softmax(features, torch.randn(5, 4, device='cuda'),
                               torch.tensor([1, 5], device='cuda'))
    losses.sum().backward()
    assert losses.isnan().tolist() == [False, True]
    assert features.grad.isnan().all(dim=1).tolist() == [False, True]
