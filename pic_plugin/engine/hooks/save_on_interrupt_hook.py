# SPDX-License-Identifier: Apache-2.0
"""Hook: Ctrl-C, or the signal before a time limit, saves a checkpoint to go on from."""
from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import mmengine.dist as dist
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from pic_plugin.communication import communicator
from pic_plugin.engine.checkpoint.checkpoint_file import INTERRUPTED, remove_interrupted
from pic_plugin.engine.runner_private import (
    accumulative_counts,
    has_loaded,
    is_training,
    last_checkpoint_file,
    restart_workers,
    resumes,
)
from pic_plugin.engine.worker_signals import outlive
from pic_plugin.files import write_atomically
from pic_plugin.output import lead_on, tell

FILE = f'{INTERRUPTED}.pth'
PATIENCE = 2.0  # seconds
HINT = 'To go on, give the same command'


@HOOKS.register_module()
class SaveOnInterruptHook(Hook):
    """Save a checkpoint and stop when the process is asked to end.

    The first signal lets the training finish its step, or the validation it is in, and save
    ``interrupted.pth`` in the work folder, to which ``last_checkpoint`` then points: ``--resume``
    continues from there, and a run that reaches its end removes it. Ctrl-C again, two seconds
    later or more, ends the process at once, and so does the first signal before the first step.

    With a ``SlidingWindowSampler`` and an ``InstanceBankHook`` (or ``PlainCheckpointHook``) the
    resumed run is exactly the run that was not interrupted. Validation that was due is not made up
    for. When what reads the log ends first, as ``tee`` at the same Ctrl-C, the log goes on to
    stderr.

    Args:
        signals (tuple[str]): Names of the signals. Defaults to ('SIGINT', 'SIGTERM'): Ctrl-C, and
            what ``kill`` and, with ``--signal=TERM@120``, Slurm send.
        interval (int): With several processes, iterations between two times at which they ask each
            other whether one got a signal. Defaults to 10.

    Raises:
        ValueError: If a signal is unknown, or ``interval`` is not positive.
        SystemExit: In training, after the checkpoint was saved, with 128 + the signal's number.
    """

    # After all that belongs to a step: schedulers, averages, and the checkpoint that may be due.
    priority = 'LOWEST'

    def __init__(self, signals: tuple[str, ...] = ('SIGINT', 'SIGTERM'),
                 interval: int = 10) -> None:
        unknown = [name for name in signals if name not in signal.Signals.__members__]
        if unknown:
            raise ValueError(f'{unknown[0]!r} is not a signal of this system: choose from '
                             f'{", ".join(sorted(signal.Signals.__members__))}.')
        if interval < 1:
            raise ValueError(f'interval must be at least 1 iteration, not {interval}.')
        self.signals = tuple(signal.Signals[name] for name in signals)
        self.interval = interval
        self._previous: dict[int, Any] = {}
        self._received: int | None = None
        self._received_at = 0.0
        self._training = False

    def before_run(self, runner: Runner) -> None:
        """Listen, and let data workers live on.

        Only a main thread can; elsewhere the hook does nothing.
        """
        if is_training(runner) and not self._previous and (
                threading.current_thread() is threading.main_thread()):
            self._received, self._process = None, os.getpid()
            self._previous = {number: _plain(number, signal.signal(number, self._note))
                              for number in self.signals}
            for loop in (runner.train_loop, runner.val_loop):
                if loop is not None:
                    outlive(loop.dataloader, self.signals)
            restart_workers(runner)
            for handler in runner.logger.handlers:
                if type(handler) is logging.StreamHandler:
                    handler.handleError = partial(_write_again, handler)  # type: ignore[method-assign]

    def before_train_epoch(self, runner: Runner) -> None:
        """From here on there is something to save."""
        self._training = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received, self._received_at = number, time.monotonic()
            if os.getpid() != self._process:
                return  # a data worker that has just been forked
            if self._training:
                with suppress(RuntimeError):  # amid another line to stderr
                    tell(f'{signal.Signals(number).name}: a checkpoint is saved after this step. '
                         'Ctrl-C again ends the process at once.', sys.stderr)
                return
        # torchrun passes on the Ctrl-C that its processes have got from the terminal themselves.
        elif number != signal.SIGINT or time.monotonic() < self._received_at + PATIENCE:
            return
        self.listen_no_more()
        signal.raise_signal(number)

    def listen_no_more(self) -> None:
        """Leave signals to whoever had them before, as after a training that failed."""
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Save and stop, if a signal has come."""
        steps = (runner.iter + 1) // accumulative_counts(runner.optim_wrapper)
        interval = max(1, self.interval // accumulative_counts(runner.optim_wrapper))
        if dist.get_world_size() > 1 and steps % interval:
            return
        self._stop_if_asked(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save and stop, if a signal has come during a validation within the training."""
        if self._training:
            self._stop_if_asked(runner, dict(epoch=runner.epoch, iter=runner.iter))

    def after_train(self, runner: Runner) -> None:
        """What comes after the training is interrupted as usual."""
        self._training = False
        self.listen_no_more()
        if resumes(runner) and has_loaded(runner) and dist.is_main_process():
            remove_interrupted(Path(runner.work_dir))

    def _stop_if_asked(self, runner: Runner, meta: dict[str, int]) -> None:
        # Gradients that wait for an optimizer step are in no checkpoint.
        if meta['iter'] % accumulative_counts(runner.optim_wrapper):
            return
        # Of all processes: they have to stop after the same step.
        number = int(communicator().max(torch.tensor([self._received or 0]), 'signals'))
        if not number:
            return
        file = Path(runner.work_dir) / FILE
        try:  # listening all the while: a signal sent twice must not cut the file short
            runner.save_checkpoint(runner.work_dir, FILE, meta=meta)
            if dist.is_main_process():
                write_atomically(last_checkpoint_file(runner), str(file))
        finally:
            self.listen_no_more()
        runner.logger.warning(
            f'{signal.Signals(number).name}: stopped after iteration {meta["iter"]} and saved '
            f'{file}.')
        runner.logger.warning(f'{HINT} with --resume and --work-dir {runner.work_dir} (or '
                              'resume=True in the config).')
        sys.exit(128 + number)


def _plain(number: int, handler: Any) -> Any:
    """The handler, or what a hook of an earlier training that failed has put aside for its own."""
    hook = getattr(handler, '__self__', None)
    return hook._previous.get(number) if isinstance(hook, SaveOnInterruptHook) else handler


def _write_again(handler: logging.StreamHandler, record: logging.LogRecord) -> None:
    """In place of the traceback that logging prints for a line that could not be written."""
    if isinstance(sys.exc_info()[1], OSError):
        lead_on(handler.stream)
        handler.emit(record)
    else:
        logging.StreamHandler.handleError(handler, record)
