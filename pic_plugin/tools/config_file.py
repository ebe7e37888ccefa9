# SPDX-License-Identifier: Apache-2.0
"""What train and test share: find a config, take the command line into it, explain a checkpoint."""
from __future__ import annotations

import argparse
import difflib
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import pic_plugin
from pic_plugin.dependencies import explain_missing_pkg_resources
from pic_plugin.engine.config_options import apply_options

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that both tools take, named as in mmpretrain's tools."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: the '
                        "config's work_dir, else work_dirs/NAME_OF_THE_CONFIG")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='values to change in the config: train_cfg.max_epochs=2, or a '
                        'variable at its top: batch_size=16; lists and tuples as '
                        'key="[a,b]" key="[(a,b),(c,d)]" (quotes needed, no blanks)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes were started; default: %(default)s')
    # torch.distributed.launch gives one spelling or the other, as its version has it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=None,
                        help=argparse.SUPPRESS)
    parser.add_argument('--no-pin-memory', action='store_true',
                        help='do not pin the memory of batches')


def config_folders(package: Optional[Path] = None) -> list[Path]:
    """Folders that hold the configs of this installation.

    Args:
        package (Path, optional): Folder of the package. Defaults to the imported one's.

    Returns:
        list[Path]: ``.mim/configs`` of an installed package, or ``configs`` of a checkout that is
        not installed. Empty if there is neither.
    """
    package = Path(pic_plugin.__file__).resolve().parent if package is None else package
    folders = [package / '.mim' / 'configs']
    # Without setup.py this is site-packages, and its `configs` somebody else's.
    if (package.parent / 'setup.py').is_file():
        folders.append(package.parent / 'configs')
    return [folder.resolve() for folder in folders if folder.is_dir()][:1]


def find_config(name: str, folders: Optional[list[Path]] = None) -> Path:
    """Find a config by path, or one of ours by its file name, with or without ``.py``.

    Args:
        name (str): Path, or a name as in ``pic_demo.py``, ``pic_demo`` or
            ``configs/pic/pic_demo.py``.
        folders (list[Path], optional): Where to look. Defaults to :func:`config_folders`.

    Returns:
        Path: An existing file.

    Raises:
        FileNotFoundError: If there is none, with the nearest names.
        ValueError: If a path is a folder, or several configs have the name.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise ValueError(f'{name} is a folder: give a config file in it.')
    known = sorted(file for folder in (config_folders() if folders is None else folders)
                   for file in folder.rglob('*.py'))
    wanted = Path(name).name
    wanted = wanted if wanted.endswith('.py') else f'{wanted}.py'
    found = [file for file in known if file.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f'{len(found)} configs are named {wanted}, give the path of one: '
                         + ', '.join(str(file) for file in found))
    names = {file.stem: file.name for file in known}
    near = [names[stem] for stem in difflib.get_close_matches(Path(wanted).stem, names, cutoff=0.4)]
    if near:
        hint = f'the nearest names are {", ".join(near)}.'
    elif names:
        hint = f'there are {", ".join(sorted(names.values()))}.'
    else:
        hint = 'this installation has no configs of its own, give the path of a file.'
    raise FileNotFoundError(f'there is no config {name}: {hint}')


def read_config(args: argparse.Namespace) -> Config:
    """Read a config and set launcher, work_dir and ``--cfg-options``.

    The work folder is, in this order: the command line's, the config's, one named after the config
    below ``work_dirs``.

    Args:
        args (Namespace): ``config`` and the arguments of :func:`add_common_arguments`.

    Raises:
        FileNotFoundError: If there is no such config.
        ModuleNotFoundError: If the config needs pkg_resources and there is none.
        ValueError: If the name of the config is ambiguous, or an option would have no effect.
    """
    file = find_config(args.config)
    try:
        cfg = Config.fromfile(file)
    except ModuleNotFoundError as error:
        explanation = explain_missing_pkg_resources(error)
        if explanation is None:
            raise
        raise ModuleNotFoundError(explanation, name=error.name) from error
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.cfg_options is not None:
        cfg = apply_options(file, cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', file.stem)
    return cfg


def complete_dataloaders(cfg: Config, pin_memory: bool, persistent_workers: bool) -> None:
    """Fill in what mmpretrain's tools fill in, and only where the config says nothing.

    Args:
        cfg (Config): Changed in place.
        pin_memory (bool): False turns it off everywhere.
        persistent_workers (bool): False turns it off everywhere.
    """
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        # Without a GPU torch warns of it in every epoch.
        loader.setdefault('pin_memory', torch.cuda.is_available())
        loader.setdefault('persistent_workers', True)
        loader.setdefault('collate_fn', dict(type='default_collate'))
        loader.pin_memory = loader.pin_memory and pin_memory
        # torch refuses to keep workers that do not exist.
        loader.persistent_workers = (loader.persistent_workers and persistent_workers
                                     and loader.get('num_workers', 0) > 0)
        # Left there by `_base_ = 'mmpretrain::...'`, and no argument of the collate function.
        if isinstance(loader.collate_fn, dict):
            loader.collate_fn.pop('_scope_', None)


def build_runner(cfg: Config) -> Runner:
    """Build the runner, of the class that ``runner_type`` names if it is there."""
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        cfg.setdefault('runner_type', 'CPURunner')
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def check_checkpoint(path: str) -> None:
    """Look for a checkpoint before minutes are spent on building everything else.

    Raises:
        FileNotFoundError: If it is no address such as ``https://...`` and no file.
    """
    if '://' not in path and not Path(path).expanduser().is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}.')


@contextmanager
def explained_errors(tool: str) -> Iterator[None]:
    """End a tool with one line for what its user can put right.

    Args:
        tool (str): Name to begin the line with.

    Raises:
        SystemExit: For an input that is missing or wrong, with the message.
    """
    try:
        yield
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(f'{tool}: {error}') from error


@contextmanager
def explained_unpickling(tool: str) -> Iterator[None]:
    """Say what to do about a checkpoint that torch refuses to load.

    Raises:
        SystemExit: If the checkpoint holds objects whose loading could run code.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        if 'weights_only' not in str(error):
            raise
        raise SystemExit(
            f'{tool}: the checkpoint holds Python objects whose loading could run any code, and '
            'was not loaded (checkpoints written by pic_plugin hold none). If, and only if, you '
            'trust where it comes from, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and run this '
            'again.') from error


def announce(tool: str, cfg: Config) -> None:
    """Print which file and folder are used, once for all processes."""
    if os.environ.get('RANK', '0') == '0':
        print(f'{tool}: {cfg.filename} -> {cfg.work_dir}', file=sys.stderr)
