# SPDX-License-Identifier: Apache-2.0
"""Rows that were left alone and corrected against dense torch.optim.AdamW in float64."""
import math

import numpy as np
import pytest
import torch

from pic_plugin.bank import AdamWCorrection, correction_for
from pic_plugin.bank.adamw_correction import _num_steps, _Options
from pic_plugin.bank.quotient_sums import num_nodes
from toys.sampled import FUSES_ON_CPUS

ROWS, D = 24, 12


def constant(step, num_steps):
    return 1.0


def warmup_and_cosine(step, num_steps):
    """Zero in the first steps, then up, then down to zero."""
    warmup = num_steps // 10
    if step < warmup:
        return max(0, step - 3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))


def train(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, num_steps=400,
          schedule=warmup_and_cosine, decay_schedule=None, seed=0, rows=ROWS, last_visit=1.0,
          **options):
    """Dense AdamW on rows that are left one after the other, and the same rows corrected.

    Gradients of each element are of a size of their own, over ten decades. Row 0 is never visited,
    and row 1 is left after one step. ``last_visit`` is the step at which the last row is left, as a
    share of the training.

    Returns:
        tuple: dense (rows, 3, D) float64 at the end, corrected ones as float32, and the correction.
    """
    generator = np.random.default_rng(seed)
    weight = torch.nn.Parameter(torch.from_numpy(
        generator.normal(0, 0.01, (rows, D)).astype(np.float32)).double())
    kind = options.pop('kind', torch.optim.AdamW)
    optimizer = kind([weight], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **options)
    correction = correction_for(optimizer, weight)
    group = optimizer.param_groups[0]
    scale = 10.0**generator.uniform(-9, 1, (rows, D))
    left_after = np.sort(generator.integers(2, 1 + max(2, int(num_steps * last_visit)), rows))
    left_after[:2] = 0, 1
    stored = np.zeros((rows, 3, D), dtype=np.float32)
    stored[0, 0] = weight.detach()[0].float()
    for step in range(1, num_steps + 1):
        group['lr'] = lr * schedule(step - 1, num_steps)
        if decay_schedule is not None:
            group['weight_decay'] = decay_schedule(step - 1, num_steps)
        grad = generator.normal(size=(rows, D)) * scale
        grad[left_after < step] = 0
        weight.grad = torch.from_numpy(grad)
        correction.before_step(group, optimizer.state.get(weight, {}))
        optimizer.step()
        correction.after_step()
        leaving = np.flatnonzero(left_after == step)
        if len(leaving):
            planes = [weight.data, optimizer.state[weight]['exp_avg'],
                      optimizer.state[weight]['exp_avg_sq']]
            for i, plane in enumerate(planes):
                # The oracle goes on from what is stored, so that only the correction is compared.
                plane[leaving] = plane[leaving].float().double()
                stored[leaving, i] = plane[leaving].numpy()
    state = optimizer.state[weight]
    dense = torch.stack([weight.detach(), state['exp_avg'], state['exp_avg_sq']], dim=1).numpy()
    return dense, correction.advance(stored, left_after), correction


def assert_equals_dense(dense, corrected, steps=1e-9):
    """Up to one rounding to float32, and a 1e-9 of a step (a step is at most 0.1 here)."""
    np.testing.assert_allclose(corrected[:, 0], dense[:, 0], rtol=7e-8, atol=steps)
    # Moments fade to nothing, where float32 has fewer bits.
    np.testing.assert_allclose(corrected[:, 1:], dense[:, 1:], rtol=7e-8, atol=1e-44)


CASES = dict(
    default={},
    constant_rate=dict(schedule=constant),
    no_decay=dict(weight_decay=0.0),
    strong_decay=dict(weight_decay=0.1, lr=0.1),
    beta2_of_transformers=dict(betas=(0.9, 0.95)),
    beta2_980=dict(betas=(0.9, 0.98)),
    beta2_close_to_beta1_squared=dict(betas=(0.9, 0.86)),
    slow=dict(betas=(0.95, 0.9999)),
    beta2_next_to_one=dict(betas=(0.9, 0.999999)),
    beta1_zero=dict(betas=(0.0, 0.999)),
    both_betas_zero=dict(betas=(0.0, 0.0)),
    beta1_small=dict(betas=(0.1, 0.999)),
    large_eps=dict(eps=1e-6),
    huge_eps=dict(eps=1.0, lr=0.1),
    tiny_eps=dict(eps=1e-20),
    maximize=dict(maximize=True),
    foreach=dict(foreach=True),
    fused=dict(fused=True),
    rate_in_a_tensor=dict(lr=torch.tensor(1e-2, dtype=torch.float64)),
    adam_without_decay=dict(kind=torch.optim.Adam, weight_decay=0.0),
    decay_schedule=dict(decay_schedule=lambda step, num: 0.1 * step / num),
    rate_that_jumps=dict(schedule=lambda step, num: 1.0 if step % 50 < 3 else 1e-3),
)


