# SPDX-License-Identifier: Apache-2.0
"""Things that break while a run is under way: afterwards it goes on exactly, or says one thing."""
from __future__ import annotations

import time

import pytest
from mmengine.logging import MMLogger

import toys.overflows  # noqa: F401  registers a hook
from toys.processes import (
    hold_store,
    limited_training,
    run_alone,
    run_ranks,
    start_process,
    train_and_report,
    train_in_a_mount,
    train_rank,
    train_rank_and_die,
)
from toys.training import assert_equal, bank_paths, hash_files, make_config, snapshot, train

OPTIONS = dict(seed=5)
RANK_OPTIONS = dict(seed=11, batch_size=4, max_epochs=3)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """Final state of four epochs in which nothing broke."""
    return snapshot(train(tmp_path_factory.mktemp('undisturbed'), **OPTIONS))


@pytest.fixture(scope='module')
def two_undisturbed(tmp_path_factory):
    """The same of three epochs in two processes."""
    results = run_ranks(train_rank, 2, str(tmp_path_factory.mktemp('two')), RANK_OPTIONS)
    return [state for _, state in results]


@pytest.mark.parametrize('rank, stage, count', [
    (1, 'step', 10), (0, 'step', 10), (1, 'bank section', 2), (1, 'bank replace', 2),
    (0, 'checkpoint half', 2),
])
def test_a_rank_is_killed(tmp_path, two_undisturbed, rank, stage, count):
    results = run_ranks(train_rank_and_die, 2, rank, stage, count, str(tmp_path), RANK_OPTIONS)
    assert results[rank] == 'killed'
    assert 'Error' in results[1 - rank], 'the other one stops, and does not wait for ever'
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    again = run_ranks(train_rank, 2, str(tmp_path), dict(RANK_OPTIONS, resume=True))
    for result, expected in zip(again, two_undisturbed):
        assert isinstance(result, tuple), result
        assert_equal(result[1], expected)


# Bytes that still fit: none, or the bank (3 kB) and not the checkpoint (20 kB).
@pytest.mark.parametrize('num_bytes', [100, 8000])
def test_disk_is_full_while_saving(tmp_path, undisturbed, num_bytes):
    hooks = [dict(type='InstanceBankHook'), dict(type='RecordLoss'),
             dict(type='LimitFileSize', epoch=3, num_bytes=num_bytes)]
    result = run_alone(train_and_report, str(tmp_path), dict(OPTIONS, custom_hooks=hooks))
    assert 'OSError' in result and 'File too large' in result
    assert {path.name for path in tmp_path.glob('*.pth*')} == {'epoch_1.pth', 'epoch_2.pth'}
    assert not list(tmp_path.glob('*.partial'))
    assert_equal(run_alone(train_and_report, str(tmp_path), dict(OPTIONS, resume=True))[1],
                 undisturbed)


def test_store_larger_than_files_may_be(tmp_path):
    head = dict(num_instances=10**9, storage=dict(type='mmap'))
    result = run_alone(limited_training, str(tmp_path), 10**8, dict(OPTIONS, head=head))
    assert 'does not allow' in result and 'class_weights.bank-0of1' in result
    assert 'set storage=dict(' in result


def train_on_a_small_disk(*args):
    """Train where /mnt is a file system of its own; a traceback, or None if it has finished."""
    result = run_alone(train_in_a_mount, *args)
    if isinstance(result, str) and 'CannotMount' in result:
        pytest.skip('this system lets no user mount: the full disk cannot be made')
    return result


def options_of_many_rows(rows):
    return dict(seed=5, num_images=2000, feat_dim=64, max_epochs=2,
                head=dict(num_instances=10**6, storage=dict(type='mmap', path=str(rows))))


def test_disk_is_full_while_the_store_grows(tmp_path):
    output = train_on_a_small_disk('size=128k', False, tmp_path / 'work',
                                   options_of_many_rows('/mnt/rows'))
    assert 'OSError' in output
    assert 'No space left on device: the stored class weights do not fit beside /mnt/rows' in output


def test_store_on_a_read_only_disk(tmp_path):
    output = train_on_a_small_disk('size=128k', True, tmp_path / 'work',
                                   options_of_many_rows('/mnt/rows'))
    assert 'Read-only file system' in output and '/mnt/rows' in output


def test_work_folder_becomes_read_only(tmp_path):
    output = train_on_a_small_disk('size=4m', True, '/mnt/work',
                                   options_of_many_rows(tmp_path / 'rows'))
    assert 'Read-only file system' in output


def test_two_runs_with_one_store(tmp_path):
    path, ready = tmp_path / 'rows', tmp_path / 'ready'
    options = dict(OPTIONS, max_epochs=1, head=dict(
        storage=dict(type='mmap', path=str(path))))
    holder = start_process(hold_store, f'{path}-0of1', str(ready))
    while not ready.exists():
        time.sleep(0.05)
    with pytest.raises(OSError, match='rows-0of1 is in use by another run.* another work direct'):
        train(tmp_path / 'work', **options)
    holder.kill()
    holder.join()
    assert (tmp_path / 'rows-0of1').exists(), 'left by the process that was killed'
    train(tmp_path / 'work', **options)


