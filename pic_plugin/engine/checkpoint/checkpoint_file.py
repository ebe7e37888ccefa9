# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's file: published whole, found after a crash, looked at before it is loaded."""
from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmengine.utils import digit_version

from pic_plugin.engine.runner_private import (
    last_checkpoint_file,
    load_from,
    resumes,
    wrap_method,
)
from pic_plugin.engine.type_names import is_pretrained
from pic_plugin.files import write_atomically

INTERRUPTED = 'interrupted'  # stem of what a signal saves


def check_checkpoint_file(path: str | Path) -> None:
    """Refuse a checkpoint that is damaged, or that could run code when it is loaded.

    torch writes checksums and does not look at them when it loads: a bit that a disk has lost would
    become a class weight. And before torch 2.6, mmengine loads whatever objects a file names.

    Args:
        path (str | Path): A ``.pth``. What is not on this file system is not looked at.

    Raises:
        ValueError: If it is truncated or damaged.
        pickle.UnpicklingError: If it holds objects whose loading could run code, unless
            ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set.
    """
    path = Path(path)
    if not path.is_file():
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise ValueError(f'{path} is truncated or damaged ({error}): copy it again, or resume from '
                         'an earlier checkpoint.') from error
    if damaged is not None:
        raise ValueError(f'{path} is damaged (the checksum of {damaged} in it is wrong): copy it '
                         'again, or resume from an earlier checkpoint.')
    refuse_code(path)


def refuse_code(path: str | Path) -> None:
    """Refuse a checkpoint that could run code when mmengine loads it.

    Args:
        path (str | Path): A ``.pth``. What is not on this file system is not looked at.

    Raises:
        pickle.UnpicklingError: See :func:`check_checkpoint_file`.
    """
    if Path(path).is_file() and digit_version(torch.__version__) < digit_version('2.6') and (
            os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '0').lower() not in (
                '1', 'y', 'yes', 'true')):
        torch.load(path, map_location='cpu', weights_only=True)


def guard_loading(runner: Runner) -> None:
    """Let a runner load no file that could run code: checkpoints, and those that modules name."""
    def load_checkpoint(load: Callable, filename: str, *args: Any, **kwargs: Any) -> Any:
        refuse_code(filename)
        return load(filename, *args, **kwargs)

    wrap_method(runner, 'load_checkpoint', load_checkpoint)
    for module in runner.model.modules():
        init_cfgs = getattr(module, 'init_cfg', None) or []
        for init_cfg in init_cfgs if isinstance(init_cfgs, (list, tuple)) else [init_cfgs]:
            if is_pretrained(init_cfg):
                refuse_code(init_cfg['checkpoint'])


def publish(partial: Path, final: Path) -> None:
    """Give a file that is complete its name, on disk before it replaces the old one."""
    with open(partial, 'rb') as file:
        os.fsync(file.fileno())
    os.replace(partial, final)
    if hasattr(os, 'O_DIRECTORY'):
        folder = os.open(final.parent, os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)


def saved_checkpoints(work_dir: Path) -> list[Path]:
    """``epoch_N.pth``, ``iter_N.pth`` and ``interrupted.pth`` of a run, the newest last.

    By time: a run may have saved by epochs and, interrupted, by iterations.
    """
    files = [path for path in work_dir.glob('*.pth')
             if re.fullmatch(rf'(epoch|iter)_\d+|{INTERRUPTED}', path.stem)]
    return sorted(files, key=lambda path: (
        path.stat().st_mtime_ns, *map(int, re.findall(r'\d+', path.stem))))


def newest_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint that a run saved last, None if there is none.

    As ``last_checkpoint`` says: the times of files get lost when a folder is copied.
    """
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file():
        named = work_dir / Path(pointer.read_text().strip()).name
        if named.is_file():
            return named
    saved = saved_checkpoints(work_dir)
    return saved[-1] if saved else None


def remove_interrupted(work_dir: Path) -> None:
    """Remove what an interruption has saved, if the run has saved another checkpoint since.

    Left behind, it would be the newest one by time where a folder is copied in part.
    """
    newest = newest_checkpoint(work_dir)
    if newest is not None and newest.stem != INTERRUPTED:
        for pattern in (f'{INTERRUPTED}.pth', f'{INTERRUPTED}.*.bank-*of*'):
            for path in work_dir.glob(pattern):
                path.unlink(missing_ok=True)


def mend_last_checkpoint(runner: Runner) -> None:
    """Point ``last_checkpoint`` at a checkpoint that is there, after a crash while it was written.

    mmengine writes that file in place, so a crash can leave it empty.

    Raises:
        ValueError: If there are checkpoints, and none is whole: a training that began anew would
            write over them.
    """
    pointer = last_checkpoint_file(runner)
    if not resumes(runner) or load_from(runner) is not None:
        return
    named = Path(pointer.read_text().strip()) if pointer.exists() else None
    if named is not None and named.name:
        # A folder that was copied or moved brings along a pointer into the old one.
        here = pointer.parent / named.name
        if named.is_file() and (_saves_elsewhere(runner) or not here.is_file()
                                or named.samefile(here)):
            return
        if here.is_file() and zipfile.is_zipfile(here):
            runner.logger.warning(f'{pointer} names {named}, in another folder; {here} is taken.')
            write_atomically(pointer, str(here))
            return
    saved = saved_checkpoints(pointer.parent)
    complete = [path for path in saved if zipfile.is_zipfile(path)]
    if saved and not complete:
        raise ValueError(f'{saved[-1]} is truncated or damaged, and so is every checkpoint in '
                         f'{pointer.parent}: copy them again, or remove them to begin anew.')
    if not complete:
        if pointer.exists():
            pointer.unlink()
        return
    newest = complete[-1]
    runner.logger.warning(f'{pointer} is missing, empty or names a file that is gone; the newest '
                          f'complete checkpoint is {newest}.')
    write_atomically(pointer, str(newest))


def _saves_elsewhere(runner: Runner) -> bool:
    """Whether checkpoints go to another folder than the work folder."""
    return any(isinstance(hook, CheckpointHook) and hook.out_dir not in (None, runner.work_dir)
               for hook in runner.hooks)
