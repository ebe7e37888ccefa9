# SPDX-License-Identifier: Apache-2.0
"""A signal in the middle of a training: a checkpoint, from which the run goes on exactly."""
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from pic_plugin.engine.hooks.save_on_interrupt_hook import SaveOnInterruptHook
from toys.interrupts import hooks, interrupt_after_reader, train_and_be_stopped
from toys.processes import run_ranks
from toys.training import assert_equal, hash_files, snapshot, train

ROOT = Path(__file__).resolve().parents[3]
HANDLERS = [signal.default_int_handler, signal.SIG_DFL]


@pytest.fixture(autouse=True)
def handlers_of_a_terminal():
    """A shell starts what it puts in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def restored_handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == HANDLERS


@pytest.mark.parametrize('names, status', [(('SIGTERM', ), 143), (('SIGINT', ), 130),
                                           # torchrun passes on what its processes got already.
                                           (('SIGINT', 'SIGINT', 'SIGTERM'), 130)])
def test_a_signal_in_an_epoch_saves_and_stops(tmp_path, names, status):
    whole = train(tmp_path / 'whole', seed=3, max_epochs=2, custom_hooks=hooks())
    assert restored_handlers()
    part = tmp_path / 'part'
    with pytest.raises(SystemExit) as stop:
        train(part, seed=3, max_epochs=2, custom_hooks=hooks(
            dict(type='SendSignal', point='train', iteration=9, names=names)))
    assert stop.value.code == status and restored_handlers()
    assert (part / 'last_checkpoint').read_text() == str(part / 'interrupted.pth')
    assert torch.load(part / 'interrupted.pth')['meta']['iter'] == 10
    rest = train(part, seed=3, max_epochs=2, resume=True, custom_hooks=hooks())
    assert rest.losses == whole.losses[10:] and len(rest.losses) == 4
    assert_equal(snapshot(rest), snapshot(whole))
    left = {path.name for path in part.iterdir() if path.is_file() and path.suffix != '.py'}
    assert {name.partition('.')[0] for name in left} == {'epoch_1', 'epoch_2', 'last_checkpoint'}


@pytest.mark.parametrize('resume, interval', [(False, 1), (True, -1)])
def test_what_was_saved_stays_while_nothing_newer_goes_on_from_it(tmp_path, resume, interval):
    with pytest.raises(SystemExit):
        train(tmp_path, seed=3, max_epochs=2, custom_hooks=hooks(
            dict(type='SendSignal', point='train', iteration=9)))
    kept = hash_files(tmp_path)
    train(tmp_path, seed=3, max_epochs=2, resume=resume, custom_hooks=hooks(), default_hooks=dict(
        checkpoint=dict(type='CheckpointHook', interval=interval, save_last=False)))
    names = [name for name in kept if name.startswith('interrupted.')]
    assert len(names) == 2 and all(hash_files(tmp_path)[name] == kept[name] for name in names)


@pytest.mark.parametrize('point, iteration', [('train', 5), ('val', 7)])
def test_with_accumulation_it_waits_for_an_optimizer_step(tmp_path, point, iteration):
    options = dict(seed=3, max_epochs=2, accumulate=4, validate=point == 'val')
    whole = train(tmp_path / 'whole', **options, custom_hooks=hooks())
    part = tmp_path / 'part'
    with pytest.raises(SystemExit):
        train(part, **options, custom_hooks=hooks(
            dict(type='SendSignal', point=point, iteration=iteration)))
    assert torch.load(part / 'interrupted.pth')['meta']['iter'] == 8
    rest = train(part, **options, resume=True, custom_hooks=hooks())
    assert rest.losses == whole.losses[8:]
    assert_equal(snapshot(rest), snapshot(whole))


def test_a_signal_at_the_last_step_of_an_epoch(tmp_path):
    """Seven steps: what is left of the epoch is its end."""
    whole = train(tmp_path / 'whole', seed=3, max_epochs=2, custom_hooks=hooks())
    with pytest.raises(SystemExit):
        train(tmp_path / 'part', seed=3, max_epochs=2, custom_hooks=hooks(
            dict(type='SendSignal', point='train', iteration=6)))
    rest = train(tmp_path / 'part', seed=3, max_epochs=2, resume=True, custom_hooks=hooks())
    assert rest.losses == whole.losses[7:]
    assert (tmp_path / 'part/epoch_1.pth').is_file()
    assert_equal(snapshot(rest), snapshot(whole))


def test_a_signal_in_validation(tmp_path):
    whole = train(tmp_path / 'whole', seed=3, max_epochs=2, validate=True, custom_hooks=hooks())
    with pytest.raises(SystemExit):
        train(tmp_path / 'part', seed=3, max_epochs=2, validate=True, custom_hooks=hooks(
            dict(type='SendSignal', point='val', iteration=7)))
    meta = torch.load(tmp_path / 'part/interrupted.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (1, 7)
    rest = train(tmp_path / 'part', seed=3, max_epochs=2, validate=True, resume=True,
                 custom_hooks=hooks())
    assert rest.losses == whole.losses[7:]


def test_before_the_first_step_a_signal_ends_the_process(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, max_epochs=1, custom_hooks=hooks(
            dict(type='SendSignal', point='before', names=('SIGINT', ))))
    assert restored_handlers() and not (tmp_path / 'interrupted.pth').exists()


def test_ctrl_c_again_ends_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr('pic_plugin.engine.hooks.save_on_interrupt_hook.PATIENCE', 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, max_epochs=1, custom_hooks=hooks(
            dict(type='SendSignal', point='train', iteration=2, names=('SIGINT', 'SIGINT'))))
    assert restored_handlers() and not (tmp_path / 'interrupted.pth').exists()


@pytest.mark.parametrize('second', ['SIGINT', 'SIGTERM'])
def test_a_signal_sent_twice_does_not_cut_the_file_short(tmp_path, monkeypatch, second):
    save = Runner.save_checkpoint

    def slow(runner, *args, **kwargs):
        signal.raise_signal(signal.Signals[second])
        save(runner, *args, **kwargs)

    monkeypatch.setattr(Runner, 'save_checkpoint', slow)
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, seed=3, max_epochs=2, default_hooks=dict(checkpoint=None),
              custom_hooks=hooks(dict(type='SendSignal', point='train', iteration=2,
                                      names=('SIGINT', ))))
    assert stop.value.code == 130 and restored_handlers()
    assert torch.load(tmp_path / 'interrupted.pth')['meta']['iter'] == 3


def test_a_training_that_failed_does_not_keep_the_signals(tmp_path, monkeypatch):
    """As in pretrain, which begins again with half the batch where the memory runs out."""
    with monkeypatch.context() as patched:
        patched.setattr('toys.training.ToyBackbone.forward', None)
        for name in ('a', 'b'):
            with pytest.raises(TypeError):
                train(tmp_path / name, max_epochs=1, custom_hooks=hooks())
    assert not restored_handlers()
    train(tmp_path / 'c', max_epochs=1, custom_hooks=hooks())
    assert restored_handlers()


RUN = """
import multiprocessing, sys
sys.path[:0] = [{root!r}, {root!r} + '/tests']
from toys.interrupts import hooks
from toys.training import train
try:
    train({folder!r}, seed=3, max_epochs=2, num_workers=2, validate=True, custom_hooks=hooks(
        dict(type='SendGroup', iteration=9, name={name!r})))
