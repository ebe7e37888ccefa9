# SPDX-License-Identifier: Apache-2.0
"""The bank by itself; the trainings that it is for are in test_dense_oracle.py and tests/engine."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from pic_plugin.bank import (
    InstanceBank,
    NoCorrection,
    SGDCorrection,
    Slots,
    SlotTensors,
    Storage,
    initial_rows,
    sgd_transition,
)
from toys.threads import on_threads

D, SEED = 4, 9
STEP = sgd_transition(0.1, 0.9, weight_decay=0.1)
GROUP = dict(lr=0.1, momentum=0.9, dampening=0, weight_decay=0.1, nesterov=False)
DTYPES = [torch.float64, torch.float32, torch.float16]


def make(num_instances=20, num_negatives=4, room=0, num_states=1, dtype=torch.float32,
         correct=True, kept_states='as many', slots=None, **storage):
    """A bank and the tensors of a head that has been trained with ``num_states`` states."""
    num_slots = num_instances if num_negatives is None else min(num_negatives + room, 10**4)
    slots = slots or Slots(num_slots)
    kept = num_states if kept_states == 'as many' else kept_states
    names = None if kept is None else ('state', ) * kept
    bank = InstanceBank(num_instances, num_negatives, slots, D, SEED,
                        SGDCorrection() if correct else NoCorrection(names), Storage(**storage))
    tensors = SlotTensors(torch.ones(slots.num_rows, D, dtype=dtype),
                          [torch.zeros(slots.num_rows, D, dtype=dtype) for _ in range(num_states)])
    bank.start(tensors)
    return bank, tensors


def take_step(bank):
    """What the optimizer's hooks do around a step that is not the first."""
    bank.correction.before_step(GROUP, dict(momentum_buffer=True))
    bank.record_step()


def arange(start, stop):
    return np.arange(start, stop, dtype=np.int64)


@pytest.mark.parametrize('num_negatives', [None, 20, 25])
def test_full_softmax(num_negatives):
    bank, tensors = make(num_negatives=num_negatives)
    tensors = SlotTensors(tensors.weight[:20], tensors.states)
    assert bank.is_full and bank.softmax_rows == slice(0, 20)
    assert torch.equal(tensors.weight, torch.from_numpy(initial_rows(arange(0, 20), D, SEED)))
    assert len(bank.sample(np.array([3, 3, 19]), tensors)) == 0
    take_step(bank)
    assert bank.step == 1 and bank.store is None and len(bank.correction) == 0
    assert bank.active_ids.tolist() == list(range(20))
    assert bank.positions(np.array([3, 19])).tolist() == [3, 19]
    assert torch.equal(bank.class_weights(np.array([5, 2]), tensors.weight), tensors.weight[[5, 2]])


@pytest.mark.parametrize('path', [None, 'rows.bank'])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('num_states', [0, 1, 2])
def test_uncorrected_rows_return_as_they_left(tmp_path, dtype, num_states, path):
    path = path and tmp_path / path
    bank, tensors = make(correct=False, num_states=num_states, dtype=dtype, path=path)
    bank.sample(arange(0, 4), tensors)
    take_step(bank)
    for tensor in (tensors.weight, *tensors.states):
        tensor.normal_()
    left = [tensor.float().clone() for tensor in (tensors.weight, *tensors.states)]
    where = bank.active_set.slots_of(arange(0, 4))
    assert bank.sample(arange(4, 8), tensors).tolist() == [1] * 4  # initial rows: one step missed
    for tensor in tensors.states:
        assert not tensor.any()
    take_step(bank)
    assert bank.sample(arange(0, 4), tensors).tolist() == [1] * 4
    back = bank.active_set.slots_of(arange(0, 4))
    for tensor, before in zip((tensors.weight, *tensors.states), left):
        assert torch.equal(tensor[back].float(), before[where])
    assert (path is None) or path.exists()


def test_states_that_are_made_later_begin_at_zero():
    bank, tensors = make(correct=False, num_states=0, kept_states=2)
    bank.sample(arange(0, 4), tensors)
    take_step(bank)
    bank.sample(arange(4, 8), tensors)  # stored while there were no states
    tensors = SlotTensors(tensors.weight, [torch.ones_like(tensors.weight) for _ in range(2)])
    bank.sample(arange(0, 4), tensors)
    assert all(not state.any() for state in tensors.states)


