# SPDX-License-Identifier: Apache-2.0
"""Train with a config, as mmpretrain's train tool does.

    mim train pic_plugin pic_demo.py
    python -m pic_plugin.tools.train pic_demo.py --work-dir work_dirs/demo
    torchrun --nproc_per_node 4 -m pic_plugin.tools.train CONFIG --launcher pytorch

CONFIG is a path, or the file name of a config that comes with pic_plugin. It needs no
``custom_imports``: this tool imports pic_plugin itself.
"""
from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device

from pic_plugin.command_line import (
    add_runner_arguments,
    announce,
    build_runner_beside,
    explained_errors,
    explained_unpickling,
    is_in_its_folder,
    read_runner_config,
)
from pic_plugin.engine.checkpoint.checkpoint_file import saved_checkpoints
from pic_plugin.engine.config_file import check_checkpoint, complete_dataloaders
from pic_plugin.engine.config_options import explained_names
from pic_plugin.engine.evaluation_checks import explained_data
from pic_plugin.engine.runner_private import last_checkpoint_file
from pic_plugin.engine.train_loader import build_train_loader
from pic_plugin.engine.type_names import type_name


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='train', description='Train with a config.', allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from a checkpoint; without a name, from the newest one '
                        'in the work folder')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--no-validate', action='store_true',
                        help='do not evaluate during training')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help="scale the learning rate by the batch size over the config's "
                        'auto_scale_lr.base_batch_size')
    parser.add_argument('--no-persistent-workers', action='store_true',
                        help='start new data workers in each epoch')
    add_runner_arguments(parser)
    return parser.parse_args(argv)


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Take the command line into a config, which is changed in place and returned.

    Raises:
        FileNotFoundError: If ``--resume`` names a file that does not exist.
        ValueError: If the config has nothing to train, or an option does not fit it.
    """
    missing = [key for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
               if cfg.get(key) is None]
    if missing:
        raise ValueError(f'{cfg.filename} has no {", ".join(missing)}: it is not a training '
                         'config.')
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        wrapper = type_name(cfg.optim_wrapper) or 'OptimWrapper'
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ValueError(f'--amp replaces OptimWrapper, and {cfg.filename} has {wrapper}: set '
                             'optim_wrapper in the config.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None
        if args.resume != 'auto':
            check_checkpoint(args.resume)
            cfg.load_from = args.resume
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise ValueError('--auto-scale-lr needs the batch size that the learning rate is meant '
                             'for: set auto_scale_lr = dict(base_batch_size=...) in the config.')
        cfg.auto_scale_lr.enable = True
    check_length(cfg)
    save_on_interrupt(cfg)
    complete_dataloaders(cfg, pin_memory=not args.no_pin_memory,
                         persistent_workers=not args.no_persistent_workers)
    return cfg


def check_length(cfg: Config) -> None:
    """Refuse lengths of which mmengine trains nothing in silence, or which it divides by.

    Raises:
        ValueError: If one is not a whole number, or less than 1.
    """
    for name in ('max_epochs', 'max_iters', 'val_interval'):
        value = cfg.train_cfg.get(name, 1)
        if not isinstance(value, (int, float)) or value < 1 or value != int(value):
            raise ValueError(f'train_cfg.{name} must be a whole number from 1 on, not {value!r}.')


def check_precision(cfg: Config) -> None:
    """Refuse mixed precision where mmengine has none, before it fails with an assertion.

    Raises:
        ValueError: If the config has an AmpOptimWrapper and there is no GPU.
    """
    device = get_device()
    if type_name(cfg.optim_wrapper) == 'AmpOptimWrapper' and device in ('cpu', 'mps'):
        raise ValueError(
            f'mmengine trains in mixed precision on a GPU alone, and this training would run on '
            f"{device}: leave --amp out, or, if it is the config's, set optim_wrapper.type to "
            'OptimWrapper and remove its loss_scale and dtype.')


def save_on_interrupt(cfg: Config) -> None:
    """Let Ctrl-C and SIGTERM save a checkpoint, in a training that can resume from it.

    Args:
        cfg (Config): ``custom_hooks`` gets a SaveOnInterruptHook, unless it has one.
    """
    hooks = cfg.get('custom_hooks') or []
    types = {type_name(hook) for hook in hooks}
    if types & {'InstanceBankHook', 'PlainCheckpointHook'} and 'SaveOnInterruptHook' not in types:
        cfg.custom_hooks = [*hooks, dict(type='SaveOnInterruptHook')]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors('train'):
        cfg = merge_args(read_runner_config(args), args)
        check_precision(cfg)
        if is_in_its_folder(cfg) and args.resume is None and saved_checkpoints(Path(cfg.work_dir)):
            raise ValueError(f'{cfg.work_dir} holds the checkpoints of another training, which '
                             'this one would mix with its own: give another --work-dir, or go on '
                             'with --resume.')
    announce('train', cfg)
    with explained_errors('train'), explained_names('train', cfg):
        runner = build_runner_beside(cfg)
    if args.resume == 'auto' and not (saved_checkpoints(Path(runner.work_dir))
                                      or last_checkpoint_file(runner).is_file()):
        runner.logger.warning(f'--resume: {runner.work_dir} holds no checkpoint, so the training '
                              'begins anew.')
    with explained_errors('train'), explained_names('train', cfg), explained_data('train', runner):
        build_train_loader(runner)
        _ = runner.val_loop  # else built within train(), where errors are not of the data alone
    with explained_errors('train'), explained_names('train', cfg), explained_unpickling('train'):
        runner.train()
    if runner.rank == 0 and type_name(cfg.model) == 'PIC':
        runner.logger.info('What it has learned, in pictures: `python -m pic_plugin.tools.report '
                           f'{shlex.quote(str(runner.work_dir))}`')


if __name__ == '__main__':
    main()
