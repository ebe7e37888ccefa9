# SPDX-License-Identifier: Apache-2.0
"""Two real processes, joined by gloo and DistributedDataParallel, against one.

Four processes, hundreds of steps and uneven batches are in test_sharded_training.py, with the head
in one piece too.
"""
import shutil

import numpy as np
import pytest

from toys.processes import run_ranks, train_on_full_disk, train_rank
from toys.training import assert_equal, bank_paths, make_config, read_checkpoint, snapshot, train

OPTIONS = dict(seed=11, augment=False, batch_size=4)
STORED = ('stored rows', 'stored steps', 'stored values')  # each process stores its own classes


def one_process(work_dir, **kwargs):
    """What two processes would do, in one: the same global batches in the same order."""
    kwargs = dict(OPTIONS, **kwargs)
    sampler = dict(type='AllRanksSampler', window_size=20, stride=5, num_ranks=2, batch_size=4)
    loader = dict(make_config(work_dir, **kwargs)['train_dataloader'], batch_size=8,
                  sampler=sampler)
    return train(work_dir, train_dataloader=loader, **kwargs)


def two_processes(work_dir, **kwargs):
    """Losses averaged over the processes, and the final state of each."""
    results = run_ranks(train_rank, 2, str(work_dir), dict(OPTIONS, **kwargs))
    for result in results:
        assert isinstance(result, tuple), result
    losses, states = zip(*results)
    return np.mean(losses, axis=0), states


def shared(state):
    return {name: value for name, value in state.items() if name not in STORED}


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """Folder, losses and states of a run of two processes; never written to again."""
    folder = tmp_path_factory.mktemp('pair')
    return (folder, *two_processes(folder))


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """Folder and state of the same run in one process."""
    folder = tmp_path_factory.mktemp('alone')
    return folder, snapshot(one_process(folder))


@pytest.mark.parametrize('options', [
    dict(),
    dict(num_images=51),  # an odd number of images for two processes
    dict(head=dict(num_negatives=None, num_instances=50)),
    # 48 / (2 * 4) = 6 batches, an optimizer step for every 3
    dict(num_images=48, accumulate=3, head=dict(pending_rows=16)),
], ids=['plain', 'odd', 'full', 'accumulation'])
def test_two_processes_train_as_one(tmp_path, pair, options):
    losses, states = two_processes(tmp_path / 'two', **options) if options else pair[1:]
    assert_equal(shared(states[0]), shared(states[1]))
    runner = one_process(tmp_path / 'one', **options)
    state = snapshot(runner)
    assert len(losses) == len(runner.losses) >= 24  # 4 epochs of 6 or 7 batches
    np.testing.assert_allclose(losses, runner.losses, rtol=1e-4)  # float32, 28 steps at lr 0.1
    np.testing.assert_array_equal(states[0]['active_ids'], state['active_ids'])
    # Other orders of summation in float32, amplified over 28 steps.
    np.testing.assert_allclose(states[0]['class_weights'], state['class_weights'], atol=1e-4)
    if 'stored rows' in state:
        ids = [part['stored rows'] * 2 + rank for rank, part in enumerate(states)]
        np.testing.assert_array_equal(np.sort(np.concatenate(ids)), state['stored rows'])


def test_resume_is_exact(tmp_path, pair):
    folder, _, expected = pair
    checkpoint = folder / 'epoch_2.pth'
    assert [path.name[-4:] for path in bank_paths(checkpoint)] == ['0of2', '1of2']
    losses, states = two_processes(tmp_path, resume=True, load_from=str(checkpoint))
    assert len(losses) == 14  # 2 epochs of 50 images in global batches of 8
    for state, expected_state in zip(states, expected):
        assert_equal(state, expected_state)
    assert_equal(read_checkpoint(tmp_path / 'epoch_4.pth'),
                 read_checkpoint(folder / 'epoch_4.pth'))


# From the last checkpoint, where resuming restores and does nothing more.
def test_one_process_takes_over_from_two(tmp_path, pair):
    folder, _, states = pair
    one = snapshot(one_process(tmp_path, resume=True, load_from=str(folder / 'epoch_4.pth')))
    for name in ('class_weights', 'active_ids', 'step', 'head.weight', 'momentum 4'):
        np.testing.assert_array_equal(one[name], states[0][name], err_msg=name)
    assert len(one['stored rows']) == sum(len(state['stored rows']) for state in states)


