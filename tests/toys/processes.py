# SPDX-License-Identifier: Apache-2.0
"""Toy trainings in processes of their own: several joined by gloo, killed, or short of disk."""
import ctypes
import gc
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from pic_plugin.bank import RowStore
from pic_plugin.engine.train_loader import build_train_loader
from toys.training import make_config, snapshot, train

CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000  # <linux/sched.h>
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 1 << 14, 1 << 18  # <linux/mount.h>


def start_process(target, *args):
    """A process forked from a server that has imported everything, so that it starts at once."""
    process = multiprocessing.get_context('forkserver').Process(target=_frozen,
                                                                args=(target, args))
    process.start()
    return process


def _frozen(target, args):
    gc.freeze()  # as conftest.py does
    target(*args)


def train_and_die(work_dir, stage, count, kwargs):
    """Train, and be killed at the ``count``-th time that a stage is reached."""
    _arm(stage, count)
    train(work_dir, **kwargs)


def _arm(stage, count):
    reached = [0]

    def die_if_due():
        reached[0] += 1
        if reached[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)

    _STAGES[stage](die_if_due)


def _before_replace(suffix):
    def patch(die_if_due):
        replace = os.replace

        def replacement(source, target):
            if suffix in Path(target).name:
                die_if_due()
            replace(source, target)

        os.replace = replacement

    return patch


def _in_bank_section(die_if_due):
    from pic_plugin.bank import bank_file
    write = bank_file._write_section

    def replacement(file, kind, *args):
        write(file, kind, *args)
        if kind == 'rows':
            file.flush()
            die_if_due()

    bank_file._write_section = replacement


