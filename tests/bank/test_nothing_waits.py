# SPDX-License-Identifier: Apache-2.0
"""Without a GPU: no call of a step is of the kind for which the host would wait for one.

tests/bank/test_cuda.py lets torch itself refuse such calls where there is a GPU.
"""
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pic_plugin.bank import Refresh, SampledClassWeights
from pic_plugin.bank.transfers import HostCopy
from pic_plugin.losses import cosine_softmax, cosine_softmax_loss
from pic_plugin.losses.blockwise_softmax import class_weight_gradient

aten = torch.ops.aten
# bool(), int(), float(), .item(), .any() in an `if`; masks whose number of hits must be known.
WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
           aten.is_nonzero.default, aten.equal.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}


class Waits(TorchDispatchMode):
    """Collects the operations for which a host waits."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # A number assigned to chosen rows is copied from ordinary memory of the host.
        is_number = function in (aten.index_put_.default, aten._index_put_impl_.default) and (
            args[2].dim() == 0)
        is_mask = function in INDEXING and any(
            index is not None and index.dtype == torch.bool for index in args[1])
        # An index that is elsewhere is copied over first.
        is_elsewhere = function in INDEXING and any(
            index is not None and index.device != args[0].device for index in args[1])
        if function in WAITING or is_number or is_mask or is_elsewhere:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize('name', ['SGD', 'AdamW'])
def test_rows_move_without_waiting(monkeypatch, name):
    # It looks at targets on a CPU only.
    monkeypatch.setattr(cosine_softmax_loss, '_check_inputs', lambda *_: None)
    weight = torch.nn.Parameter(torch.empty(20, 4))
    optimizer = getattr(torch.optim, name)([weight], lr=0.1, weight_decay=0.1)
    sampled = SampledClassWeights(weight, optimizer, 100, 20)
    sampled.start()
    waits = Waits()
    for step in range(20):
        ids = np.arange(8 * step, 8 * step + 8) % 100
        with waits:
            targets = sampled.sample(ids)
            losses, _ = cosine_softmax(torch.randn(8, 4), sampled.active, targets)
            optimizer.zero_grad()
            losses.mean().backward()
        optimizer.step()
    assert (sampled.missed > 0).all() and not waits.found


def test_rows_are_refreshed_without_waiting():
    weight = torch.nn.Parameter(torch.empty(20, 4))
    sampled = SampledClassWeights(weight, torch.optim.SGD([weight], lr=0.1), 100, 20)
    sampled.refresh_with(Refresh(1.0))
    sampled.start()
    sampled.sample(np.arange(8))
    features, waits = torch.randn(8, 4), Waits()
    with waits:
        sampled.turn_returning(features)
    cosines = torch.cosine_similarity(weight.detach()[sampled.targets], features)
    torch.testing.assert_close(cosines, torch.ones(8))
    assert not waits.found


def test_a_softmax_with_gaps_is_chosen_without_waiting():
    """Rows that wait for their gradient to be applied lie between those of the softmax."""
    weight = torch.nn.Parameter(torch.empty(40, 4, device='meta'))
    sampled = SampledClassWeights(weight, torch.optim.SGD([weight], lr=0.1), 100, 20)
    sampled.start()
    waits = Waits()
    for step in range(4):
        sampled.sample(np.arange(8 * step, 8 * step + 8))
        with waits:
            active = sampled.active
        active.sum().backward()
    assert not sampled.bank.active_set.is_prefix and not waits.found


@pytest.mark.parametrize('device', ['mps', 'xpu'])
def test_rows_of_any_device_come_to_the_host(device):
    with FakeTensorMode():
        assert HostCopy(torch.empty(2, 3, device=device)).wait().device.type == 'cpu'


def test_the_collector_finds_what_waits():
    waits, tensor = Waits(), torch.zeros(4)
    with waits:
        tensor[torch.tensor([1, 2])] = 0
        bool(tensor.any())
        tensor[tensor > 0]
        torch.empty(4, device='meta')[torch.tensor([1])]
    assert len(waits.found) == 4


def test_loss_of_a_gpu_depends_on_no_value():
    """Tensors of a GPU without memory behind them: whatever asks for a value raises."""
    with FakeTensorMode():
        try:
            features = torch.empty(8, 4, device='cuda', requires_grad=True)
        except RuntimeError:
            pytest.skip('torch 2.1 wants a GPU for these')
        weights = torch.empty(500, 4, device='cuda', requires_grad=True)
        targets = torch.empty(8, dtype=torch.int64, device='cuda')
        losses, _ = cosine_softmax(features, weights, targets, block_elements=400)
        assert losses.shape == (8, )
        grad = class_weight_gradient(torch.empty(8, device='cuda'), 50, weights.detach(), targets,
                                     torch.empty(8, 4, device='cuda'),
                                     torch.empty(500, device='cuda'),
                                     torch.empty(8, 1, device='cuda'))
        assert grad.shape == (500, 4)
        with pytest.raises(DataDependentOutputException):
            float(losses.mean())
