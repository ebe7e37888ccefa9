# SPDX-License-Identifier: Apache-2.0
"""Rows go from where they are to where they belong, whoever holds slots and stores classes."""
from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from pic_plugin.bank import Slots
from pic_plugin.communication import Communicator
from toys.threads import on_threads

NUM_SLOTS = 11


def value_of(class_id):
    return torch.tensor([class_id, -class_id], dtype=torch.float32)


def rows_of(ids):
    return torch.stack([value_of(i) for i in ids.tolist()]) if len(ids) else torch.empty(0, 2)


@pytest.fixture(params=[(1, False), (2, False), (3, False), (2, True), (3, True), (5, True)],
                ids=lambda param: f'{param[0]}{" sharded" if param[1] else ""}')
def everywhere(request):
    """Runs work(slots, ids, places) in each of several processes; ids have distinct slots."""
    world_size, sharded = request.param

    def run(work):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            count = int(rng.integers(0, NUM_SLOTS + 1))
            ids, places = rng.permutation(100)[:count], rng.permutation(NUM_SLOTS)[:count]
            on_threads(world_size, NUM_SLOTS, sharded, partial(work, ids=ids, places=places))

    return run


def test_each_slot_is_held_and_each_class_stored(everywhere):
    def work(slots, ids, places):
        held = slots.held(NUM_SLOTS)
        assert slots.holds(held).all() and slots.num_held(NUM_SLOTS) == len(held)
        assert slots.rows(held).tolist() == list(range(len(held))) and len(held) <= slots.num_rows
        assert len(held) == NUM_SLOTS or slots.is_sharded
        everyones = slots.processes.exchange_rows(
            torch.from_numpy(np.tile(held, slots.processes.size)),
            [len(held)] * slots.processes.size,
            [len(range(rank, NUM_SLOTS, slots.num_shards)) if slots.is_sharded else NUM_SLOTS
             for rank in range(slots.processes.size)], 'test')
        assert set(everyones.tolist()) == set(range(NUM_SLOTS))
        assert (slots.owners(ids) < slots.processes.size).all()

    everywhere(work)


def test_from_slots_to_those_that_store(everywhere):
    def work(slots, ids, places):
        sent = slots.sends(ids, places)
        assert slots.holds(places[sent]).all()  # they are here
        stored = slots.to_owners(rows_of(ids[sent]), ids, places)
        assert torch.equal(stored, rows_of(ids[slots.owns(ids)]))

    everywhere(work)


def test_from_those_that_store_to_slots(everywhere):
    def work(slots, ids, places):
        arrived = slots.to_holders(rows_of(ids[slots.owns(ids)]), ids, places)
        assert torch.equal(arrived, rows_of(ids[slots.holds(places)]))

    everywhere(work)


def test_from_slots_to_all(everywhere):
    def work(slots, ids, places):
        shared = slots.from_holders(rows_of(ids[slots.holds(places)]), places)
        assert torch.equal(shared, rows_of(ids))

    everywhere(work)


def test_nothing_is_sent_that_need_not_be():
    class Silent(Communicator):
        rank, size = 1, 3

        def exchange_rows(self, *args):
            raise AssertionError('asked other processes')

    slots, ids = Slots(NUM_SLOTS, Silent()), np.arange(9)
    own = rows_of(ids[slots.owns(ids)])
    assert slots.to_owners(own, ids, ids) is own
    assert slots.from_holders(own, ids) is own
    alone = Slots(NUM_SLOTS)
    assert alone.to_holders(own, ids[:3], ids[:3]) is own