def _in_checkpoint(die_if_due):
    from mmengine.fileio import LocalBackend
    put = LocalBackend.put

    def replacement(self, obj, filepath):
        put(self, bytes(obj)[:len(obj) // 2], filepath)
        die_if_due()
        put(self, obj, filepath)

    LocalBackend.put = replacement


def _before_prune(die_if_due):
    from pic_plugin.engine.checkpoint.bank_checkpoint import BankCheckpoint
    prune = BankCheckpoint._prune

    def replacement(self, *args):
        die_if_due()
        prune(self, *args)

    BankCheckpoint._prune = replacement


def _in_last_checkpoint(die_if_due):
    import mmengine.hooks.checkpoint_hook as module

    def replacement(path, mode='r'):
        file = open(path, mode)
        if Path(path).name == 'last_checkpoint' and mode == 'w':
            die_if_due()  # emptied, not written
        return file

    module.open = replacement


def _in_step(die_if_due):
    step = torch.optim.SGD.step

    def replacement(self, *args, **kwargs):
        die_if_due()
        return step(self, *args, **kwargs)

    torch.optim.SGD.step = replacement


_STAGES = {
    'bank section': _in_bank_section,
    'bank replace': _before_replace('.bank-'),
    'checkpoint half': _in_checkpoint,
    'checkpoint replace': _before_replace('.pth'),
    'prune': _before_prune,
    'last_checkpoint': _in_last_checkpoint,
    'step': _in_step,
    'nothing': lambda die_if_due: None,
}


def run_ranks(work, world_size, *args, seconds=300):
    """Run ``work(*args)`` in real processes joined by gloo; what each returned, by rank."""
    context = multiprocessing.get_context('forkserver')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    pipes, processes = [], []
    for rank in range(world_size):
        ours, theirs = context.Pipe(duplex=False)
        processes.append(start_process(_rank_main, theirs, work, rank, world_size, port, args))
        theirs.close()
        pipes.append(ours)
    results = []
    for pipe in pipes:
        # A hang is a failure: the others wait for a process that has given up.
        try:
            results.append(pipe.recv() if pipe.poll(seconds) else 'no answer')
        except EOFError:
            results.append('killed')
    for process in processes:
        process.kill()
        process.join()
    return results


def _rank_main(pipe, work, rank, world_size, port, args):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size),
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    try:
        result = work(*args)
    except Exception:
        result = traceback.format_exc()
    pipe.send(result)
    signal.pause()  # the others may still need this process


def run_alone(work, *args, timeout=300):
    """Run ``work(*args)`` in a process of its own; what it returned, its traceback, or 'killed'."""
    context = multiprocessing.get_context('forkserver')
    ours, theirs = context.Pipe(duplex=False)
    process = start_process(_alone_main, theirs, work, args)
    theirs.close()
    try:
        return ours.recv() if ours.poll(timeout) else 'no answer'
    except EOFError:
        return 'killed'
    finally:
        process.kill()
        process.join()


def _alone_main(pipe, work, args):
    try:
        result = work(*args)
    except Exception:
        # torch's handler would raise again, anywhere, when another data worker ends.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        result = traceback.format_exc()
    pipe.send(result)


def command(words, cwd):
    """What ``python *words`` does, without its start; for :func:`run_alone` and :func:`run_ranks`.

    Args:
        words (list): ``-m`` and a module, ``-c`` and a program, or a script; then its arguments.
        cwd (Path): Where it runs.

    Returns:
        tuple[int, str]: Exit status, and output of it and of the processes that it has started.
    """
    kind = words[0] if words[0] in ('-m', '-c') else 'script'
    what, *sys.argv[1:] = [str(word) for word in words[kind != 'script':]]
    os.chdir(cwd)
    with tempfile.TemporaryFile('r+') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = open(1, 'w', buffering=1, closefd=False)
        try:
            if kind == '-c':
                exec(compile(what, '-c', 'exec'), dict(__name__='__main__'))
            else:
                sys.argv[0] = what
                run = runpy.run_module if kind == '-m' else runpy.run_path
                run(what, run_name='__main__')
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
            if isinstance(status, str):
                print(status)
                status = 1
        except BaseException:
            traceback.print_exc()
            status = 1
        log.seek(0)
        return status, log.read()


def train_and_report(work_dir, kwargs):
    """Losses and final state."""
    runner = train(work_dir, **kwargs)
    return runner.losses, snapshot(runner)


def limited_training(work_dir, num_bytes, kwargs):
    """A training in which no file may become larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))
    return train_and_report(work_dir, kwargs)


class CannotMount(Exception):
    """This system lets no user mount."""


def train_in_a_mount(size, read_only, work_dir, kwargs):
    """Train where /mnt is a small file system of its own."""
    mount_small(size, read_only)
    train(work_dir, **kwargs)


def mount_small(size, read_only=False):
    """Make /mnt a small file system of this process alone, which takes no root."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(target, kind=None, flags=0, options=None):
        if libc.mount(b'none', target, kind, flags, options):
            raise CannotMount(os.strerror(ctypes.get_errno()))

    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise CannotMount(os.strerror(ctypes.get_errno()))
    for name, text in (('setgroups', 'deny'), ('uid_map', f'0 {user} 1'),
                       ('gid_map', f'0 {group} 1')):
        Path('/proc/self', name).write_text(text)
    mount(b'/', flags=MS_REC | MS_PRIVATE)
    mount(b'/mnt', b'tmpfs', options=size.encode())
    Path('/mnt/work').mkdir()
    if read_only:
        mount(b'/mnt', flags=MS_REMOUNT | MS_RDONLY)


def hold_store(path, ready):
    """Use a file until this process is killed."""
    store = RowStore(100, 2, 8, path)
    Path(ready).touch()
    time.sleep(60)
    store.close()


@HOOKS.register_module()
class LookInOne(Hook):
    """Looks at the classes before the loss, in one of several processes."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if os.environ['RANK'] == '0':
            head = runner.model.module.head
            assert len(head.active_ids) <= 16 and head.bank.step == runner.iter


def train_rank(work_dir, kwargs):
    """In one of several processes: train; losses and final state."""
    runner = train_as_rank(work_dir, **kwargs)
    return runner.losses, snapshot(runner)


def train_as_rank(work_dir, **kwargs):
    """In one of several processes: train and return the runner."""
    return train(work_dir, **rank_options(), **kwargs)


def rank_options():
    """What a config has in one of several processes."""
    # mmengine's launcher calls it even where the backend is gloo and no GPU is there.
    torch.cuda.set_device = lambda device: None
    return dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo')),
                model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))


def load_and_train(pipelines, work_dir, kwargs):
    """In one of several processes: build the loader, with a pipeline of its own, then train."""
    runner = Runner.from_cfg(Config(make_config(
        work_dir, pipeline=pipelines[int(os.environ['RANK'])], **rank_options(), **kwargs)))
    build_train_loader(runner)
    runner.train()


def train_on_own_images(changes, work_dir, kwargs):
    """In one of several processes: train on a data set of which arguments are this process's."""
    kwargs['train_dataloader']['dataset'].update(changes[int(os.environ['RANK'])])
    return train_rank(work_dir, kwargs)


def train_rank_and_die(rank, stage, count, work_dir, kwargs):
    """In one of several processes: train, and be killed if this is the one."""
    if os.environ['RANK'] == str(rank):
        _arm(stage, count)
    return train_rank(work_dir, kwargs)


def train_on_full_disk(name, full_rank, work_dir, kwargs):
    """In one of several processes: train, where one of them cannot write its files."""
    from pic_plugin.engine.checkpoint import bank_checkpoint

    def fail(*args):
        raise OSError(28, 'No space left on device')

    if os.environ['RANK'] == str(full_rank):
        setattr(bank_checkpoint, name, fail)
    return train_rank(work_dir, kwargs)
