# SPDX-License-Identifier: Apache-2.0
"""Trainings of a detector or segmenter from PIC weights and from random ones, and their table."""
from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from pic_plugin.engine.config_options import apply_options
from pic_plugin.engine.type_names import type_name
from pic_plugin.files import write_atomically, write_json
from pic_plugin.studies.tables import markdown_table, mean_std

INITS = ('pic', 'random')
RESULT = 'result.json'
ASKED = 'asked.json'
# Of all that the libraries measure: what papers report. mmdet's mAP of Pascal VOC is AP50 again
# where no other threshold is asked for.
REPORTED = ('AP50', 'AP75', 'bbox_mAP', 'bbox_mAP_50', 'segm_mAP', 'mIoU', 'aAcc')


def set_initialisation(cfg: Config, init: str, checkpoint: str) -> None:
    """Change the initialisation of the backbone, and of modules that share its file, in place.

    Args:
        cfg (Config): Of a training with a CheckPretrainedHook.
        init (str): 'pic' or 'random'.
        checkpoint (str): For 'pic'.

    Raises:
        ValueError: If there is no such hook.
    """
    hooks = [hook for hook in cfg.get('custom_hooks') or ()
             if type_name(hook) == 'CheckPretrainedHook']
    if not hooks:
        raise ValueError("the config has no CheckPretrainedHook, which says what begins from the "
                         "checkpoint: add dict(type='CheckPretrainedHook') to custom_hooks, as "
                         'the configs in configs/benchmarks have it.')
    if init == 'pic':
        cfg.model.backbone.init_cfg.checkpoint = checkpoint
        return
    for hook in hooks:
        hook.required = False
        for name in hook.get('modules', ('backbone', )):
            # Without the key, and not None, which would turn off the class's own initialisation.
            attrgetter(name)(cfg.model).pop('init_cfg')


def train_once(cfg: Config, folder: Path) -> None:
    """Train, evaluate, and write the metrics to ``result.json``."""
    cfg.work_dir = str(folder)
    cfg.train_cfg.val_interval = 10**9  # once, below
    runner = Runner.from_cfg(cfg)
    runner.train()
    metrics = {key: float(value) for key, value in runner.val_loop.run().items()
               if isinstance(value, (int, float)) or hasattr(value, 'item')}
    write_atomically(folder / RESULT, json.dumps(metrics))


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown table of mean ± sample standard deviation, in percent.

    Args:
        results (dict[str, list[dict]]): Metrics of the seeds for each initialisation.
    """
    names = [name for name in results[INITS[0]][0] if name.split('/')[-1] in REPORTED]
    rows = []
    for init in INITS:
        # mmseg counts in percent, mmdet in parts of one.
        scaled = [[(1 if name in ('mIoU', 'aAcc') else 100) * run[name] for run in results[init]]
                  for name in names]
        rows.append([init, *(mean_std(values, digits=1) for values in scaled)])
    return markdown_table(['backbone from', *(name.split('/')[-1] for name in names)], rows)


def _read(config: Path, init: str, checkpoint: str, options: dict[str, Any]) -> Config:
    cfg = apply_options(config, Config.fromfile(config), options)
    set_initialisation(cfg, init, checkpoint)
    return cfg


def _keep_apart(folder: Path, checkpoint: str, options: dict[str, Any]) -> None:
    """Refuse a folder with trainings from other weights, or of another config.

    Raises:
        ValueError: If it holds such.
    """
    weights = Path(checkpoint).expanduser()
    asked = dict(weights=hashlib.sha256(weights.read_bytes()).hexdigest()
                 if weights.is_file() else checkpoint, options=repr(sorted(options.items())))
    if (folder / ASKED).is_file() and json.loads((folder / ASKED).read_text()) != asked:
        raise ValueError(f'{folder} holds trainings from another checkpoint, or with other '
                         '--cfg-options, which one table would mix with these: give another '
                         '--work-dir.')
    write_json(folder / ASKED, asked)


def compare(config: Path, checkpoint: str, seeds: Sequence[int], folder: Path,
            options: dict[str, Any]) -> str:
    """Train what is not done yet, each training in a process of its own, and make the table.

    Args:
        config (Path): Of mmdet or mmseg.
        checkpoint (str): Of PIC pre-training.
        seeds (Sequence[int]): Each is trained from both initialisations.
        folder (Path): The trainings' folders are made in it.
        options (dict): Changes of the config by dotted keys, of plain values.

    Raises:
        RuntimeError: If a training fails.
        ValueError: If the options or the config do not fit, or the folder holds trainings from
            another checkpoint or with other options.
    """
    for init in INITS:  # before hours of training
        _read(config, init, checkpoint, options)
    _keep_apart(folder, checkpoint, options)
    results: dict[str, list[dict[str, float]]] = {init: [] for init in INITS}
    for seed in seeds:
        for init in INITS:
            work_dir = folder / f'{init}-seed{seed}'
            if not (work_dir / RESULT).is_file():
                # A process each: mmengine keeps much for the life of one.
                command = [sys.executable, '-m', __name__, str(config), checkpoint, init,
                           str(seed), str(work_dir), repr(options)]
                if subprocess.run(command).returncode:
                    raise RuntimeError(f'{init}, seed {seed} failed (see above).')
            results[init].append(json.loads((work_dir / RESULT).read_text()))
    return table(results)


def main(argv: Sequence[str] | None = None) -> None:
    """One training: config, checkpoint, initialisation, seed, folder and changes."""
    parser = argparse.ArgumentParser()
    for name, kind in (('config', str), ('checkpoint', str), ('init', str), ('seed', int),
                       ('folder', Path), ('options', ast.literal_eval)):
        parser.add_argument(name, type=kind)
    args = parser.parse_args(argv)
    cfg = _read(Path(args.config), args.init, args.checkpoint, args.options)
    cfg.randomness = dict(seed=args.seed)
    train_once(cfg, args.folder)


if __name__ == '__main__':
    main()
