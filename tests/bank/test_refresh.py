# SPDX-License-Identifier: Apache-2.0
"""Returning rows against a slow reference, one row at a time in float64."""
import math

import numpy as np
import pytest
import torch

from pic_plugin.bank import SampledClassWeights, initial_rows
from pic_plugin.bank.refresh import LastVisits, Refresh, refresh_rows, turned


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


@pytest.mark.parametrize('feature', [
    (0.0, 0.0), (math.inf, 1.0), (math.nan, 1.0), (-3e8, 0.0)], ids=str)
def test_without_a_direction_a_row_stays(feature):
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    features = torch.tensor([feature, (0.0, 1.0)])
    assert torch.equal(turned(weight, features, 0.5), weight)


def test_huge_and_tiny_features_have_a_direction():
    weight = torch.randn(4, 6)
    features = torch.randn(4, 6)
    expected = turned(weight, features, 1.0)
    for scale in (1e37, 1e-37):
        torch.testing.assert_close(turned(weight, features * scale, 1.0), expected)


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


def test_images_return_after_a_longer_absence_than_the_bound_and_once_a_batch():
    visits = LastVisits(5)
    assert visits.visit(np.array([3, 1, 3]), 0, 2).tolist() == [0, 1]  # never seen before
    assert visits.visit(np.array([1, 3]), 2, 2).tolist() == []
    assert visits.visit(np.array([4, 1, 1, 3]), 5, 2).tolist() == [0, 1, 3]
    # Another batch of the same step, as with gradient accumulation.
    assert visits.visit(np.array([1, 0]), 5, 0).tolist() == [1]
    assert visits.steps.tolist() == [5, 5, -1, 5, 5]


class DenseRefresh:
    """The oracle: all N rows in torch's own SGD, float64, refreshed one by one."""

    def __init__(self, num_instances, share, away):
        start = initial_rows(np.arange(num_instances), 4, seed=3)
        self.weight = torch.nn.Parameter(torch.from_numpy(start).double())
        self.optimizer = torch.optim.SGD([self.weight], lr=0.2, momentum=0.9, weight_decay=0.01)
        self.share, self.away, self.last = share, away, {}

    def refresh(self, ids, features, step):
        for image, feature in zip(ids.tolist(), features.tolist()):
            if step - self.last.get(image, -10**9) > self.away:
                row = self.weight.data[image]
                row[:] = torch.tensor(slow_turn(row.tolist(), feature, self.share))
                if self.optimizer.state:
                    self.optimizer.state[self.weight]['momentum_buffer'][image] = 0
            self.last[image] = step


@pytest.mark.parametrize('num_negatives', [9, 30, None])
@pytest.mark.parametrize('accumulate', [1, 2])
@pytest.mark.parametrize('share, away', [(1.0, 0), (0.6, 3)])
def test_sampled_rows_are_refreshed_as_dense_training_would(num_negatives, accumulate, share,
                                                            away):
    num_instances, batch, steps = 30, 6, 40
    rng = np.random.default_rng(0)
    dense = DenseRefresh(num_instances, share, away)
    room = batch * (accumulate - 1)
    num_slots = num_instances if num_negatives in (None, 30) else num_negatives + room
    weight = torch.nn.Parameter(torch.empty(num_slots, 4))
    optimizer = torch.optim.SGD([weight], lr=0.2, momentum=0.9, weight_decay=0.01)
    sampled = SampledClassWeights(weight, optimizer, num_instances, num_negatives, seed=3)
    sampled.refresh_with(Refresh(share, away))
    sampled.start()
    recent, stream = [], np.repeat(np.arange(200) % 30, 3)  # three visits in a row, then away
    for step in range(steps):
        for part in range(accumulate):
            start = (step * accumulate + part) * batch // 3
            ids = rng.permutation(stream[start:start + batch])
            features = torch.from_numpy(rng.normal(size=(batch, 4)))
            recent = [one for one in recent if one not in ids] + list(
                dict.fromkeys(ids[::-1].tolist()))[::-1]
            kept = recent[-num_negatives:] if num_negatives == 9 else list(range(30))
            places = sampled.sample(ids)
            sampled.turn_returning(features.float())
            dense.refresh(ids, features.float().double(), step)
            for rows, targets in ((sampled.active.double(), places),
                                  (dense.weight[kept],
                                   torch.tensor([kept.index(i) for i in ids.tolist()]))):
                loss = torch.nn.functional.cross_entropy(
                    torch.nn.functional.normalize(features)
                    @ torch.nn.functional.normalize(rows).T / 0.2, targets)
                (loss / accumulate).backward()
        for one in (optimizer, dense.optimizer):
            one.step()
            one.zero_grad()
    # float32 rows beside float64, 40 steps
    torch.testing.assert_close(sampled.rows(range(num_instances)).double(), dense.weight.data,
                               atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('share', [-0.1, 1.1])
def test_a_share_outside_of_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match='share of 0 to 1'):
        turned(torch.ones(1, 2), torch.ones(1, 2), share)


def test_features_of_another_shape_are_refused():
    with pytest.raises(ValueError, match='each row needs a feature'):
        turned(torch.ones(2, 3), torch.ones(1, 3), 0.5)
