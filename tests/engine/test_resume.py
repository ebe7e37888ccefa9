# SPDX-License-Identifier: Apache-2.0
"""A run that was cut, killed or moved goes on as if nothing had been, or says why it cannot."""
import os
import random
import shutil
import signal
import time

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn

from pic_plugin.bank import BankFileError
from toys.processes import start_process, train_and_die
from toys.training import (
    ToyBackbone,
    ToyNeck,
    assert_equal,
    bank_paths,
    hash_files,
    make_config,
    move_checkpoint,
    read_checkpoint,
    snapshot,
    train,
)

KEEP_TWO = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2))


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The work directory of a run of two epochs; never written to again."""
    folder = tmp_path_factory.mktemp('saved')
    train(folder, max_epochs=2, seed=3)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    move_checkpoint(saved, tmp_path / 'copy')
    return tmp_path / 'copy'


VARIANTS = dict(
    plain=dict(),
    worker=dict(num_workers=1),
    validation=dict(validate=True),
    mmap=dict(head=dict(storage=dict(type='mmap'))),
    full=dict(head=dict(num_negatives=None)),
    uncorrected=dict(head=dict(correct_weights=False)),
    # 48 / 8 = 6 batches, an optimizer step for every 3
    accumulation=dict(num_images=48, accumulate=3),
    adam=dict(
        head=dict(correct_weights=False),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.01))))


@pytest.mark.parametrize('seed', [None, 5])
@pytest.mark.parametrize('variant', VARIANTS)
def test_two_epochs_and_two_are_four(tmp_path, variant, seed):
    options = VARIANTS[variant]
    whole = train(tmp_path / 'whole', seed=seed, **options)
    move_checkpoint(tmp_path / 'whole', tmp_path / 'part')
    part = train(tmp_path / 'part', seed=seed, resume=True, **options)
    if variant != 'adam':
        assert_equal(snapshot(part), snapshot(whole))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(part.model.state_dict()[name], value), name
    every = range(whole.model.head.num_instances)
    assert torch.equal(part.model.head.class_weights(every),
                       whole.model.head.class_weights(every))
    assert part.losses == whole.losses[-len(part.losses):]
    assert len(part.losses) == len(whole.losses) // 2


def test_run_of_two_epochs_is_prolonged(tmp_path, saved):
    whole = train(tmp_path / 'whole', seed=3)
    part = train(tmp_path / 'part', seed=3, resume=True, load_from=str(saved / 'epoch_2.pth'))
    assert_equal(snapshot(part), snapshot(whole))
    assert_equal(read_checkpoint(tmp_path / 'part/epoch_4.pth'),
                 read_checkpoint(tmp_path / 'whole/epoch_4.pth'))


def test_other_seed_in_config_does_not_matter(tmp_path, saved, copy):
    whole = train(tmp_path / 'whole', seed=3)
    part = train(copy, seed=4, resume=True)
    assert_equal(snapshot(part), snapshot(whole))


@pytest.mark.parametrize('num_workers', [0, 1])
@pytest.mark.parametrize('seed', [None, 5])
@pytest.mark.parametrize('iteration', [5, 10])  # in the first pass of the loader, and the second
def test_iteration_based_loop(tmp_path, monkeypatch, num_workers, seed, iteration):
    # mmengine sleeps for 2 s between epochs of this loop.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    options = dict(
        seed=seed,
        num_workers=num_workers,
        augment=False,  # random numbers of the skipped iterations are not drawn again
        train_cfg=dict(by_epoch=False, max_iters=20),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=20, by_epoch=False)],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=3),
            checkpoint=dict(type='CheckpointHook', interval=5, by_epoch=False)))
    whole = train(tmp_path / 'whole', **options)
    move_checkpoint(tmp_path / 'whole', tmp_path / 'part', f'iter_{iteration}')
    part = train(tmp_path / 'part', resume=True, **options)
    for runner in (whole, part):
        # Or the garbage collector would wait 5 s for workers, some time later.
        runner.train_loop.dataloader_iterator = None
    assert_equal(snapshot(part), snapshot(whole))
    assert part.losses == whole.losses[iteration:]


# What is killed, at which time of reaching it: the second save, or step 9 of 7 in an epoch.
@pytest.mark.parametrize('stage, count', [
    ('bank section', 2), ('bank replace', 2), ('checkpoint half', 2), ('checkpoint replace', 2),
    ('prune', 2), ('last_checkpoint', 3), ('checkpoint half', 1), ('step', 9)
])
def test_killed_at_any_stage(tmp_path, killed_reference, stage, count):
    options = dict(seed=7, max_epochs=4, default_hooks=KEEP_TWO)
    process = start_process(train_and_die, tmp_path, stage, count, options)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    runner = train(tmp_path, resume=True, **options)
    assert_equal(snapshot(runner), killed_reference)
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert {'epoch_3.pth', 'epoch_4.pth', 'last_checkpoint'} <= files
    assert len([name for name in files if '.bank-' in name]) == 2
    assert not [name for name in files if name.endswith('.partial')]


def test_killed_while_a_checkpoint_is_written_again(tmp_path, killed_reference):
    best = dict(KEEP_TWO['checkpoint'], save_best='toy/score', rule='greater')
    options = dict(seed=7, max_epochs=4, validate=True, default_hooks=dict(checkpoint=best))
    # Written are epoch_1, the best and, with that in its message hub, epoch_1 again.
    process = start_process(train_and_die, tmp_path, 'checkpoint half', 3, options)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    runner = train(tmp_path, resume=True, **options)
    assert len(runner.losses) == 21  # the last 3 epochs, of 7 batches
    assert_equal(snapshot(runner), killed_reference)


def test_killed_at_random_moments(tmp_path, killed_reference):
    options = dict(seed=7, max_epochs=4, default_hooks=KEEP_TWO)
    moments = random.Random(0)
    killed = 0
    for _ in range(6):
        process = start_process(train_and_die, tmp_path, 'nothing', 0, dict(options, resume=True))
        deadline = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.05, 0.5))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed
    runner = train(tmp_path, resume=True, **options)
    final = read_checkpoint(tmp_path / 'epoch_4.pth')
    assert_equal(snapshot(runner), killed_reference)
    assert_equal({name: final[name] for name in runner.model.state_dict()},
                 {name: killed_reference[name] for name in runner.model.state_dict()})


@pytest.fixture(scope='module')
def killed_reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp('reference')
    return snapshot(train(folder, seed=7, max_epochs=4, default_hooks=KEEP_TWO))


@pytest.mark.parametrize('batch_size', [4, 16])
def test_accumulation_goes_on_with_another_batch_size(tmp_path, batch_size):
    """Epochs had 7 iterations, and 13 or 4 now; mmengine counts as if they always had."""
    options = dict(accumulate=2, head=dict(num_negatives=None))
    train(tmp_path, max_epochs=2, **options)
    runner = train(tmp_path, max_epochs=4, resume=True, batch_size=batch_size, **options)
    iterations = 2 * -(-50 // batch_size)
    assert len(runner.losses) == iterations
    assert runner.model.head.bank.step == 7 + -(-iterations // 2)


def test_a_copied_folder_goes_on_from_its_own_checkpoint(copy, saved, tmp_path):
    (copy / 'last_checkpoint').write_text(str(saved / 'epoch_2.pth'))
    runner = train(copy, max_epochs=3, resume=True)
    assert runner.model.head.bank.stored.seed == 3 and len(runner.losses) == 7
    assert (copy / 'last_checkpoint').read_text() == str(copy / 'epoch_3.pth')
    # Not where checkpoints are kept apart from the rest.
    runner = train(tmp_path / 'run', max_epochs=1, default_hooks=dict(
        checkpoint=dict(type='CheckpointHook', interval=1, out_dir=str(tmp_path / 'elsewhere'))))
    (tmp_path / 'run/epoch_1.pth').write_bytes((copy / 'epoch_3.pth').read_bytes())
    runner = train(tmp_path / 'run', max_epochs=2, resume=True, default_hooks=dict(
        checkpoint=dict(type='CheckpointHook', interval=1, out_dir=str(tmp_path / 'elsewhere'))))
    assert len(runner.losses) == 7


@pytest.mark.parametrize('content', [None, '', '/gone/epoch_2.pth'])
def test_last_checkpoint_is_mended(copy, content):
    pointer = copy / 'last_checkpoint'
    pointer.unlink()
    if content is not None:
        pointer.write_text(content)
    (copy / 'epoch_9.pth').write_bytes(b'not a checkpoint')
    (copy / 'other.pth').write_bytes((copy / 'epoch_2.pth').read_bytes())
    runner = train(copy, max_epochs=3, resume=True)
    assert len(runner.losses) == 7  # one epoch of 50 images in batches of 8
    assert pointer.read_text() == str(copy / 'epoch_3.pth')


@pytest.mark.parametrize('pointer', ['', 'epoch_2.pth'])
def test_a_folder_of_damaged_checkpoints_is_not_written_over(copy, pointer):
    """As an interrupted copy leaves it."""
    os.truncate(copy / 'epoch_2.pth', 1000)
    (copy / 'last_checkpoint').write_text(pointer and f'/gone/{pointer}')
    before = hash_files(copy)
    with pytest.raises(ValueError, match='epoch_2.pth is truncated or damaged'):
        train(copy, resume=True)
    assert hash_files(copy) == before


def test_a_path_in_the_place_of_true_is_refused(tmp_path, copy):
    with pytest.raises(ValueError, match=r"epoch_2.pth' in the config: .* Set resume=True, and lo"):
        train(tmp_path / 'new', resume=str(copy / 'epoch_2.pth'))


def test_resume_in_an_empty_folder_starts_anew(tmp_path):
    tmp_path.joinpath('last_checkpoint').write_text('')
    assert len(train(tmp_path, max_epochs=1, resume=True).losses) == 7


def test_checkpoint_runs_no_code(saved):
    checkpoint = torch.load(saved / 'epoch_2.pth', weights_only=True)
    assert checkpoint['message_hub']['log_scalars']['train/loss']['values'].dtype == torch.float64
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        assert not torch.serialization.get_unsafe_globals_in_checkpoint(saved / 'epoch_2.pth')
    assert (saved / 'last_checkpoint').read_text() == str(saved / 'epoch_2.pth')


def test_banks_are_pruned_with_their_checkpoints(tmp_path):
    foreign = ['notes.bank-0of1', 'a.bank-of.txt', 'weights.0123.bank-0of1', 'class_weights.bank']
    for name in foreign:
        (tmp_path / name).write_text('mine')
    train(tmp_path, max_epochs=4, default_hooks=KEEP_TWO)
    assert all((tmp_path / name).read_text() == 'mine' for name in foreign)
    kept = {path.name for path in tmp_path.iterdir() if path.is_file()} - set(foreign)
    assert {name.split('.')[0] for name in kept if '.bank-' in name} == {'epoch_3', 'epoch_4'}
    assert len([name for name in kept if '.bank-' in name]) == 2
    assert {name for name in kept if name.endswith('.pth')} == {'epoch_3.pth', 'epoch_4.pth'}


def test_best_checkpoint_has_no_bank_and_is_not_resumed(tmp_path):
    best = dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='toy/score',
                                rule='greater'))
    train(tmp_path, max_epochs=2, validate=True, default_hooks=best)
    paths = list(tmp_path.glob('best_*.pth'))
    assert len(paths) == 1 and not bank_paths(paths[0])
    # The best checkpoint's epoch was saved twice, under one name.
    assert [len(bank_paths(tmp_path / f'epoch_{epoch}.pth')) for epoch in (1, 2)] == [1, 1]
    before = hash_files(tmp_path)
    with pytest.raises(ValueError, match='without the state of the optimizer.*load_from'):
        train(tmp_path, validate=True, resume=True, load_from=str(paths[0]))
    assert hash_files(tmp_path) == before
    runner = train(tmp_path, max_epochs=3, validate=True, resume=True)
    assert len(runner.losses) == 7


def test_load_from_starts_class_weights_anew(tmp_path, saved):
    runner = train(tmp_path / 'new', max_epochs=1, load_from=str(saved / 'epoch_2.pth'))
    assert len(runner.losses) == 7 and runner.model.head.bank.step == 7


def damage_nothing_is_there(path):
    path.unlink()


def damage_end(path):
    path.write_bytes(path.read_bytes()[:-7])


def damage_half(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def damage_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def damage_header(path):
    path.write_bytes(path.read_bytes().replace(b'"step": 14', b'"step": 15', 1))


def damage_all(path):
    path.write_bytes(b'')


@pytest.mark.parametrize('damage', [
    damage_nothing_is_there, damage_end, damage_half, damage_bit, damage_header, damage_all
])
def test_damaged_bank_is_named(copy, damage):
    path, = bank_paths(copy / 'epoch_2.pth')
    damage(path)
    before = hash_files(copy)
    with pytest.raises(BankFileError) as error:
        train(copy, resume=True)
    assert str(path) in str(error.value)
    assert hash_files(copy) == before


def test_bank_of_another_run_is_named(tmp_path, copy):
    train(tmp_path / 'other', max_epochs=2)
    path, = bank_paths(copy / 'epoch_2.pth')
    shutil.copy(bank_paths(tmp_path / 'other/epoch_2.pth')[0], path)
    with pytest.raises(BankFileError, match='another checkpoint') as error:
        train(copy, resume=True)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('name, options', [
    ('50 images and has 51', dict(num_images=51)),
    ('num_negatives=', dict(head=dict(num_negatives=17))),
    ('num_negatives=', dict(head=dict(num_negatives=None))),
    ('feat_dim=', dict(feat_dim=6)),
    ('correct=', dict(head=dict(correct_weights=False))),
])
@pytest.mark.parametrize('by_path', [False, True])
def test_changed_run_is_refused(copy, name, options, by_path):
    before = hash_files(copy)
    where = dict(load_from=str(copy / 'epoch_2.pth')) if by_path else {}
    with pytest.raises(ValueError, match=f'cannot be resumed.*{name}') as error:
        train(copy, resume=True, **where, **options)
    assert 'BankFileError' not in repr(error.value)
    assert hash_files(copy) == before


@MODELS.register_module()
class RenamedToyBackbone(ToyBackbone):
    """As many weights, under other names."""

    def __init__(self):
        super().__init__()
        self.renamed = self.linear
        del self.linear


@MODELS.register_module()
class WideToyNeck(ToyNeck):
    """The same names, another shape."""

    def __init__(self, out_channels):
        super().__init__(out_channels)
        self.linear = nn.Linear(18, out_channels)


@pytest.mark.parametrize('part, kind, message', [
    ('backbone', 'RenamedToyBackbone', r'such as backbone.linear.\w+ \(absent in the network, '),
    ('neck', 'WideToyNeck', r'\(1 of \d+ weights differ, such as neck.linear.weight \(shape '
     r'\(8, 18\) in the network, shape \(8, 16\) in the file'),
])
def test_another_network_is_refused(copy, part, kind, message):
    model = make_config(copy)['model']
    model[part] = dict(model[part], type=kind)
    model['backbone'].pop('dropout')
    before = hash_files(copy)
    with pytest.raises(ValueError, match=f'cannot be resumed: it is of another .*{message}'):
        train(copy, resume=True, model=model)
    assert hash_files(copy) == before


def test_schedules_that_were_left_out_are_missed(copy):
    with pytest.raises(ValueError, match='saved with 1 learning-rate scheduler, .* run has 0'):
        train(copy, resume=True, param_scheduler=[])


def test_a_run_with_more_room_for_accumulation_goes_on(tmp_path, copy):
    whole = train(tmp_path / 'whole', seed=3)
    room = dict(head=dict(pending_rows=8))
    rest = train(copy, resume=True, **room)
    assert len(rest.model.head.weight) == 24
    assert rest.losses == whole.losses[14:]
    first, second = snapshot(rest), snapshot(whole)
    for name in ('class_weights', 'active_ids', 'stored values'):
        assert (first[name] == second[name]).all()
    # And back: the rows that there are need their slots.
    with pytest.raises(ValueError, match=r'cannot be resumed.* 24 rows for .* this run has 16. '
                       r'Set PICHead\(pending_rows=8\)'):
        train(copy, resume=True, max_epochs=5)
    train(copy, resume=True, max_epochs=5, **room)


def test_remote_folder_is_refused(tmp_path):
    runner = train(tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match='s3:.*out_dir on a'):
        runner.save_checkpoint('s3://bucket/run', 'epoch_1.pth')


def test_saving_past_the_runner_is_refused(tmp_path):
    runner = train(tmp_path, max_epochs=1)
    with pytest.raises(RuntimeError, match='save with runner.save_checkpoint'):
        Runner.save_checkpoint(runner, str(tmp_path), 'epoch_1.pth')


@pytest.mark.parametrize('count', [0, 1])  # of files that still fit: the bank, the checkpoint
def test_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch, count):
    runner = train(tmp_path, max_epochs=1)
    before = hash_files(tmp_path)
    sync, calls = os.fsync, []

    def full_disk(descriptor):
        calls.append(descriptor)
        if len(calls) > count:
            raise OSError(28, 'No space left on device')
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full_disk)
        with pytest.raises(OSError, match='No space'):
            runner.save_checkpoint(str(tmp_path), 'epoch_1.pth')
    after = hash_files(tmp_path)
    assert before.items() <= after.items()
    assert len(after) - len(before) == count
    runner.save_checkpoint(str(tmp_path), 'epoch_1.pth')
    assert len(bank_paths(tmp_path / 'epoch_1.pth')) == 1