@pytest.mark.parametrize('num_steps', [12, 400])
@pytest.mark.parametrize('case', CASES)
def test_equals_dense_adamw(case, num_steps):
    if case == 'fused' and not FUSES_ON_CPUS:
        pytest.skip('this torch fuses on GPUs alone')
    dense, corrected, correction = train(num_steps=num_steps, **CASES[case])
    assert len(correction) == num_steps
    assert_equals_dense(dense, corrected)


@pytest.mark.parametrize('case', ['default', 'strong_decay', 'beta2_of_transformers', 'slow',
                                  'beta2_next_to_one', 'beta1_zero', 'tiny_eps'])
def test_absences_of_thousands_of_steps(case):
    assert_equals_dense(*train(num_steps=5000, last_visit=0.3, **CASES[case])[:2])


@pytest.mark.parametrize('seed', range(12))
def test_equals_dense_adamw_at_random(seed):
    draw = np.random.default_rng(100 + seed)
    beta2 = 1 - 10**draw.uniform(-3.5, -1.3)
    dense, corrected, _ = train(
        lr=10**draw.uniform(-4, -1.5), betas=(draw.uniform(0, 0.98) * beta2**0.5, beta2),
        eps=10**draw.uniform(-10, -4), weight_decay=draw.choice([0, 0.01, 0.1]),
        num_steps=int(draw.integers(100, 2500)), last_visit=draw.uniform(0.05, 1), seed=seed)
    assert_equals_dense(dense, corrected)


def test_momentum_of_absent_rows_matters(monkeypatch):
    """Decay alone is not enough, so the tests above can fail."""
    monkeypatch.setattr('pic_plugin.bank.adamw_correction.sum_of_quotients',
                        lambda r, c, x: np.zeros_like(r))
    dense, corrected, _ = train()
    assert np.abs(dense[:, 0] - corrected[:, 0]).max() > 0.01


def test_rows_of_now_stay_as_they_are():
    _, corrected, correction = train(num_steps=20)
    np.testing.assert_array_equal(correction.advance(corrected, np.full(ROWS, 20)), corrected)


def test_many_rows_at_once_and_none():
    _, _, correction = train(num_steps=60)
    rows = np.abs(np.random.default_rng(0).normal(size=(2500, 3, 4))).astype(np.float32)
    since = np.random.default_rng(1).integers(0, 61, 2500)
    together = correction.advance(rows, since)
    before = rows.copy()
    for i in range(0, 2500, 137):
        np.testing.assert_allclose(together[i:i + 1], correction.advance(
            rows[i:i + 1], since[i:i + 1]), rtol=2e-7, atol=1e-10)
    np.testing.assert_array_equal(rows, before)
    assert correction.advance(rows[:0], since[:0]).shape == (0, 3, 4)


def test_long_trainings_need_no_more_nodes_or_steps():
    """An absence costs the same after 400 steps and after 4 million."""
    assert _num_steps(_Options(0.9, 0.999, 1e-8)) == 220
    assert _num_steps(_Options(0.9, 0.95, 1e-8)) == 293
    for first_step in (3000, 4 * 10**6):
        assert num_nodes(220, -0.5 * math.log(0.999), first_step) <= 7
        assert num_nodes(293, -0.5 * math.log(0.95), first_step) == 29


def test_saved_and_loaded_bit_for_bit():
    _, _, correction = train(num_steps=70)
    other = AdamWCorrection()
    other.load_state_dict({name: np.array(array) for name, array in
                           correction.state_dict().items()})
    assert len(other) == 70
    rows = np.abs(np.random.default_rng(0).normal(size=(30, 3, 4))).astype(np.float32)
    since = np.arange(30) * 2
    group = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, amsgrad=False,
                 decoupled_weight_decay=True)
    for one in (correction, other):
        for step in range(70, 90):
            one.before_step(group, dict(step=torch.tensor(float(step))))
            one.after_step()
    np.testing.assert_array_equal(correction.advance(rows, since), other.advance(rows, since))
    for name, array in correction.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[name])


