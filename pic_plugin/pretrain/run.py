# SPDX-License-Identifier: Apache-2.0
"""One pre-training with a config that has been written, to the finished backbone."""
from __future__ import annotations

import errno
import gc
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine.device.utils as device_utils
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from pic_plugin.engine.cpu_runner import CPURunner
from pic_plugin.engine.hooks.save_on_interrupt_hook import FILE as SAVED
from pic_plugin.engine.hooks.save_on_interrupt_hook import HINT, SaveOnInterruptHook
from pic_plugin.engine.train_loader import build_train_loader
from pic_plugin.pretrain.prepare import Prepared, Say, is_out_of_memory
from pic_plugin.pretrain.progress import Interrupted, ProgressHook
from pic_plugin.pretrain.work_folder import WorkFolder


class QuietRunner(CPURunner):
    """mmengine's Runner, whose log goes to its file; of it only warnings are printed."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """See mmengine."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
                # mmengine's own CheckpointHook uses what mmengine is about to drop.
                handler.addFilter(lambda record: 'will be deprecated' not in record.getMessage())
                # `pretrain` has no --work-dir, and says by itself how to go on.
                handler.addFilter(lambda record: not record.getMessage().startswith(HINT))
        return logger

    def dump_config(self) -> None:
        """Leave the config as it was written, with the reasons in it."""


def train(prepared: Prepared, say: Say, launcher: str = 'none') -> QuietRunner:
    """Train with the config of the work folder.

    Raises:
        Interrupted: If a signal ended it; it has saved.
    """
    work = WorkFolder(prepared.work)
    # mmengine takes the best device that it sees; this is what was asked for.
    device_utils.DEVICE = prepared.device
    cfg = Config.fromfile(work.config)
    cfg.work_dir = prepared.work
    cfg.launcher = launcher
    cfg.resume = prepared.resume
    if launcher != 'none':
        # A run that began on one process had no need of it.
        cfg.model.head.setdefault('num_instances', work.read_state()['num_images'])
    runner: QuietRunner | None = None
    progress = ProgressHook(say)
    try:
        runner = QuietRunner.from_cfg(cfg)
        runner.register_hook(progress)
        build_train_loader(runner)
        runner.train()
    except SystemExit as ended:
        # SaveOnInterruptHook: with a checkpoint, and 128 + the signal's number.
        saved = work.path / SAVED
        if runner is None or not isinstance(ended.code, int) or not saved.is_file():
            raise
        raise Interrupted(saved, ended.code - 128, progress.images_seen) from ended
    finally:
        for hook in runner.hooks if runner is not None else []:
            if isinstance(hook, SaveOnInterruptHook):
                hook.listen_no_more()  # what comes after a training that failed ends as usual
    return runner


def train_in_memory(prepared: Prepared, say: Say, launcher: str = 'none') -> QuietRunner:
    """Train; if the memory runs out, begin again with half the batch.

    Raises:
        Interrupted: If a signal ended it; it has saved.
        ValueError: If several processes ran out of memory, or nothing is left to halve.
    """
    while True:
        try:
            return train(prepared, say, launcher)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            work = WorkFolder(prepared.work)
            if prepared.smaller is None or work.checkpoints:
                # The processes have parted, or a schedule in steps has begun.
                batch = int(work.read_state()['batch_size'])
                raise ValueError(
                    f'out of memory with {batch} images a step on each process: run again with '
                    f'--batch-size {max(2, batch // 2)} and another --out.') from error
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        prepared = prepared.smaller()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written; torch's writer has its own words."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            or 'PytorchStreamWriter failed' in str(error) or 'No space left' in str(error))


def command_line(folders: Sequence[str], work: str | Path) -> str:
    """How to go on with a run."""
    return 'python -m pic_plugin.tools.pretrain ' + ' '.join(
        map(shlex.quote, [*map(str, folders), '--out', str(work), '--resume']))