finally:
    print('workers:', len(multiprocessing.active_children()))
"""


@pytest.mark.parametrize('name, status', [('SIGTERM', 143), ('SIGINT', 130)])
def test_data_workers_outlive_a_signal_to_the_group(tmp_path, name, status):
    result = subprocess.run(
        [sys.executable, '-c', RUN.format(root=str(ROOT), folder=str(tmp_path), name=name)],
        text=True, capture_output=True, start_new_session=True, timeout=300)
    assert result.returncode == status, result.stderr
    assert torch.load(tmp_path / 'interrupted.pth')['meta']['iter'] == 10
    assert result.stderr.count('a checkpoint is saved after this step') == 1
    assert 'Traceback' not in result.stderr
    assert '--resume' in result.stderr + result.stdout
    assert 'workers: 0' in result.stdout


ENDLESS = """
from toys.interrupts import hooks
from toys.training import train
train({folder!r}, max_epochs=10_000, log_level='INFO', default_hooks=dict(
    logger=dict(type='LoggerHook', interval=1)), custom_hooks=hooks())
"""


@pytest.mark.parametrize('apart', [False, True])
def test_what_reads_the_output_may_end_first(tmp_path, apart):
    """As `2>&1 | tee log`, and `| tee log`: a terminal sends Ctrl-C to tee too."""
    errors = tmp_path / 'errors.txt' if apart else None
    status = interrupt_after_reader(ENDLESS.format(folder=str(tmp_path)), 'Epoch(train)', errors)
    assert status == 130
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'interrupted.pth')
    if apart:
        text = errors.read_text()
        assert 'Traceback' not in text and 'go on, give the same command with --resume' in text


def test_processes_stop_after_the_same_step(tmp_path):
    """One of two gets a signal, in iteration 8; they ask each other at 10."""
    assert run_ranks(train_and_be_stopped, 2, str(tmp_path)) == [143, 143]
    assert torch.load(tmp_path / 'interrupted.pth')['meta']['iter'] == 10


def test_arguments():
    with pytest.raises(ValueError, match="'SIGNONE' is not a signal"):
        SaveOnInterruptHook(signals=('SIGNONE', ))
    with pytest.raises(ValueError, match='at least 1 iteration, not 0'):
        SaveOnInterruptHook(interval=0)
