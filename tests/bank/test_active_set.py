# SPDX-License-Identifier: Apache-2.0
"""The active set against a list of classes in the order in which they were last sampled."""
from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pic_plugin.bank import ActiveSet


class ListOracle:
    """Recency as a list, waiting classes as a set; follows the slots that the subject reports."""

    def __init__(self, num_negatives, num_slots):
        self.num_negatives, self.num_slots = num_negatives, num_slots
        self.recent, self.waiting, self.slot_of = [], set(), {}

    def update(self, ids, pending):
        """Classes that enter and that leave their slots."""
        entering = set(ids) - set(self.slot_of)
        self.waiting -= set(ids)
        leaving = set()
        if not pending:
            leaving, self.waiting = self.waiting, set()
        for i in ids:
            self.recent = [j for j in self.recent if j != i] + [i]
        pushed_out = self.recent[:-self.num_negatives]
        self.recent = self.recent[-self.num_negatives:]
        (self.waiting if pending else leaving).update(pushed_out)
        return entering, leaving

    def move(self, swap):
        for i, slot in zip(swap.leaving_ids.tolist(), swap.leaving_slots.tolist()):
            assert self.slot_of.pop(i) == slot
        for i, slot in zip(swap.entering_ids.tolist(), swap.entering_slots.tolist()):
            assert i not in self.slot_of and 0 <= slot < self.num_slots
            self.slot_of[i] = slot
        assert len(set(self.slot_of.values())) == len(self.slot_of), 'two classes in one slot'


def check(active_set, oracle, everyone):
    recent = oracle.recent
    assert len(active_set) == len(recent)
    slots = active_set.softmax_slots
    assert (np.diff(slots) > 0).all()
    assert set(active_set.ids[slots].tolist()) == set(recent)
    expected = [oracle.slot_of.get(i, -1) for i in everyone]
    np.testing.assert_array_equal(active_set.slots_of(np.array(everyone)), expected)
    assert set(oracle.slot_of) == set(recent) | oracle.waiting
    if recent:
        np.testing.assert_array_equal(active_set.softmax_slots_of(np.array(recent)),
                                      [oracle.slot_of[i] for i in recent])
    assert active_set.is_prefix == (slots.tolist() == list(range(len(slots))))


@st.composite
def trainings(draw):
    """K, room, and batches with whether gradients are pending; a period is ``accumulate`` long."""
    num_negatives = draw(st.integers(1, 9))
    batch = draw(st.integers(1, num_negatives))
    accumulate = draw(st.integers(1, 4))
    room = (accumulate - 1) * batch
    ids = st.lists(st.integers(0, draw(st.integers(0, 30))), min_size=1, max_size=batch)
    batches = draw(st.lists(ids, max_size=40))
    return num_negatives, room, [(ids, i % accumulate > 0) for i, ids in enumerate(batches)]


@settings(max_examples=300)
@given(trainings(), st.integers(0, 40))
def test_equals_list_of_recent_classes(training, save_at):
    num_negatives, room, batches = training
    active_set = ActiveSet(num_negatives, num_negatives + room)
    oracle = ListOracle(num_negatives, num_negatives + room)
    for i, (ids, pending) in enumerate(batches):
        if i == save_at:
            state = copy.deepcopy(active_set.state_dict())
            active_set = ActiveSet(num_negatives, num_negatives + room)
            active_set.load_state_dict(state)
        entering, leaving = oracle.update(ids, pending)
        swap = active_set.update(np.array(ids), pending)
        assert set(swap.entering_ids.tolist()) == entering
        assert set(swap.leaving_ids.tolist()) == leaving
        oracle.move(swap)
        check(active_set, oracle, range(31))
        if not room:
            assert active_set.is_prefix


def test_long_training_with_a_restored_twin():
    # Long enough for the queue to be rebuilt several times; the twin's is rebuilt at the restart.
    rng = np.random.default_rng(0)
    one, oracle = ActiveSet(50, 80), ListOracle(50, 80)
    twin = None
    for step in range(3000):
        ids, pending = rng.integers(0, 200, 10), step % 4 > 0
        oracle.update(ids.tolist(), pending)
        swap = one.update(ids, pending)
        oracle.move(swap)
        if twin is not None:
            for got, expected in zip(twin.update(ids, pending), swap):
                np.testing.assert_array_equal(got, expected)
        if step == 1501:
            twin = ActiveSet(50, 80)
            twin.load_state_dict(copy.deepcopy(one.state_dict()))
    check(one, oracle, range(200))
    for name, value in one.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], value)


@pytest.mark.parametrize('ids, pending, message', [
    ([0, 1, 2, 3, 4], False, 'global batch of 5 instances.*num_negatives=4'),
    ([7, 8, 9], True, r'brings 3 classes into the softmax, and only 2 slots.*pending_rows'),
])
def test_errors_leave_it_as_it_was(ids, pending, message):
    active_set = ActiveSet(4, 6)
    active_set.update(np.array([0, 1, 2, 3]))
    before = copy.deepcopy(active_set.__dict__)
    with pytest.raises(ValueError, match=message):
        active_set.update(np.array(ids), pending)
    for name, value in before.items():
        np.testing.assert_array_equal(active_set.__dict__[name], value, err_msg=name)


def test_classes_outside_have_no_position():
    active_set = ActiveSet(2, 4)
    active_set.update(np.array([0, 1]))
    active_set.update(np.array([2]), pending=True)  # parks 0
    with pytest.raises(KeyError, match='0'):
        active_set.softmax_slots_of(np.array([1, 0]))
    with pytest.raises(KeyError):
        active_set.softmax_slots_of(np.array([5]))
    assert active_set.slots_of(np.array([0, 5])).tolist() == [0, -1]


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match='3 slots cannot hold 4'):
        ActiveSet(4, 3)
    large = ActiveSet(4, 4)
    large.update(np.arange(4))
    with pytest.raises(ValueError, match='4 active classes in 4 slots do not fit'):
        ActiveSet(2, 4).load_state_dict(large.state_dict())
    roomy = ActiveSet(4, 6)
    roomy.load_state_dict(large.state_dict())
    swap = roomy.update(np.array([7]), pending=True)
    assert swap.entering_slots.tolist() == [4] and roomy.slots_of(np.arange(4)).min() >= 0
    with pytest.raises(ValueError, match='in 6 slots do not fit a set of 4 in 4'):
        ActiveSet(4, 4).load_state_dict(roomy.state_dict())
