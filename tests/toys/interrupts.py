# SPDX-License-Identifier: Apache-2.0
"""Toy trainings that get a signal at a point of the run."""
import os
import signal
import subprocess
import sys
from pathlib import Path

from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from toys.processes import train_as_rank

TESTS = Path(__file__).resolve().parents[1]
START = f"""
import signal, sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
"""


@HOOKS.register_module()
class SendSignal(Hook):
    """Sends this process signals at a point of the run."""

    def __init__(self, point, iteration=0, names=('SIGTERM', ), rank='0'):
        self.point, self.iteration, self.names, self.rank = point, iteration, names, rank

    def _send(self, runner, point):
        if point == self.point and runner.iter == self.iteration and (
                os.environ.get('RANK', '0') == self.rank):
            self.point = None
            for name in self.names:
                os.kill(os.getpid(), signal.Signals[name])

    def before_train(self, runner):
        self._send(runner, 'before')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._send(runner, 'train')

    def before_val_epoch(self, runner):
        self._send(runner, 'val')


@HOOKS.register_module()
class SendGroup(SendSignal):
    """Ctrl-C in a terminal, or `timeout`: every process of the group gets it, data workers too."""

    def __init__(self, iteration, name):
        super().__init__('train', iteration, (name, ))

    def _send(self, runner, point):
        if point == self.point and runner.iter == self.iteration:
            self.point = None
            # By a process that is not in the group: workers end without a word at their parent's.
            subprocess.run(['kill', '-s', self.names[0][3:], '--', f'-{os.getpgid(0)}'],
                           start_new_session=True, check=True)


def hooks(*more, **options):
    return [dict(type='InstanceBankHook'), dict(type='RecordLoss'),
            dict(type='SaveOnInterruptHook', **options), *more]


def train_and_be_stopped(work_dir):
    try:
        train_as_rank(work_dir, seed=3, max_epochs=2, batch_size=4, custom_hooks=hooks(
            dict(type='SendSignal', point='train', iteration=8, rank='1'), interval=5))
    except SystemExit as stop:
        return stop.code
    return None


def interrupt_after_reader(code, until, errors):
    """Ctrl-C, in Python whose output goes to a reader, as `tee`, that has ended just before.

    Args:
        code (str): Of Python.
        until (str): The reader ends at a line that has this.
        errors (Path | None): File for stderr, or None: it goes to the reader too.

    Returns:
        int: Exit status.
    """
    with open(errors or os.devnull, 'w') as file:
        training = subprocess.Popen(
            [sys.executable, '-c', START + code], stdout=subprocess.PIPE, start_new_session=True,
            stderr=subprocess.STDOUT if errors is None else file)
    reader = subprocess.Popen(['cat'], stdin=training.stdout, stdout=subprocess.PIPE, text=True)
    training.stdout.close()
    try:
        assert any(until in line for line in reader.stdout)
        reader.kill()
        reader.communicate()
        os.killpg(training.pid, signal.SIGINT)
        return training.wait(timeout=300)
    finally:
        training.kill()
