# SPDX-License-Identifier: Apache-2.0
"""Train a detector or segmenter from PIC weights and from random initialisation, side by side.

    python -m pic_plugin.tools.compare_transfer CONFIG CHECKPOINT --seeds 0 1 2
        [--work-dir work_dirs/compare] [--cfg-options ...]

All runs have the same config but for the initialisation of the backbone: the file, or what the
backbone's class does without one. Ends with a table of mean and standard deviation over the seeds.
A run that is done is not repeated: its metrics are in ``result.json`` of its folder. Another
checkpoint, or other options, need another ``--work-dir``.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.command_line import ConfigOptions, explained_errors
from pic_plugin.engine.config_file import check_checkpoint, find_config
from pic_plugin.studies.compare_transfer import compare


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='compare_transfer', description='Train from PIC weights and from random ones.')
    parser.add_argument('config', help='config of mmdet or mmseg, path or name')
    parser.add_argument('checkpoint', help='PIC checkpoint')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2],
                        help='of the trainings, one from each kind of weights for each seed; '
                        'default: 0 1 2')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'),
                        help='default: %(default)s')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={},
                        metavar='KEY=VALUE', help='values to change in the config')
    args = parser.parse_args(argv)
    with explained_errors('compare_transfer'):
        config = find_config(args.config)
        check_checkpoint(args.checkpoint)
        try:
            table = compare(config, args.checkpoint, args.seeds, args.work_dir / config.stem,
                            args.cfg_options)
        except RuntimeError as error:
            raise SystemExit(f'compare_transfer: {error}') from error
    print(f'{config.stem}, {len(args.seeds)} seeds, percent:\n\n{table}')


if __name__ == '__main__':
    main()
