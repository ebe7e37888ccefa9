# SPDX-License-Identifier: Apache-2.0
"""Returning rows against a slow reference, one row at a time in float64."""
import math

import pytest
import torch

from pic_plugin.bank.refresh import refresh_rows, returning, turned


def slow_turn(row, feature, share):
    """One row, in plain Python."""
    length = math.sqrt(sum(x * x for x in row))
    size = math.sqrt(sum(x * x for x in feature))
    if size == 0:
        return row
    own = [x / length if length else 0.0 for x in row]
    mixture = [(1 - share) * a + share * b / size for a, b in zip(own, feature)]
    norm = math.sqrt(sum(x * x for x in mixture))
    return [length * x / norm for x in mixture]


@pytest.mark.parametrize('share', [0.3, 0.8, 1.0])
def test_rows_are_turned_as_one_by_one(share):
    generator = torch.Generator().manual_seed(0)
    weight, features = (torch.randn(7, 5, generator=generator, dtype=torch.float64) * scale
                        for scale in (0.01, 30.0))
    features[3] = 0
    expected = [slow_turn(row, feature, share)
                for row, feature in zip(weight.tolist(), features.tolist())]
    # float64, a handful of operations
    torch.testing.assert_close(turned(weight, features, share),
                               torch.tensor(expected, dtype=torch.float64), atol=1e-14, rtol=1e-12)


def test_the_whole_share_points_to_the_feature_and_keeps_the_length():
    weight, features = torch.randn(6, 8), torch.randn(6, 8)
    new = turned(weight, features, 1.0)
    torch.testing.assert_close(new.norm(dim=1), weight.norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(new, features), torch.ones(6))


def test_only_the_given_rows_and_their_states_change():
    weight, states = torch.randn(9, 4), [torch.randn(9, 4), torch.rand(9, 4)]
    before = [tensor.clone() for tensor in (weight, *states)]
    rows, features = torch.tensor([7, 2]), torch.randn(2, 4)
    refresh_rows(weight, states, rows, features, 0.5)
    others = torch.tensor([0, 1, 3, 4, 5, 6, 8])
    for tensor, old in zip((weight, *states), before):
        assert torch.equal(tensor[others], old[others])
    assert not any(state[rows].any() for state in states)
    torch.testing.assert_close(weight[rows], turned(before[0][rows], features, 0.5))


def test_a_share_of_zero_changes_no_bit():
    weight, momentum = torch.randn(5, 3), torch.randn(5, 3)
    before = weight.clone(), momentum.clone()
    refresh_rows(weight, [momentum], torch.tensor([0, 4]), torch.randn(2, 3), 0.0)
    assert torch.equal(weight, before[0]) and torch.equal(momentum, before[1])


def test_half_precision_rows_keep_their_dtype():
    weight, features = torch.randn(4, 16).bfloat16(), torch.randn(4, 16)
    new = turned(weight, features, 1.0)
    assert new.dtype == torch.bfloat16
    # bfloat16 has 8 bits
    assert (torch.cosine_similarity(new.float(), features) > 1 - 1e-3).all()


def test_refresh_trains_on_as_dense_sgd_does_by_hand():
    """Three steps of SGD with a refresh between them, against steps written out in float64."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    by_hand, buffer = weight.detach().clone(), torch.zeros(6, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    rows, feature = torch.tensor([4]), torch.tensor([[0.0, 3.0, 4.0]], dtype=torch.float64)
    for step in range(3):
        if step == 2:
            states = [optimizer.state[weight]['momentum_buffer']]
            refresh_rows(weight.detach(), states, rows, feature, 1.0)
            by_hand[4] = by_hand[4].norm() * torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
            buffer[4] = 0
        optimizer.zero_grad()
        weight.pow(3).sum().backward()
        optimizer.step()
        buffer = 0.9 * buffer + 3 * by_hand.pow(2) + 0.01 * by_hand
        by_hand = by_hand - 0.1 * buffer
    torch.testing.assert_close(weight.detach(), by_hand, atol=1e-13, rtol=1e-12)


def test_returning_means_longer_than_the_bound():
    assert returning(torch.tensor([0, 16, 17, 10**9]), 16).tolist() == [False, False, True, True]


@pytest.mark.parametrize('share', [-0.1, 1.1])
def test_a_share_outside_of_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match='share of 0 to 1'):
        turned(torch.ones(1, 2), torch.ones(1, 2), share)


def test_features_of_another_shape_are_refused():
    with pytest.raises(ValueError, match='each row needs a feature'):
        turned(torch.ones(2, 3), torch.ones(1, 3), 0.5)