def test_a_data_worker_dies(tmp_path, undisturbed):
    pipeline = [dict(type='DieOnce', key=7, marker=str(tmp_path / 'died')),
                dict(type='ToyPixels'), dict(type='PackInputs', meta_keys=('sample_idx', ))]
    kwargs = dict(OPTIONS, pipeline=pipeline, num_workers=1)
    result = run_alone(train_and_report, str(tmp_path / 'work'), kwargs)
    # torch says which worker was killed; or, if its death is seen first by a tensor that is fetched
    # from it, that the connection is gone.
    assert 'DataLoader worker' in result or 'ConnectionResetError' in result
    work = tmp_path / 'work'
    before = hash_files(work)
    resumed = run_alone(train_and_report, str(work), dict(kwargs, resume=True))
    whole = run_alone(train_and_report, str(tmp_path / 'whole'), kwargs)
    assert_equal(resumed[1], whole[1])
    assert all(name.startswith(('epoch', 'last')) for name in before)


def test_an_image_becomes_garbage(tmp_path):
    import cv2
    import numpy as np
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(50):
        cv2.imwrite(str(folder / f'{i:02d}.png'),
                    np.random.default_rng(i).integers(0, 255, (2, 2, 3), dtype=np.uint8))
    pipeline = [dict(type='LoadImageOrSkip'), dict(type='PackInputs', meta_keys=('sample_idx', ))]
    loader = make_config(tmp_path, pipeline=pipeline)['train_dataloader']
    dataset = dict(type='CustomDataset', data_root=str(folder), with_label=False,
                   pipeline=pipeline)
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)
    model = dict(make_config(tmp_path, augment=False)['model'], data_preprocessor=preprocessor)
    kwargs = dict(seed=5, model=model, train_dataloader=dict(loader, dataset=dataset))
    train(tmp_path / 'work', **kwargs, max_epochs=2)
    (folder / '20.png').write_bytes(b'garbage')
    runner = train(tmp_path / 'work', **kwargs, max_epochs=4, resume=True)
    state = snapshot(runner)
    active = dict(zip(state['active_ids'].tolist(), range(16)))
    stored = dict(zip(state['stored rows'].tolist(), state['stored steps'].tolist()))
    # Its class is not sampled any more: it left with a step of the first two epochs (14 steps and
    # those until 16 others had been sampled), while its neighbours were sampled later.
    assert 20 not in active and stored[20] <= 14 + 16
    assert len(bank_paths(tmp_path / 'work/epoch_4.pth')) == 1


def test_validation_after_training_leaves_the_bank_alone(tmp_path):
    runner = train(tmp_path, validate=True, **OPTIONS)
    before = snapshot(runner)
    runner.val()
    assert_equal(snapshot(runner), before)
    checkpoint = tmp_path / 'again'
    runner.save_checkpoint(str(checkpoint), 'epoch_4.pth')
    assert len(bank_paths(checkpoint / 'epoch_4.pth')) == 1, 'saved once, not by two hooks'


def test_a_new_run_in_the_same_process_leaves_the_store_of_the_old_one_alone(tmp_path):
    options = dict(OPTIONS, head=dict(storage=dict(type='mmap', path=str(tmp_path / 'rows'))))
    old = train(tmp_path / 'old', **options)
    before = snapshot(old)
    new = train(tmp_path / 'new', **options)
    assert_equal(snapshot(old), before)
    assert_equal(snapshot(new), before)
    old.model.head.bank.store.close()
    assert (tmp_path / 'rows-0of1').exists(), 'the new one'


def test_other_names_of_checkpoints_are_refused(tmp_path):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, filename_tmpl='e_{}.ckpt'))
    with pytest.raises(ValueError, match='does not end in .pth'):
        train(tmp_path, default_hooks=hooks, **OPTIONS)


@pytest.mark.parametrize('num_images, batches', [(50, 7), (100, 13)])
def test_epochs_of_another_length_are_noticed(tmp_path, monkeypatch, num_images, batches):
    # Room for 100 instances, of whose images nothing but their place is known.
    kwargs = dict(OPTIONS, head=dict(num_instances=100))
    train(tmp_path, **kwargs, max_epochs=1)
    messages = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: messages.append(text))
    train(tmp_path, resume=True, **kwargs, num_images=num_images, max_epochs=2)
    found = [text for text in messages if 'An epoch had' in text]
    assert len(found) == (batches != 7)
    assert all(f'An epoch had 7 iterations and has {batches} now' in text for text in found)


def test_a_step_that_breaks_the_network_is_not_saved(tmp_path, monkeypatch):
    # The last of the 7 iterations of epoch 2: its loss is finite, its gradients are not.
    monkeypatch.setattr('toys.overflows.OVERFLOWS', (13, ))
    hooks = [dict(type='InstanceBankHook'), dict(type='RecordLoss')]
    breaking = [*hooks, dict(type='BreakGradients', of='backbone')]
    with pytest.raises(FloatingPointError, match='not finite: backbone.linear.weight[.] .*Nothing'):
        train(tmp_path, max_epochs=3, custom_hooks=breaking, **OPTIONS)
    assert {path.name for path in tmp_path.glob('*.pth')} == {'epoch_1.pth'}
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    again = train(tmp_path, max_epochs=3, custom_hooks=hooks, resume=True, **OPTIONS)
    whole = train(tmp_path / 'whole', max_epochs=3, custom_hooks=hooks, **OPTIONS)
    assert_equal(snapshot(again), snapshot(whole))