def test_corrected_row_is_owed_what_it_missed():
    bank, tensors = make()
    bank.sample(arange(0, 4), tensors)
    take_step(bank)
    tensors.weight.normal_()
    tensors.states[0].normal_()
    slot = int(bank.active_set.slots_of(np.array([2]))[0])
    row = torch.stack([tensors.weight[slot], tensors.states[0][slot]]).double().numpy()
    bank.sample(arange(4, 8), tensors)
    for _ in range(3):
        take_step(bank)
    expected = np.linalg.matrix_power(STEP, 3) @ row
    np.testing.assert_allclose(bank.class_weights(np.array([2]), tensors.weight)[0], expected[0],
                               rtol=1e-6)  # float32
    assert bank.sample(np.array([2]), tensors).tolist() == [3]
    slot = int(bank.active_set.slots_of(np.array([2]))[0])
    np.testing.assert_allclose(tensors.weight[slot], expected[0], rtol=1e-6)
    np.testing.assert_allclose(tensors.states[0][slot], expected[1], rtol=1e-6)
    fresh = np.linalg.matrix_power(STEP, 4) @ np.stack(
        [initial_rows(np.array([15]), D, SEED)[0].astype(float), np.zeros(D)])
    np.testing.assert_allclose(bank.class_weights(np.array([15]), tensors.weight)[0], fresh[0],
                               rtol=1e-6)


def test_corrected_bank_knows_the_momentum_before_a_row_is_stored():
    bank, tensors = make(num_states=1, kept_states=None)
    bank.sample(arange(0, 2), tensors)
    take_step(bank)
    bank.sample(arange(2, 4), tensors)  # nothing has left yet
    fresh = STEP @ np.stack([initial_rows(np.array([3]), D, SEED)[0].astype(float), np.zeros(D)])
    slot = int(bank.active_set.slots_of(np.array([3]))[0])
    np.testing.assert_allclose(tensors.states[0][slot], fresh[1], rtol=1e-6)


def test_rows_that_leave_before_the_first_step_are_not_stored():
    bank, tensors = make()
    bank.sample(arange(0, 4), tensors)
    bank.sample(arange(4, 8), tensors)
    assert bank.store is None
    assert torch.equal(bank.class_weights(arange(0, 20), tensors.weight),
                       torch.from_numpy(initial_rows(arange(0, 20), D, SEED)))


def test_rows_with_pending_gradients_stay_in_their_slots():
    bank, tensors = make(room=4)
    bank.sample(arange(0, 4), tensors)
    take_step(bank)
    tensors.weight[:4] = torch.arange(4.0)[:, None]
    bank.sample(arange(4, 6), tensors, pending=True)
    assert sorted(bank.active_ids.tolist()) == [2, 3, 4, 5]
    assert bank.softmax_rows.tolist() == [2, 3, 4, 5] and bank.store is None
    assert bank.positions(np.array([4, 2])).tolist() == [
        bank.active_ids.tolist().index(4), bank.active_ids.tolist().index(2)]
    tensors.weight[0] = 7  # the step moves a waiting row too
    take_step(bank)
    assert bank.class_weights(np.array([0]), tensors.weight)[0, 0] == 7
    bank.sample(np.array([5]), tensors)
    assert (bank.store.read(np.array([0, 1]))[0] == 2).all()
    assert bank.class_weights(np.array([0]), tensors.weight)[0, 0] == 7
    assert not tensors.weight[:2].any()


@pytest.mark.parametrize('num_negatives', [None, 4])
@pytest.mark.parametrize('ids', [[0, 20], [-1, 3]])
def test_ids_outside(num_negatives, ids):
    bank, tensors = make(num_negatives=num_negatives)
    before = tensors.weight.clone()
    for call in (lambda: bank.sample(np.array(ids), tensors),
                 lambda: bank.class_weights(np.array(ids), tensors.weight)):
        with pytest.raises(ValueError, match=r'lie outside the 20 instances \[0, 20\)'):
            call()
    assert torch.equal(tensors.weight, before)


def noisy_training(slots=None):
    """Tensors, class weights and staleness of a training in which noise is the gradient."""
    rng = np.random.default_rng(0)
    bank, tensors = make(num_negatives=6, slots=slots)
    staleness = []
    for _ in range(25):
        staleness += bank.sample(rng.integers(0, 20, 5), tensors).tolist()
        noise = torch.from_numpy(rng.normal(size=tensors.weight.shape)).float()
        noise *= torch.from_numpy(bank.active_set.active)[:, None]
        tensors.weight.add_(noise)
        tensors.states[0].sub_(noise)
        take_step(bank)
    return bank, tensors, staleness, bank.class_weights(arange(0, 20), tensors.weight)


