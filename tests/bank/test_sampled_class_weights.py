# SPDX-License-Identifier: Apache-2.0
"""The core in a loop of one's own: what goes in and out, and what is refused.

That it trains as the dense optimizer does is in test_dense_oracle.py.
"""
import copy
import doctest
import gc
import weakref

import numpy as np
import pytest
import torch

from pic_plugin.bank import (
    NoCorrection,
    Refresh,
    SampledClassWeights,
    Storage,
    sampled_class_weights,
)
from pic_plugin.losses import cosine_softmax
from toys.processes import run_ranks
from toys.sampled import group_comes_late, make, step, train_in_a_process


def test_the_example_of_the_docstring():
    result = doctest.testmod(sampled_class_weights)
    assert result.attempted > 5 and not result.failed


def test_rows_before_start_have_no_values():
    with pytest.raises(RuntimeError, match=r'call start\(\) once'):
        make().sample([1, 2])


@pytest.mark.parametrize('num_negatives', [8, None])
def test_a_training_that_has_begun_begins_only_once(num_negatives):
    sampled = make(num_negatives)
    sampled.start()
    step(sampled, [1, 2])
    restored = make(num_negatives)
    restored.weight.data.copy_(sampled.weight)
    restored.load_state_dict(sampled.state_dict())
    for begun in (sampled, restored):
        rows = begun.rows(range(40))
        with pytest.raises(RuntimeError, match=r'this one has begun: call it once'):
            begun.start()
        assert torch.equal(begun.rows(range(40)), rows)


@pytest.mark.parametrize('num_negatives', [8, None])
def test_the_caller_may_use_its_ids_again(num_negatives):
    sampled = make(num_negatives)
    sampled.start()
    ids = torch.tensor([5, 9, 5])
    targets = sampled.sample(ids)
    expected = targets.clone()
    ids.zero_()
    assert torch.equal(targets, expected) and sampled.batch.ids.tolist() == [5, 9, 5]


@pytest.mark.parametrize('ids, error, message', [
    ([1.7, 2.2], TypeError, 'integers, not torch.float32'),
    ([[1, 2]], ValueError, r'not of shape \(1, 2\)'),
    ([True], TypeError, 'integers'),
    ([40], ValueError, r'outside the 40 instances'),
    (range(9), ValueError, '9 instances does not fit num_negatives=8'),
])
def test_ids_that_are_none(ids, error, message):
    sampled = make()
    sampled.start()
    with pytest.raises(error, match=message):
        sampled.sample(list(ids))


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match='weight has 5 rows for a softmax over 8 classes'):
        make(num_rows=5)
    with pytest.raises(ValueError, match='at least 1, or None'):
        make(0, num_rows=4)
    weight = torch.nn.Parameter(torch.empty(8, 4))
    other = torch.optim.SGD([torch.nn.Parameter(torch.empty(1))], lr=0.1)
    with pytest.raises(ValueError, match='does not train the class weights'):
        SampledClassWeights(weight, other, 40, 8)


def test_a_softmax_over_all_needs_no_correction():
    sampled = make(None, optimizer=torch.optim.Adagrad, options=dict(lr=0.1))
    sampled.start()
    step(sampled, [1, 2])
    sampled.optimizer.step()
    assert sampled.bank.is_full and not sampled.bank.correction.corrects
    with pytest.raises(ValueError, match=r'correction=NoCorrection\(\)'):
        make(8, optimizer=torch.optim.Adagrad, options=dict(lr=0.1))


def test_uncorrected_rows_keep_all_that_the_optimizer_has():
    """amsgrad keeps three tensors for each row, where AdamW without it keeps two."""
    sampled = make(optimizer=torch.optim.AdamW, options=dict(lr=0.1, amsgrad=True),
                   correction=NoCorrection())
    sampled.start()
    for first in (0, 8, 16, 0):
        step(sampled, np.arange(first, first + 8))
        if first < 16:
            sampled.optimizer.step()
    assert sampled.bank.stored.num_states == 3
    state = sampled.optimizer.state[sampled.weight]
    assert state['max_exp_avg_sq'].abs().sum() > 0


def test_a_step_that_a_scaler_skipped_leaves_nothing_behind():
    sampled, dense = make(), make(None)
    for trained in (sampled, dense):
        trained.start()
        for number, first in enumerate((0, 8, 16, 24, 32, 0)):
            step(trained, np.arange(first, first + 8))
            if number != 2:  # what a gradient scaler does that found an overflow
                trained.optimizer.step()
    assert sampled.bank.step == 5
    assert torch.isfinite(sampled.rows(range(40))).all()


def test_several_processes_share_their_batches_without_being_told():
    (ids, rows), (other_ids, other_rows) = run_ranks(train_in_a_process, 2)
    assert ids == other_ids and len(ids) == 16
    assert {9, 29} & set(ids) and np.array_equal(rows, other_rows)


def test_a_group_of_processes_that_is_formed_too_late():
    for result in run_ranks(group_comes_late, 2):
        assert 'RuntimeError: these class weights know of 1 of 2 processes' in result


