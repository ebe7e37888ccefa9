# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import math
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.registry import MODELS
from torch.utils.checkpoint import checkpoint

from pic_plugin.losses import (
    CosineSoftmaxLoss,
    blockwise_softmax,
    cosine_softmax,
    cosine_softmax_loss,
)
from toys.processes import command, run_alone

ONE_CLASS, FEW_CLASSES, ALL_LOGITS = 1, 64, 2**24  # block_elements; the last keeps the logits


def oracle(features, class_weights, targets, temperature):
    """Losses by the paper's formula with all logits, in the inputs' precision."""
    logits = F.normalize(features, dim=1) @ F.normalize(class_weights, dim=1).t() / temperature
    return F.cross_entropy(logits, targets, reduction='none'), logits.argmax(1) == targets


def inputs(batch_size, num_classes, feat_dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(batch_size, feat_dim, generator=generator, dtype=torch.float64)
    class_weights = torch.randn(num_classes, feat_dim, generator=generator, dtype=torch.float64)
    targets = torch.randint(num_classes, (batch_size,), generator=generator)
    return features.to(dtype), (0.01 * class_weights).to(dtype), targets


def with_gradients(function, features, class_weights, targets, *args):
    """Losses, hits and both gradients of a weighted sum of the losses."""
    features = features.detach().clone().requires_grad_()
    class_weights = class_weights.detach().clone().requires_grad_()
    losses, hits = function(features, class_weights, targets, *args)
    weights = torch.arange(1, len(losses) + 1, dtype=losses.dtype)
    (losses * weights).sum().backward()
    return losses.detach(), hits, features.grad, class_weights.grad


def assert_equals_oracle(features, class_weights, targets, temperature, block_elements):
    got = with_gradients(cosine_softmax, features, class_weights, targets, temperature,
                         block_elements)
    want = with_gradients(oracle, features, class_weights, targets, temperature)
    torch.testing.assert_close(got[0], want[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(got[1], want[1])
    total_weight = len(features) * (len(features) + 1) / 2
    for gradient, expected, rows in zip(got[2:], want[2:], (features, class_weights)):
        # float64 roundings of the terms, which may cancel: the gradient for one class is zero.
        largest = 2 * total_weight / (temperature * float(rows.norm(dim=1).min()))
        atol = 4 * torch.finfo(torch.float64).eps * largest
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=atol)


@pytest.mark.parametrize('block_elements', [ONE_CLASS, FEW_CLASSES, 2048, ALL_LOGITS])
@pytest.mark.parametrize(('batch_size', 'num_classes', 'feat_dim'), [
    (1, 1, 1), (1, 123, 7), (5, 1, 128), (7, 123, 1), (33, 507, 7), (64, 507, 128)])
def test_values_and_gradients_equal_brute_force(batch_size, num_classes, feat_dim, block_elements):
    features, class_weights, targets = inputs(batch_size, num_classes, feat_dim)
    if feat_dim == 1:
        # All cosines are +-1: with many ties argmax says nothing, so leave only one class right.
        class_weights, targets = -class_weights.abs(), torch.zeros_like(targets)
        class_weights[0] *= -1
    assert_equals_oracle(features, class_weights, targets, 0.2, block_elements)


@settings(deadline=None, max_examples=60)
@given(batch_size=st.integers(1, 20), num_classes=st.integers(1, 300), feat_dim=st.integers(2, 16),
       temperature=st.floats(0.02, 5), block_elements=st.sampled_from([1, 100, 1000, 10**7]),
       seed=st.integers(0, 10**6))
def test_any_size_equals_brute_force(batch_size, num_classes, feat_dim, temperature,
                                     block_elements, seed):
    features, class_weights, targets = inputs(batch_size, num_classes, feat_dim, seed)
    assert_equals_oracle(features, class_weights, targets, temperature, block_elements)


@pytest.mark.parametrize('block_elements', [FEW_CLASSES, ALL_LOGITS])
def test_gradcheck(block_elements):
    features, class_weights, _ = inputs(5, 23, 7)
    targets = torch.tensor([0, 22, 3, 3, 9])
    # Norms near 1: finite differences of 1e-6 are then small beside them.
    class_weights = class_weights * 100
    assert torch.autograd.gradcheck(
        lambda z, w: cosine_softmax(z, w, targets, 0.2, block_elements)[0],
        (features.requires_grad_(), class_weights.requires_grad_()))


@pytest.mark.parametrize('block_elements', [FEW_CLASSES, ALL_LOGITS])
def test_repeated_targets_add_up(block_elements):
    features, class_weights, _ = inputs(16, 123, 7)
    assert_equals_oracle(features, class_weights, torch.full((16,), 122), 0.2, block_elements)


def test_non_contiguous_inputs_and_a_slice_of_a_larger_parameter():
    features, class_weights, targets = inputs(9, 123, 7)
    parameter = torch.zeros(200, 14, dtype=torch.float64)
    parameter[50:173, ::2] = class_weights
    parameter.requires_grad_()
    transposed = features.t().contiguous().t().requires_grad_()
    losses, _ = cosine_softmax(transposed, parameter[50:173, ::2], targets, 0.2, FEW_CLASSES)
    losses.sum().backward()

    features.requires_grad_()
    class_weights.requires_grad_()
    want, _ = oracle(features, class_weights, targets, 0.2)
    want.sum().backward()
    expected = torch.zeros_like(parameter)
    expected[50:173, ::2] = class_weights.grad
    # float64; gradients are up to about 1e3 long.
    torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(transposed.grad, features.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('block_elements', [FEW_CLASSES, ALL_LOGITS])
@pytest.mark.parametrize('trained', ['features', 'class_weights'])
def test_gradient_of_one_input_alone(trained, block_elements):
    features, class_weights, targets = inputs(9, 123, 7)
    _, _, *want = with_gradients(cosine_softmax, features, class_weights, targets, 0.2,
                                 block_elements)
    (features if trained == 'features' else class_weights).requires_grad_()
    losses, _ = cosine_softmax(features, class_weights, targets, 0.2, block_elements)
    (losses * torch.arange(1, 10, dtype=torch.float64)).sum().backward()
    if trained == 'features':
        assert class_weights.grad is None
        torch.testing.assert_close(features.grad, want[0], rtol=1e-12, atol=0)
    else:
        assert features.grad is None
        torch.testing.assert_close(class_weights.grad, want[1], rtol=1e-12, atol=0)


def test_detached_class_weights_cost_nothing_in_backward(monkeypatch):
    features, class_weights, targets = inputs(9, 123, 7)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t,
                                                  lambda t: t):
        losses, _ = cosine_softmax(features.requires_grad_(),
                                   class_weights.requires_grad_().detach(), targets)
    assert saved == [(9, 7)]  # the gradient of the features, no logits and no class weights

    def no_walk(*_):
        raise AssertionError('walked over the class weights in backward')

    monkeypatch.setattr(blockwise_softmax, '_blocks', no_walk)
    losses.sum().backward()
    assert features.grad.abs().sum() > 0 and class_weights.grad is None


@pytest.mark.parametrize('block_elements', [FEW_CLASSES, ALL_LOGITS])
def test_computed_again_in_backward(block_elements):
    """Under gradient checkpointing, which lets a function read its saved tensors once."""
    def checkpointed(*args):
        return checkpoint(cosine_softmax, *args, 0.2, block_elements, use_reentrant=False)

    want = with_gradients(cosine_softmax, *inputs(9, 123, 7), 0.2, block_elements)
    for one, other in zip(with_gradients(checkpointed, *inputs(9, 123, 7)), want):
        assert torch.equal(one, other)


def test_no_grad_gives_the_same_losses():
    features, class_weights, targets = inputs(9, 123, 7)
    with torch.no_grad():
        losses, _ = cosine_softmax(features.requires_grad_(), class_weights, targets)
    assert not losses.requires_grad
    torch.testing.assert_close(losses, oracle(features.detach(), class_weights, targets, 0.2)[0])


@pytest.mark.parametrize('block_elements', [FEW_CLASSES, ALL_LOGITS])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_error_is_within_the_plain_versions_own(dtype, block_elements):
    """Budget: the error of the plain formula in the same dtype (in float32: eight roundings)."""
    features, class_weights, targets = inputs(64, 507, 128, dtype=dtype)
    want = with_gradients(oracle, features.double(), class_weights.double(), targets, 0.2)
    got = with_gradients(cosine_softmax, features, class_weights, targets, 0.2, block_elements)
    assert got[0].dtype == torch.float32 and got[2].dtype == got[3].dtype == dtype
    # The plain formula with every intermediate rounded; torch 2.1 has no float16 matmul on CPUs.
    unit = [(x / x.float().norm(dim=1, keepdim=True).to(dtype)).to(dtype).double()
            for x in (features, class_weights)]
    logits = ((unit[0] @ unit[1].t()).to(dtype) / 0.2).to(dtype).double()
    plain = F.cross_entropy(logits, targets, reduction='none')
    rounding = torch.finfo(torch.float32).eps * 8
    budget = (plain - want[0]).abs().max() + rounding * want[0].abs().max()
    assert (got[0].double() - want[0]).abs().max() <= budget
    for gradient, expected in zip(got[2:], want[2:]):
        scale = expected.abs().max()
        # Rounded once to its dtype, at most half a unit in the last place; the rest is float32.
        allowed = expected.abs() * torch.finfo(dtype).eps / 2 + scale * 16 * rounding
        allowed += torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        assert ((gradient.double() - expected).abs() <= allowed).all()


@pytest.mark.parametrize('block_elements', [FEW_CLASSES, ALL_LOGITS])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_vectors_have_cosine_0_and_no_gradient(dtype, block_elements):
    features, class_weights, targets = inputs(6, 123, 7, dtype=dtype)
    features[2] = 0
    class_weights[targets[3]] = 0
    losses, hits, *gradients = with_gradients(cosine_softmax, features, class_weights, targets,
                                              0.2, block_elements)
    assert losses.isfinite().all() and all(g.isfinite().all() for g in gradients)
    # Nothing to compare with: the softmax of a zero feature is uniform.
    assert float(losses[2]) == pytest.approx(math.log(123), rel=1e-6)
    assert not hits[2]
    assert not gradients[0][2].any() and not gradients[1][targets[3]].any()
    live = [i for i in range(6) if i != 2]
    assert gradients[0][live].any(dim=1).all()
    want, _ = oracle(features.double(), class_weights.double(), targets, 0.2)
    torch.testing.assert_close(losses.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('norm', [1e30, 1e-30, 1e-9, 3e38])
def test_float32_norms_of_any_size_stay_finite(norm):
    features, class_weights, targets = inputs(6, 123, 7, dtype=torch.float32)
    unit = F.normalize(features, dim=1)
    losses, _, *gradients = with_gradients(cosine_softmax, unit * norm, class_weights, targets,
                                           0.2)
    assert losses.isfinite().all() and all(g.isfinite().all() for g in gradients)
    if norm < 1e-12:
        assert not gradients[0].any()
    else:
        want, _ = oracle(unit.double(), class_weights.double(), targets, 0.2)
        torch.testing.assert_close(losses.double(), want, rtol=1e-5, atol=1e-6)
    swapped = with_gradients(cosine_softmax, features, F.normalize(class_weights, dim=1) * norm,
                             targets, 0.2)
    assert all(tensor.isfinite().all() for tensor in swapped)


@pytest.mark.parametrize('temperature', [0.01, 0.2, 1.0])
def test_float16_gradient_of_the_shortest_live_vector_is_finite(temperature):
    # All of the gradient in one element, and a batch of one: nothing divides it.
    features = torch.tensor([[1.0, 0.0]])
    class_weights = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    shortest = 1.1 * blockwise_softmax.zero_norm(torch.float16, temperature)
    features = (features * shortest).half().requires_grad_()
    class_weights = (class_weights * shortest).half().requires_grad_()
    CosineSoftmaxLoss(temperature)(features, class_weights, torch.tensor([0])).backward()
    assert features.grad.isfinite().all() and class_weights.grad.isfinite().all()
    assert features.grad.any() and class_weights.grad.any()


def test_autocast_changes_nothing():
    features, class_weights, targets = inputs(16, 123, 128, dtype=torch.float32)
    want = with_gradients(cosine_softmax, features, class_weights, targets, 0.2)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = with_gradients(cosine_softmax, features, class_weights, targets, 0.2)
        assert (features @ class_weights.t()).dtype == torch.bfloat16  # autocast was on
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_autocast_features_train_float32_weights():
    features, class_weights, targets = inputs(16, 123, 128, dtype=torch.float32)
    projection = torch.nn.Linear(128, 128)
    class_weights.requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = CosineSoftmaxLoss()(projection(features), class_weights, targets)
    loss.backward()
    assert loss.dtype == class_weights.grad.dtype == torch.float32
    assert projection.weight.grad.isfinite().all() and class_weights.grad.isfinite().all()


@settings(deadline=None, max_examples=20)
@given(exponent=st.integers(-8, 8), seed=st.integers(0, 1000))
def test_length_of_features_and_class_weights_changes_nothing(exponent, seed):
    features, class_weights, targets = inputs(5, 50, 7, seed)
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0**exponent * (0.5 + torch.rand(50, 1, generator=generator, dtype=torch.float64))
    losses, _ = cosine_softmax(features, class_weights, targets)
    scaled, _ = cosine_softmax(features * scale[:5], class_weights * scale, targets)
    torch.testing.assert_close(scaled, losses, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('block_elements', [FEW_CLASSES, ALL_LOGITS])
def test_permuting_the_classes_permutes_the_gradient(block_elements):
    features, class_weights, targets = inputs(9, 123, 7)
    order = torch.randperm(123, generator=torch.Generator().manual_seed(1))
    new_targets = order.argsort()[targets]
    a = with_gradients(cosine_softmax, features, class_weights, targets, 0.2, block_elements)
    b = with_gradients(cosine_softmax, features, class_weights[order], new_targets, 0.2,
                       block_elements)
    torch.testing.assert_close(b[0], a[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(b[2], a[2], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(b[3], a[3][order], rtol=1e-9, atol=1e-10)


def test_losses_of_perfect_matches_are_accurate():
    """Loss near 0: log-sum-exp minus target logit would leave only rounding errors."""
    class_weights = torch.eye(4, dtype=torch.float32)
    losses, hits = cosine_softmax(5 * class_weights, class_weights, torch.arange(4), 0.08)
    want = math.log1p(3 * math.exp(-12.5))  # 1.1e-5; float32 at 12.5 has steps of 1e-6
    assert losses.tolist() == pytest.approx([want] * 4, rel=1e-2)
    assert hits.all()


def test_module_is_the_mean_times_its_weight():
    loss = MODELS.build(dict(type='CosineSoftmaxLoss', temperature=0.1, loss_weight=0.5))
    assert isinstance(loss, CosineSoftmaxLoss)
    features, class_weights, targets = inputs(8, 5, 3)
    losses, hits = oracle(features, class_weights, targets, 0.1)
    value, accuracy = loss.with_accuracy(features, class_weights.requires_grad_(), targets)
    assert value.shape == accuracy.shape == ()
    torch.testing.assert_close(value, losses.mean() / 2)
    torch.testing.assert_close(loss(features, class_weights, targets), value)
    assert float(accuracy) == pytest.approx(100 * hits.double().mean().item())
    assert 0 < float(accuracy) < 100 and not accuracy.requires_grad
    assert CosineSoftmaxLoss().temperature == 0.2 and CosineSoftmaxLoss().loss_weight == 1.0


def test_smaller_integer_targets_are_fine():
    features, class_weights, targets = inputs(8, 5, 3)
    torch.testing.assert_close(cosine_softmax(features, class_weights, targets.to(torch.uint8))[0],
                               cosine_softmax(features, class_weights, targets)[0])


@pytest.mark.parametrize('temperature', [0, -0.2, math.nan, math.inf])
def test_bad_temperature(temperature):
    with pytest.raises(ValueError, match='temperature is'):
        CosineSoftmaxLoss(temperature=temperature)
    with pytest.raises(ValueError, match='temperature is'):
        cosine_softmax(*inputs(2, 3, 4), temperature)


def test_bad_loss_weight_and_block_elements():
    with pytest.raises(ValueError, match='loss_weight is nan'):
        CosineSoftmaxLoss(loss_weight=math.nan)
    with pytest.raises(ValueError, match='block_elements is 0'):
        cosine_softmax(*inputs(2, 3, 4), 0.2, 0)


@pytest.mark.parametrize(('shapes', 'message'), [
    (((4, 3), (5, 3), (4, 1)), r'targets \(B,\)'),
    (((4, 3, 1), (5, 3), (4,)), r'features \(B, d\)'),
    (((4, 3), (15,), (4,)), r'class_weights \(C, d\)'),
    (((4, 3), (5, 2), (4,)), 'agree in d'),
    (((4, 3), (5, 3), (3,)), 'targets in B'),
    (((0, 3), (5, 3), (0,)), 'batch is not empty'),
    (((4, 3), (0, 3), (4,)), r'class_weights \(0, 3\)'),
    (((4, 0), (5, 0), (4,)), r'features \(4, 0\)')])
def test_bad_shapes(shapes, message):
    features, class_weights, targets = shapes
    with pytest.raises(ValueError, match=message):
        cosine_softmax(torch.ones(features), torch.ones(class_weights),
                       torch.zeros(targets, dtype=torch.int64))


@pytest.mark.parametrize(('target', 'message'), [(-1, 'from -1 to 2'), (3, 'from 2 to 3')])
def test_target_outside_the_classes(target, message):
    features, class_weights, _ = inputs(2, 3, 4)
    with pytest.raises(ValueError, match=message):
        cosine_softmax(features, class_weights, torch.tensor([2, target]))


@pytest.mark.parametrize('target', [-1, 3, 10**9])
def test_unchecked_target_outside_the_classes_is_nan_not_a_crash(target, monkeypatch):
    """On a GPU targets are not looked at; the CPU stands in for it here."""
    monkeypatch.setattr(cosine_softmax_loss, '_check_inputs', lambda *_: None)
    losses, hits, *gradients = with_gradients(cosine_softmax, *inputs(2, 3, 4)[:2],
                                              torch.tensor([2, target]), 0.2)
    assert losses.isnan().tolist() == [False, True] and not hits[1]
    assert gradients[0][1].isnan().all() and gradients[0][0].isfinite().all()


def test_bad_dtypes():
    features, class_weights, targets = inputs(2, 3, 4)
    for bad in (targets.double(), targets.bool()):
        with pytest.raises(TypeError, match='targets must be integers'):
            cosine_softmax(features, class_weights, bad)
    with pytest.raises(TypeError, match='must be floating point'):
        cosine_softmax(features.long(), class_weights, targets)


def test_devices_must_agree():
    features, class_weights, targets = inputs(2, 3, 4)
    with pytest.raises(ValueError, match='features on cpu, class_weights on meta'):
        cosine_softmax(features, class_weights.to('meta'), targets)


def test_examples_in_docstrings():
    result = doctest.testmod(cosine_softmax_loss)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads the peak from /proc')
def test_extra_memory_is_bounded(tmp_path):
    """256 x 200,000 logits are 205 MB, and the plain version holds several such."""
    program = textwrap.dedent("""
        import re, torch
        from pic_plugin.losses import CosineSoftmaxLoss

        def megabytes(key):
            status = open('/proc/self/status').read()
            return int(re.search(key + r':\\s+(\\d+)', status).group(1)) / 1024

        def step(features, class_weights, targets):
            CosineSoftmaxLoss()(features, class_weights, targets).backward()

        torch.set_num_threads(1)
        small = [torch.randn(64, 128, requires_grad=True) for _ in range(2)]
        step(*small, torch.arange(64))  # libraries allocate their buffers
        features = torch.randn(256, 128, requires_grad=True)
        class_weights = torch.randn(200_000, 128, requires_grad=True)
        before = megabytes('VmRSS')
        step(features, class_weights, torch.arange(256))
        print(megabytes('VmHWM') - before, class_weights.grad.numel() * 4 / 2**20)
    """)
    status, output = run_alone(command, ['-c', program], tmp_path)
    assert status == 0, output
    peak, gradient = (float(number) for number in output.split()[-2:])
    assert 0.9 * gradient < peak  # the measurement sees what must be there
    assert peak - gradient < 64  # MB; blocks of 1 MB and vectors of B or C elements: about 15