def test_saved_before_the_first_step():
    other = AdamWCorrection()
    other.load_state_dict(AdamWCorrection().state_dict())
    assert len(other) == 0


@pytest.mark.parametrize('state', [
    dict(), dict(closed_0=np.zeros((0, 2, 2)), open_0=np.zeros((3, 2, 2))),
    dict(options=np.zeros(0), steps=np.zeros((3, 2))),
    dict(options=np.zeros(4), steps=np.zeros((3, 1))),
])
def test_state_of_another_correction(state):
    with pytest.raises(ValueError, match='AdamW'):
        AdamWCorrection().load_state_dict(state)


def check(kind=torch.optim.AdamW, **options):
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    other = torch.nn.Parameter(torch.zeros(1))
    optimizer = kind([dict(params=[other], lr=0.5), dict(params=[weight], **options)], lr=1e-3)
    assert type(correction_for(optimizer, weight)) is AdamWCorrection


@pytest.mark.parametrize('options, message', [
    (dict(kind=torch.optim.Adam, weight_decay=0.1), 'feeds its moments.*type="AdamW"'),
    (dict(amsgrad=True), 'amsgrad=False'),
    (dict(eps=0.0), 'eps=0 divides 0 by 0.*eps=1e-8'),
    (dict(betas=(0.9, 0.8)), 'betas=.0.9, 0.8.*more than 32768 steps.*root of beta2'),
    (dict(betas=(0.95, 0.9025)), 'root of beta2'),
    (dict(betas=(0.9, 0.0)), 'root of beta2'),
    (dict(betas=(0.999999, 0.999999)), 'more than 32768 steps'),
    (dict(kind=torch.optim.NAdam), 'is NAdam: its momentum .*PICOptimWrapperConstructor'),
    (dict(kind=torch.optim.RMSprop), 'the optimizer is RMSprop: what it does'),
])
def test_what_has_no_correction(options, message):
    with pytest.raises(ValueError, match=message):
        check(**options)


def test_options_that_have_one():
    check()
    check(maximize=True, betas=(0.0, 0.0))
    check(torch.optim.Adam)


@pytest.mark.parametrize('change, message', [
    (dict(betas=(0.8, 0.999)), r'betas=\(0.8, 0.999\), eps=1e-08 after steps with betas=\(0.9'),
    (dict(eps=1e-6), 'eps=1e-06 after steps with'),
    (dict(lr=20.0), '20 times the weight decay 0.05 is not below 1'),
    (dict(amsgrad=True), 'amsgrad'),
])
def test_options_that_change(change, message):
    _, _, correction = train(num_steps=20)
    group = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, amsgrad=False,
                 decoupled_weight_decay=True)
    with pytest.raises(ValueError, match=message):
        correction.before_step(dict(group, **change), dict(step=torch.tensor(20.0)))
    with pytest.raises(RuntimeError, match='no step to record'):
        correction.after_step()
    with pytest.raises(ValueError, match='has taken 7 steps .* knows of 20'):
        correction.before_step(group, dict(step=torch.tensor(7.0)))


def test_optimizer_that_has_taken_steps_before():
    """Its bias corrections go on from there, and so does the correction."""
    group = dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False,
                 decoupled_weight_decay=True)
    correction = AdamWCorrection()
    correction.before_step(group, dict(step=torch.tensor(4.0)))
    correction.after_step()
    row = np.array([[[0.0], [1.0], [4.0]]], dtype=np.float32)
    moved = correction.advance(row, np.array([0]))
    expected = -1e-2 / (1 - 0.9**5) * 0.9 / (2 * 0.999**0.5 / (1 - 0.999**5)**0.5 + 1e-8)
    assert moved[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_step_that_was_not_taken():
    """A gradient scaler that skips a step leaves no trace."""
    group = dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False,
                 decoupled_weight_decay=True)
    skipped, plain = AdamWCorrection(), AdamWCorrection()
    skipped.before_step(dict(group, lr=1.0), {})
    for correction in (skipped, plain):
        correction.before_step(group, {})
        correction.after_step()
    np.testing.assert_array_equal(skipped.state_dict()['steps'], plain.state_dict()['steps'])


@pytest.mark.parametrize('since', [-1, 21])
def test_rows_of_another_run(since):
    _, _, correction = train(num_steps=20)
    with pytest.raises(ValueError, match='another run'):
        correction.advance(np.zeros((2, 3, 4), dtype=np.float32), np.array([3, since]))


def test_decay():
    group = dict(lr=1e-3, weight_decay=0.05)
    assert AdamWCorrection().decay(group, 1000) == pytest.approx(0.05)
