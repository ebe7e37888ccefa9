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
from pic_plugin.engine.hooks.save_on_interrupt_hook import HINT
from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.pretrain import rules
from pic_plugin.pretrain.config_text import Sources, config_text
from pic_plugin.pretrain.machine import find_machine
from pic_plugin.pretrain.networks import look_at
from pic_plugin.pretrain.plan import make_plan
from pic_plugin.pretrain.prepare import Options, Prepared, Say, is_out_of_memory
from pic_plugin.pretrain.progress import Interrupted, ProgressHook
from pic_plugin.pretrain.rules import Choice, Facts, Wishes
from pic_plugin.pretrain.start import FILE, read_start
from pic_plugin.pretrain.work_folder import PICTURES, QUERIES, REFERENCES, WorkFolder


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


def train(prepared: Prepared, options: Options, say: Say, launcher: str = 'none') -> QuietRunner:
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
    runner: QuietRunner | None = None
    try:
        runner = QuietRunner.from_cfg(cfg)
        runner.register_hook(ProgressHook(say))
        runner.train()
    except SystemExit as ended:
        # SaveOnInterruptHook: with a checkpoint, and 128 + the signal's number.
        saved = work.path / SAVED
        if runner is None or not isinstance(ended.code, int) or not saved.is_file():
            raise
        batch = images_of_a_step(runner.train_dataloader)
        raise Interrupted(saved, ended.code - 128, (runner.iter + 1) * batch) from ended
    return runner


def train_in_memory(prepared: Prepared, options: Options, say: Say,
                    launcher: str = 'none') -> QuietRunner:
    """Train; if the memory runs out, begin again with half the batch.

    Raises:
        Interrupted: If a signal ended it; it has saved.
        ValueError: If several processes ran out of memory, or nothing is left to halve.
    """
    while True:
        try:
            return train(prepared, options, say, launcher)
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            state = WorkFolder(prepared.work).read_state()
            batch = int(state['batch_size'])
            if launcher != 'none' or any(Path(prepared.work).glob('*.pth')):
                # The processes have parted, or a schedule in steps has begun.
                raise ValueError(
                    f'out of memory with {batch} images a step on each process: run again with '
                    f'--batch-size {max(2, batch // 2)} and another --out.') from error
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _plan_smaller(prepared, options, state, say)


def _plan_smaller(prepared: Prepared, options: Options, state: dict[str, Any], say: Say) -> None:
    """Write the config again, for half the batch."""
    work = WorkFolder(prepared.work)
    batch = int(state['batch_size'])
    if batch < 4:
        raise ValueError(f'the memory does not suffice for {batch} images a step: choose a smaller '
                         '--backbone or --image-size.')
    say(f'Out of memory with {batch} images a step: beginning again with {batch // 2}; learning '
        'rate and window follow.')
    machine = find_machine(work.path, prepared.device)
    files = work.read_list(PICTURES)
    cfg = Config.fromfile(work.config)
    root = cfg.train_dataloader.dataset.data_root
    facts = Facts(len(files), int(state['image_size']), machine)
    start_file = work.path / FILE
    start = read_start(str(start_file)) if start_file.is_file() else None
    wishes = Wishes(backbone=state['backbone'], image_size=state['image_size'],
                    images_seen=state['images_seen'], batch_size=batch // 2,
                    start=None if start is None else str(start_file))
    size = Choice(wishes.image_size, 'as before')
    network = Choice(wishes.backbone, 'as before')
    backbone = look_at(state['backbone'], size.value, None if start is None else start.cfg)
    plan = make_plan(facts, wishes, backbone, size, network)
    sources = Sources(root, str(work.pictures), value_range=(
        cfg.train_dataloader.dataset.pipeline[0].get('value_range')), start=start,
        start_file=None if start is None else str(start_file))
    if (work.path / REFERENCES).is_file():
        sources = sources._replace(
            references=str(work.path / REFERENCES), queries=str(work.path / QUERIES),
            num_references=len(work.read_list(REFERENCES)))
    say('Plan:\n' + rules.explain(plan.choices))
    state.update(batch_size=plan.batch_size, window=plan.window, stride=plan.stride)
    work.write(config_text(plan, sources, options.logs), state)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written; torch's writer has its own words."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            or 'PytorchStreamWriter failed' in str(error) or 'No space left' in str(error))


def command_line(folders: Sequence[str], work: str | Path) -> str:
    """How to go on with a run."""
    return 'python -m pic_plugin.tools.pretrain ' + ' '.join(
        map(shlex.quote, [*map(str, folders), '--out', str(work), '--resume']))
