# SPDX-License-Identifier: Apache-2.0
"""Train a detector or segmenter from PIC weights and from random initialisation, side by side.

    python -m pic_plugin.tools.compare_transfer CONFIG CHECKPOINT --seeds 0 1 2
        [--work-dir work_dirs/compare] [--cfg-options ...]

All runs have the same config but for the initialisation of the backbone: the file, or what the
backbone's class does without one. Ends with a table of mean and standard deviation over the seeds.
A run that is done is not repeated: its metrics are in ``result.json`` of its folder.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Dict, List, Optional

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from pic_plugin.tools.config_file import check_checkpoint, explained_errors, find_config

INITS = ('pic', 'random')
# Of all that the libraries measure: what papers report. mmdet's mAP of Pascal VOC is AP50 again
# where no other threshold is asked for.
REPORTED = ('AP50', 'AP75', 'bbox_mAP', 'bbox_mAP_50', 'segm_mAP', 'mIoU', 'aAcc')


def set_initialisation(cfg: Config, init: str, checkpoint: str) -> None:
    """Change the initialisation of the backbone, and of modules that share its file, in place.

    Args:
        cfg (Config): Of a training with a CheckPretrainedHook.
        init (str): 'pic' or 'random'.
        checkpoint (str): For 'pic'.
    """
    if init == 'pic':
        cfg.model.backbone.init_cfg.checkpoint = checkpoint
        return
    for hook in cfg.custom_hooks:
        if hook.type == 'CheckPretrainedHook':
            hook.required = False
            for name in hook.get('modules', ('backbone', )):
                # Without the key, and not None, which would turn off the class's own
                # initialisation.
                attrgetter(name)(cfg.model).pop('init_cfg')


def train_once(cfg: Config, folder: Path) -> None:
    """Train, evaluate, and write the metrics to ``result.json``."""
    cfg.work_dir = str(folder)
    # Once, below.
    cfg.train_cfg.val_interval = 10**9
    runner = Runner.from_cfg(cfg)
    runner.train()
    metrics = {key: float(value) for key, value in runner.val_loop.run().items()
               if isinstance(value, (int, float)) or hasattr(value, 'item')}
    (folder / 'result.json').write_text(json.dumps(metrics))


def table(results: Dict[str, List[Dict[str, float]]]) -> str:
    """Markdown table of mean ± sample standard deviation, in percent.

    Args:
        results (dict[str, list[dict]]): Metrics of the seeds for each initialisation.
    """
    first = results[INITS[0]][0]
    names = [name for name in first if name.split('/')[-1] in REPORTED]
    lines = ['| backbone from | ' + ' | '.join(name.split('/')[-1] for name in names) + ' |',
             '| --- |' + ' --- |' * len(names)]
    for init in INITS:
        cells = []
        for name in names:
            # mmseg counts in percent, mmdet in parts of one.
            scale = 1 if name in ('mIoU', 'aAcc') else 100
            values = [scale * run[name] for run in results[init]]
            spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
            cells.append(f'{statistics.mean(values):.1f}{spread}')
        lines.append(f'| {init} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='compare_transfer', description='Train from PIC weights and from random ones.')
    parser.add_argument('config', help='config of mmdet or mmseg, path or name')
    parser.add_argument('checkpoint', help='PIC checkpoint')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    parser.add_argument('--one', nargs=2, metavar=('INIT', 'SEED'), help=argparse.SUPPRESS)
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(arguments)
    with explained_errors('compare_transfer'):
        config = find_config(args.config)
        check_checkpoint(args.checkpoint)
    if args.one is not None:
        init, seed = args.one[0], int(args.one[1])
        cfg = Config.fromfile(config)
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
        set_initialisation(cfg, init, args.checkpoint)
        cfg.randomness = dict(seed=seed)
        train_once(cfg, args.work_dir / config.stem / f'{init}-seed{seed}')
        return

    results: Dict[str, List[Dict[str, float]]] = {init: [] for init in INITS}
    for seed in args.seeds:
        for init in INITS:
            file = args.work_dir / config.stem / f'{init}-seed{seed}' / 'result.json'
            if not file.is_file():
                # A process each: mmengine keeps much for the life of one.
                command = [sys.executable, '-m', 'pic_plugin.tools.compare_transfer', *arguments,
                           '--one', init, str(seed)]
                if subprocess.run(command).returncode:
                    raise SystemExit(f'compare_transfer: {init}, seed {seed} failed (see above).')
            results[init].append(json.loads(file.read_text()))
    print(f'{config.stem}, {len(args.seeds)} seeds, percent:\n\n{table(results)}')


if __name__ == '__main__':
    main()