@pytest.mark.parametrize('optimizer, options', [
    (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
    (torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1)),
])
@pytest.mark.parametrize('num_negatives', [8, None])
def test_a_saved_loop_goes_on_bit_for_bit(tmp_path, optimizer, options, num_negatives):

    def train(sampled, numbers):
        for number in numbers:
            step(sampled, (5 * number + np.arange(8)) % 40)
            sampled.optimizer.step()

    whole = make(num_negatives, optimizer=optimizer, options=options)
    whole.start()
    train(whole, range(20))
    torch.save(dict(sampled=whole.state_dict(), weight=whole.weight.detach(),
                    optimizer=whole.optimizer.state_dict()), tmp_path / 'half.pth')
    train(whole, range(20, 40))

    state = torch.load(tmp_path / 'half.pth', weights_only=True)
    part = make(num_negatives, optimizer=optimizer, options=options)
    part.weight.data.copy_(state['weight'])
    part.optimizer.load_state_dict(state['optimizer'])
    part.load_state_dict(state['sampled'])
    train(part, range(20, 40))
    assert torch.equal(part.rows(range(40)), whole.rows(range(40)))
    assert torch.equal(part.active_ids, whole.active_ids)
    with pytest.raises(ValueError, match='go on with the same images and num_negatives'):
        make(None if num_negatives else 8, optimizer=optimizer,
             options=options).load_state_dict(state['sampled'])


def test_a_saved_loop_with_refresh_goes_on_bit_for_bit():

    def train(sampled, numbers):
        for number in numbers:
            # The first images stay; the others come back after an absence.
            ids = np.append(np.arange(4), (4 * number + np.arange(4)) % 36 + 4)
            sampled.optimizer.zero_grad()
            features = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
            targets = sampled.sample(ids)
            sampled.turn_returning(features)
            cosine_softmax(features, sampled.active, targets)[0].mean().backward()
            sampled.optimizer.step()

    whole, part = make(8), make(8)
    for sampled in (whole, part):
        sampled.refresh_with(Refresh(share=0.5, away=3))
    whole.start()
    train(whole, range(10))
    part.load_state_dict(whole.state_dict())
    part.weight.data.copy_(whole.weight.data)
    part.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    train(whole, range(10, 30))
    train(part, range(10, 30))
    assert torch.equal(part.rows(range(40)), whole.rows(range(40)))


def test_a_state_of_another_optimizer_is_refused():
    adamw = make(8, optimizer=torch.optim.AdamW, options=dict(lr=0.01))
    adamw.start()
    with pytest.raises(ValueError, match='saved with correction_kind=AdamWC.* SGDC'):
        make(8).load_state_dict(adamw.state_dict())
    with pytest.raises(ValueError, match='saved with num_negatives=9, and this run has 8'):
        make(8).load_state_dict(dict(make(8).state_dict(), num_negatives=9))
    with pytest.raises(ValueError, match='saved with num_processes=2'):
        make(8).load_state_dict(dict(make(8).state_dict(), num_processes=2))


class LateStates(torch.optim.SGD):
    """Makes a second state in its third step."""

    def step(self, closure=None):
        super().step(closure)
        self.count = getattr(self, 'count', 0) + 1
        if self.count == 3:
            for weight in self.param_groups[0]['params']:
                self.state[weight]['slow'] = weight.detach().clone()


def test_states_that_appear_late_are_refused():
    sampled = make(8, optimizer=LateStates, options=dict(lr=0.1, momentum=0.9),
                   correction=NoCorrection())
    sampled.start()
    with pytest.raises(ValueError, match='keeps 2 tensors for each class weight now, and kept 1'):
        for number in range(6):
            step(sampled, 4 * number + np.arange(4))
            sampled.optimizer.step()


@pytest.mark.parametrize('correction', [None, NoCorrection()])
@pytest.mark.parametrize('on_disk', [False, True])
def test_a_training_goes_back_to_an_earlier_state(tmp_path, correction, on_disk):
    """Rows that were stored since are forgotten."""

    def train(numbers):
        for number in numbers:
            step(sampled, 4 * number % 40 + np.arange(4))
            sampled.optimizer.step()

    sampled = make(8, correction=correction,
                   storage=Storage(tmp_path / 'rows.bank' if on_disk else None))
    sampled.start()
    train(range(5))
    saved = copy.deepcopy((sampled.state_dict(), sampled.weight.data,
                           sampled.optimizer.state_dict()))
    rows = sampled.rows(range(40))
    train(range(5, 9))
    sampled.weight.data.copy_(saved[1])
    sampled.optimizer.load_state_dict(saved[2])
    sampled.load_state_dict(saved[0])
    assert torch.equal(sampled.rows(range(40)), rows)


def test_nothing_of_a_training_outlives_it():
    """The tensor's hook must not hold its owner: no garbage collector would see it."""
    sampled = make()
    sampled.start()
    step(sampled, [1, 2])
    kept = weakref.ref(sampled)
    del sampled
    gc.collect()
    assert kept() is None
