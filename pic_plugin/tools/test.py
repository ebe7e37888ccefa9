# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint with a config, as mmpretrain's test tool does.

    mim test pic_plugin pic_demo.py --checkpoint work_dirs/pic_demo/epoch_10.pth
    python -m pic_plugin.tools.test pic_demo.py work_dirs/pic_demo/epoch_10.pth

A config that evaluates only during training is evaluated with its validation settings.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmpretrain.utils import get_ori_model

from pic_plugin.command_line import (
    add_runner_arguments,
    announce,
    build_runner_beside,
    explained_errors,
    explained_unpickling,
    read_runner_config,
)
from pic_plugin.engine.checkpoint.foreign_checkpoint import find_checkpoint
from pic_plugin.engine.config_file import check_checkpoint, complete_dataloaders
from pic_plugin.engine.config_options import explained_names
from pic_plugin.engine.evaluation_checks import check_evaluation, explained_data
from pic_plugin.files import check_file
from pic_plugin.transfer.fit import check_fits


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='test', description='Evaluate a checkpoint.', allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin')
    parser.add_argument('checkpoint', help='file or address of a checkpoint, or a work folder')
    parser.add_argument('--out', help='file for the metrics: .json, .yaml or .pkl')
    add_runner_arguments(parser)
    return parser.parse_args(argv)


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Take the command line into a config, which is changed in place and returned.

    Raises:
        FileNotFoundError: If the checkpoint is a file that does not exist.
        OSError: If ``--out`` cannot be written.
        ValueError: If the config has nothing to evaluate, or ``--out`` another ending.
    """
    if '://' not in args.checkpoint:
        args.checkpoint = str(find_checkpoint(args.checkpoint))
    check_checkpoint(args.checkpoint)
    if args.out and not args.out.endswith(('.json', '.yaml', '.yml', '.pkl')):
        raise ValueError(f'--out {args.out}: the name must end in .json, .yaml or .pkl.')
    if args.out:
        check_file(Path(args.out))
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if cfg.get('test_dataloader') is None or not cfg.get('test_evaluator'):
        if cfg.get('val_dataloader') is None or not cfg.get('val_evaluator'):
            raise ValueError(
                f'{cfg.filename} has nothing to evaluate: add a val_dataloader of labelled '
                "pictures, val_evaluator = dict(type='KNNMetric') and val_cfg = dict(). "
                'docs/evaluate.md has the lines to copy.')
        cfg.test_dataloader = deepcopy(cfg.val_dataloader)
        cfg.test_evaluator = deepcopy(cfg.val_evaluator)
        cfg.test_cfg = dict()
    complete_dataloaders(cfg, pin_memory=not args.no_pin_memory,
                         persistent_workers=True)
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors('test'):
        cfg = merge_args(read_runner_config(args), args)
    announce('test', cfg)
    with explained_errors('test'), explained_names('test', cfg):
        runner = build_runner_beside(cfg, trains=False)
        check_fits(get_ori_model(runner.model), args.checkpoint)
    with explained_errors('test'), explained_names('test', cfg), explained_data('test', runner):
        check_evaluation(runner, runner.test_loop)
    with explained_errors('test'), explained_unpickling('test'):
        metrics = runner.test()
    if args.out and runner.rank == 0:
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
