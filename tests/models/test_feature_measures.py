# SPDX-License-Identifier: Apache-2.0
"""Label-free measures against their definitions, and at features whose measure is known."""
import math

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pic_plugin.models.feature_measures import alignment, effective_rank, uniformity


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('rank', [1, 3, 7])
def test_effective_rank_of_even_directions(rank):
    # Orthonormal columns: equal singular values.
    basis = torch.linalg.qr(noise(40, rank).double())[0]
    features = basis @ torch.linalg.qr(noise(9, 9).double())[0][:rank]
    assert effective_rank(features) == pytest.approx(rank, rel=1e-5)
    assert effective_rank(1e-3 * features) == pytest.approx(rank, rel=1e-5)


def test_effective_rank_by_definition():
    features = noise(20, 6)
    values = torch.linalg.svd(features.double())[1]
    shares = [float(value / values.sum()) for value in values]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(features) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(torch.zeros(4, 3)) == pytest.approx(1.0)  # collapsed


def test_alignment_and_uniformity_by_definition():
    first, second = noise(12, 5), noise(12, 5, seed=1)
    units = [[row / row.norm() for row in rows] for rows in (first, second)]
    expected = sum(float((a - b).square().sum()) for a, b in zip(*units)) / 12
    assert alignment(first, second) == pytest.approx(expected, rel=1e-5)
    pairs = [math.exp(-2 * float((units[0][i] - units[0][j]).square().sum()))
             for i in range(12) for j in range(i)]
    assert uniformity(first) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)


def test_extremes():
    features = noise(8, 4)
    assert alignment(features, 3 * features) == pytest.approx(0, abs=1e-6)
    assert alignment(features, -features) == pytest.approx(4, rel=1e-6)
    assert uniformity(torch.ones(6, 4)) == pytest.approx(0, abs=1e-5)


def test_nothing_to_measure():
    with pytest.raises(ValueError, match='no features'):
        effective_rank(torch.zeros(0, 3))
    with pytest.raises(ValueError, match='no pair'):
        uniformity(torch.zeros(1, 3))


@pytest.mark.parametrize('measure, module, operation', [
    (effective_rank, torch.linalg, 'eigvalsh'), (uniformity, torch, 'pdist')])
def test_an_apple_gpu_leaves_to_the_host_what_it_cannot(monkeypatch, measure, module, operation):
    devices, real = [], getattr(module, operation)

    def record(tensor):
        devices.append(tensor.device.type)
        return real(tensor)

    monkeypatch.setattr(module, operation, record)
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):  # it has no values
        measure(torch.empty(6, 4, device='mps'))
    assert devices == ['cpu']