@pytest.mark.parametrize('world_size', [2, 3])
def test_ranks_do_what_one_process_does(world_size):
    ranks = on_threads(world_size, 6, False, noisy_training)
    _, tensors, staleness, rows = noisy_training()
    assert max(staleness) > 3
    # Each knows of the rows that it stores.
    assert sorted(sum((rank[2] for rank in ranks), [])) == sorted(staleness)
    for rank, (bank, own_tensors, _, own_rows) in enumerate(ranks):
        assert torch.equal(own_tensors.weight, tensors.weight)
        assert torch.equal(own_tensors.states[0], tensors.states[0])
        assert torch.equal(own_rows, rows)
        stored = np.concatenate([chunk[0] for chunk in bank.store.written()])
        assert bank.store.num_bytes == -(-20 // world_size) * (8 + 2 * D * 4)
        assert 0 < len(stored) <= -(-(20 - rank) // world_size)


@pytest.mark.parametrize('num_states', [1, 2])
@pytest.mark.parametrize('accumulate', [1, 3])
@pytest.mark.parametrize('world_size', [2, 3, 5])
def test_shards_hold_what_one_process_holds(world_size, accumulate, num_states):
    room = 5 * (accumulate - 1)
    num_slots = 6 + room

    def train(slots=None):
        rng = np.random.default_rng(0)
        bank, tensors = make(20, 6, room, num_states, kept_states=None, correct=num_states == 1,
                             slots=slots)
        own = bank.slots.held(num_slots)
        seen = []
        for i in range(40):
            ids = rng.integers(0, 20, 5)
            missed = bank.sample(ids, tensors, pending=i % accumulate > 0)
            held = bank.positions(ids)
            rows = tensors.weight[bank.softmax_rows]
            seen.append((missed.sum(), bank.active_ids.tolist(),
                         {int(ids[j]): rows[held[j]].clone() for j in np.flatnonzero(held >= 0)},
                         len(rows)))
            if (i + 1) % accumulate == 0:
                noise = torch.from_numpy(rng.normal(size=(num_slots, D))).float()
                noise *= torch.from_numpy(bank.active_set.ids >= 0)[:, None]
                for tensor in (tensors.weight, *tensors.states):
                    tensor[:len(own)] += noise[own]
                take_step(bank)
        return bank, tensors, seen, bank.class_weights(arange(0, 20), tensors.weight)

    _, tensors, seen, class_weights = train()
    ranks = on_threads(world_size, num_slots, True, train)
    assert max(step[0] for step in seen) > 3
    for i, (missed, active_ids, rows, num_rows) in enumerate(seen):
        steps = [rank[2][i] for rank in ranks]
        assert sum(step[0] for step in steps) == missed
        assert sum(step[3] for step in steps) == num_rows
        assert all(step[1] == active_ids for step in steps)
        assert sum(len(step[2]) for step in steps) == len(rows)
        for place, row in rows.items():
            got, = (step[2][place] for step in steps if place in step[2])
            assert torch.equal(got, row)
    for rank, (bank, own_tensors, _, own_class_weights) in enumerate(ranks):
        assert torch.equal(own_class_weights, class_weights)
        own = bank.slots.held(num_slots)
        for tensor, part in zip((tensors.weight, *tensors.states),
                                (own_tensors.weight, *own_tensors.states)):
            assert torch.equal(part[:len(own)], tensor[own])
            assert not part[len(own):].any()
        stored = np.concatenate([chunk[0] for chunk in bank.store.written()])
        assert len(stored) <= -(-(20 - rank) // world_size)


@pytest.mark.parametrize('world_size', [2, 3])
def test_full_softmax_in_shards(world_size):
    ids = np.array([3, 0, 19, 3])

    def look(slots):
        bank, tensors = make(num_negatives=None, num_states=0, slots=slots)
        assert not len(bank.sample(ids, tensors))
        return (bank.positions(ids).tolist(), tensors.weight[bank.softmax_rows],
                bank.class_weights(np.array([5, 2]), tensors.weight))

    initial = torch.from_numpy(initial_rows(arange(0, 20), D, SEED))
    for rank, (positions, weight, looked_up) in enumerate(
            on_threads(world_size, 20, True, look)):
        assert positions == [i // world_size if i % world_size == rank else -1 for i in ids]
        assert torch.equal(weight, initial[rank::world_size])
        assert torch.equal(looked_up, initial[[5, 2]])


def test_a_class_outside_the_softmax_has_no_place():
    bank, tensors = make()
    bank.sample(arange(0, 4), tensors)
    with pytest.raises(KeyError):
        bank.positions(np.array([7]))
