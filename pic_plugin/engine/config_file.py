# SPDX-License-Identifier: Apache-2.0
"""Find a config by path or name, read it, and complete it into a runner."""
from __future__ import annotations

import difflib
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from pic_plugin.dependencies import explain_missing_pkg_resources

PACKAGE = Path(__file__).resolve().parents[1]
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def config_folders(package: Path = PACKAGE) -> list[Path]:
    """Folders that hold the configs of this installation.

    Args:
        package (Path): Folder of the package. Defaults to this one.

    Returns:
        list[Path]: ``.mim/configs`` of an installed package, or ``configs`` of a checkout that is
        not installed. Empty if there is neither.
    """
    folders = [package / '.mim' / 'configs']
    # Without setup.py this is site-packages, and its `configs` somebody else's.
    if (package.parent / 'setup.py').is_file():
        folders.append(package.parent / 'configs')
    return [folder.resolve() for folder in folders if folder.is_dir()][:1]


def find_config(name: str, folders: list[Path] | None = None, kind: str = 'config') -> Path:
    """Find a config by path, or one of ours by its file name, with or without ``.py``.

    Args:
        name (str): Path, or a name as in ``pic_demo.py``, ``pic_demo`` or
            ``configs/pic/pic_demo.py``.
        folders (list[Path], optional): Where to look. Defaults to :func:`config_folders`.
        kind (str): What messages call the file. Defaults to 'config'.

    Returns:
        Path: An existing file.

    Raises:
        FileNotFoundError: If there is none, with the nearest names.
        ValueError: If a path is a folder, or several configs have the name.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise ValueError(f'{name} is a folder: give a {kind} file in it.')
    known = sorted(file for folder in (config_folders() if folders is None else folders)
                   for file in folder.rglob('[!_]*.py'))
    wanted = Path(name).name
    wanted = wanted if wanted.endswith('.py') else f'{wanted}.py'
    found = [file for file in known if file.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f'{len(found)} {kind}s are named {wanted}, give the path of one: '
                         + ', '.join(map(str, found)))
    names = {file.stem: file.name for file in known}
    near = [names[stem] for stem in difflib.get_close_matches(Path(wanted).stem, names, cutoff=0.4)]
    if near:
        hint = f'the nearest names are {", ".join(near)}.'
    elif names:
        hint = f'there are {", ".join(sorted(names.values()))}.'
    else:
        hint = f'this installation has no {kind}s of its own, give the path of a file.'
    raise FileNotFoundError(f'there is no {kind} {name}: {hint}')


def read_config(name: str) -> Config:
    """Read a config by path or name.

    Raises:
        FileNotFoundError: If there is none.
        ModuleNotFoundError: If it needs pkg_resources and there is none, with the command to run.
        ValueError: If the name is ambiguous.
    """
    file = find_config(name)
    try:
        return Config.fromfile(file)
    except ModuleNotFoundError as error:
        explanation = explain_missing_pkg_resources(error)
        if explanation is None:
            raise
        raise ModuleNotFoundError(explanation, name=error.name) from error


def check_checkpoint(path: str) -> None:
    """Look for a checkpoint before minutes are spent on building everything else.

    Raises:
        FileNotFoundError: If it is neither an address such as ``https://...`` nor a file.
    """
    if '://' not in path and not Path(path).expanduser().is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}.')


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
    # Runs of one name that a process starts in the same second share a log in mmengine; configs
    # that the tools write are all of one name.
    cfg.setdefault('experiment_name', Path(cfg.work_dir).name)
    # A log is named after the second the run starts in: one resumed in that second would go on in
    # the log of the run before it.
    while Path(cfg.work_dir, time.strftime('%Y%m%d_%H%M%S')).exists():
        time.sleep(0.05)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