def test_two_processes_take_over_from_one(tmp_path, alone):
    folder, expected = alone
    losses, states = two_processes(tmp_path, resume=True, load_from=str(folder / 'epoch_4.pth'))
    assert not len(losses)
    for rank, state in enumerate(states):
        for name in ('class_weights', 'active_ids', 'step', 'head.weight', 'momentum 4'):
            np.testing.assert_array_equal(state[name], expected[name], err_msg=name)
        ids = expected['stored rows']
        np.testing.assert_array_equal(state['stored rows'] * 2 + rank, ids[ids % 2 == rank])


def test_training_goes_on_with_another_number_of_processes(tmp_path, pair, alone):
    runner = one_process(tmp_path, resume=True, load_from=str(pair[0] / 'epoch_2.pth'))
    assert len(runner.losses) == 14
    np.testing.assert_allclose(snapshot(runner)['class_weights'], alone[1]['class_weights'],
                               atol=1e-4)  # float32, as above


@pytest.mark.parametrize('momentum', [0.9, 0.0])
def test_fewer_images_than_negatives_go_on_with_another_number_of_processes(tmp_path, momentum):
    """DistributedDataParallel fixes K rows, 16, before it is known that there are 10 images."""
    options = dict(num_images=10, max_epochs=2, optim_wrapper=dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=momentum)))
    _, (state, _) = two_processes(tmp_path / 'two', **options)
    assert state['head.weight'].shape[0] == 16
    one = train(tmp_path / 'one', **dict(options, max_epochs=3), batch_size=8, resume=True,
                load_from=str(tmp_path / 'two/epoch_2.pth'))
    assert len(one.model.head.weight) == 10 and np.isfinite(one.losses).all()
    end = snapshot(train(tmp_path / 'end', **options, batch_size=8, resume=True,
                         load_from=str(tmp_path / 'two/epoch_2.pth')))
    np.testing.assert_array_equal(end['class_weights'], state['class_weights'])
    _, (back, _) = two_processes(tmp_path / 'back', **dict(options, max_epochs=3), resume=True,
                                 load_from=str(tmp_path / 'one/epoch_3.pth'))
    np.testing.assert_array_equal(back['class_weights'], snapshot(one)['class_weights'])


def test_bank_of_one_process_is_missing(tmp_path):
    two_processes(tmp_path, max_epochs=1)
    missing = bank_paths(tmp_path / 'epoch_1.pth')[1]
    shutil.move(missing, tmp_path / 'elsewhere')
    results = run_ranks(train_rank, 2, str(tmp_path), dict(OPTIONS, resume=True))
    for result in results:
        assert 'BankFileError' in result and missing.name in result


@pytest.mark.parametrize('name, full_rank', [('write_bank_file', 1), ('publish', 0)])
def test_one_process_cannot_write(tmp_path, name, full_rank):
    results = run_ranks(train_on_full_disk, 2, name, full_rank, str(tmp_path), OPTIONS)
    for rank, result in enumerate(results):
        assert 'No space left' in result
        ends = f'process {full_rank} failed, so all processes end' in result
        assert ends == (rank != full_rank)
    assert not list(tmp_path.glob('*.pth*'))


@pytest.mark.parametrize('options, message', [
    (dict(head=dict(num_negatives=7)), '8 instances does not fit num_negatives=7'),
    (dict(head=dict(num_negatives=None)), 'give PICHead(num_instances=50)'),
    (dict(head=dict(num_negatives=50)), None),
    (dict(num_images=48, accumulate=3), 'needs PICHead(pending_rows=16)'),
])
def test_sizes_that_do_not_fit(tmp_path, options, message):
    results = run_ranks(train_rank, 2, str(tmp_path), dict(OPTIONS, max_epochs=1, **options))
    for result in results:
        if message is None:
            assert isinstance(result, tuple), result
        else:
            assert 'ValueError' in result and message in result
