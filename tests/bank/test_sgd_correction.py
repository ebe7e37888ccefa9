# SPDX-License-Identifier: Apache-2.0
"""Transitions against torch.optim.SGD; their log against the product of all matrices."""
from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch

from pic_plugin.bank import SGDCorrection, TransitionLog, sgd_correction, sgd_transition

OPTIONS = [
    dict(momentum=momentum, weight_decay=weight_decay, dampening=dampening, nesterov=nesterov)
    for momentum, weight_decay, dampening, nesterov in itertools.product(
        (0.0, 0.9), (0.0, 1e-2), (0.0, 0.4), (False, True))
    if not nesterov or (momentum > 0 and dampening == 0)
]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_transition_is_a_step_of_torch_sgd(options):
    weight = torch.nn.Parameter(torch.randn(5, 3, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0, **options)
    rows = np.stack([weight.detach().numpy().copy(), np.zeros((5, 3))], axis=1)  # (5, 2, 3)
    for step in range(6):  # the first one makes the momentum buffer
        lr = 0.3 / (step + 1)
        optimizer.param_groups[0]['lr'] = lr
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        rows = sgd_transition(lr, first=step == 0, **options) @ rows
        np.testing.assert_allclose(rows[:, 0], weight.detach().numpy(), rtol=1e-13)
        buffer = optimizer.state[weight].get('momentum_buffer')
        if buffer is None:
            assert options['momentum'] == 0 and not rows[:, 1].any()
        else:
            np.testing.assert_allclose(rows[:, 1], buffer.numpy(), rtol=1e-13, atol=1e-300)


def test_momentum_that_is_switched_off_keeps_the_buffer():
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    rows = np.array([[1.0], [0.0]])
    for step, momentum in enumerate((0.9, 0.9, 0.0, 0.0, 0.9)):
        optimizer.param_groups[0]['momentum'] = momentum
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        rows = sgd_transition(0.1, momentum, weight_decay=0.5, first=step == 0) @ rows
    state = [weight.item(), optimizer.state[weight]['momentum_buffer'].item()]
    np.testing.assert_allclose(rows[:, 0], state, rtol=1e-14)


def random_transitions(count, seed=0):
    rng = np.random.default_rng(seed)
    return [sgd_transition(lr, 0.9, weight_decay=1e-3, first=i == 0)
            for i, lr in enumerate(rng.uniform(0, 0.1, count))]


def naive_products(transitions):
    """(n + 1, 2, 2): the product of all transitions from each place on."""
    products = [np.eye(2)]
    for transition in reversed(transitions):
        products.append(products[-1] @ transition)
    return np.array(products[::-1])


def filled(transitions):
    log = TransitionLog()
    for transition in transitions:
        log.append(transition)
    return log


# Association differs from the naive product: float64 rounding of up to 800 factors.
CLOSE = dict(rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize('count', [0, 1, 255, 256, 257, 511, 512, 3 * 256 + 5])
def test_product_since_any_step(count):
    transitions = random_transitions(count)
    log = filled(transitions)
    assert len(log) == count
    np.testing.assert_allclose(log.since(np.arange(count + 1)), naive_products(transitions),
                               **CLOSE)
    assert log.since(np.empty(0, dtype=np.int64)).shape == (0, 2, 2)
    np.testing.assert_array_equal(log.since(np.array([count])), np.eye(2)[None])


@pytest.mark.parametrize('radix', [2, 3, 4])
def test_many_levels(monkeypatch, radix):
    monkeypatch.setattr(sgd_correction, 'RADIX', radix)
    transitions = random_transitions(radix**4 + 3)
    log = TransitionLog()
    for count, transition in enumerate(transitions, 1):
        log.append(transition)
        np.testing.assert_allclose(log.since(np.arange(count + 1)),
                                   naive_products(transitions[:count]), **CLOSE)
    assert len(log._levels) == 5
    steps = np.random.default_rng(0).integers(0, count + 1, 50)  # unsorted, repeated
    np.testing.assert_array_equal(log.since(steps), log.since(np.arange(count + 1))[steps])


@pytest.mark.parametrize('radix, count', [(256, 0), (256, 3), (256, 256), (256, 700), (3, 81),
                                          (3, 100)])
def test_restored_log_continues_bit_for_bit(monkeypatch, radix, count):
    monkeypatch.setattr(sgd_correction, 'RADIX', radix)
    transitions = random_transitions(count + 300)
    log, twin = filled(transitions[:count]), TransitionLog()
    twin.load_state_dict(copy.deepcopy(log.state_dict()))
    for transition in transitions[count:]:
        log.append(transition)
        twin.append(transition)
    steps = np.arange(count + 301)
    np.testing.assert_array_equal(twin.since(steps), log.since(steps))
    assert twin.state_dict().keys() == log.state_dict().keys()
    for name, value in log.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], value)


@pytest.mark.parametrize('steps', [[-1, 2], [3, 6]])
def test_steps_of_another_run(steps):
    with pytest.raises(ValueError, match=rf'steps {steps[0]} to {steps[1]} are outside the 5'):
        filled(random_transitions(5)).since(np.array(steps))


def closed_rows_missing(state):
    state['closed_0'] = state['closed_0'][:-1]


def block_missing(state):
    state['closed_0'] = state['closed_0'][:-256]


def open_too_long(state):
    state['open_0'] = np.zeros((256, 2, 2))


@pytest.mark.parametrize('spoil', [closed_rows_missing, block_missing, open_too_long, dict.clear])
def test_states_that_do_not_belong_together(spoil):
    log = filled(random_transitions(600))
    state = log.state_dict()
    spoil(state)
    with pytest.raises(ValueError):
        log.load_state_dict(state)
    assert len(log) == 600


def test_rows_are_rounded_once():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 2, 3)).astype(np.float32)
    correction, since = SGDCorrection(), np.arange(4)
    for lr in (0.1, 0.05, 0.2):
        correction.before_step(dict(lr=lr, momentum=0.9, dampening=0, weight_decay=0.1,
                                    nesterov=False), dict(momentum_buffer=True))
        correction.after_step()
    products = correction.transitions.since(since)
    expected = np.einsum('rij,rjd->rid', products, rows.astype(np.float64)).astype(np.float32)
    advanced = correction.advance(rows, since)
    np.testing.assert_array_equal(advanced, expected)
    assert advanced.dtype == np.float32
    assert len(correction) == 3 and correction.decay(dict(
        lr=0.5, weight_decay=0.1, momentum=0.9), 10) == pytest.approx(0.5 * 0.1 * 10 / 0.1)
