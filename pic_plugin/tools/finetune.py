# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a pre-trained backbone on labelled pictures of your own.

    mim run pic_plugin finetune CHECKPOINT LABELLED --out work_dirs/classifier
    python -m pic_plugin.tools.finetune work_dirs/mine LABELLED --out work_dirs/classifier

LABELLED is as for ``probe``. It writes ``finetune.py``, an ordinary config, into the work folder
and trains it. Ctrl-C saves, and says how to go on. ``--random`` begins from random weights: how
much the pre-training is worth.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from pic_plugin.analysis.scalars import read_run
from pic_plugin.command_line import build_runner_beside, explained_errors
from pic_plugin.engine.checkpoint.foreign_checkpoint import find_checkpoint
from pic_plugin.engine.hooks.save_on_interrupt_hook import HINT
from pic_plugin.features.finetune import BATCH, go_on, write_finetuning
from pic_plugin.output import tell


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog='finetune', allow_abbrev=False,
                                     description='Train a classifier from a pre-trained backbone.')
    parser.add_argument('checkpoint', help='of a pre-training or an exported backbone, or a work '
                        'folder')
    parser.add_argument('labels', help='folder with a folder for each class, or a CSV of '
                        'path,label')
    parser.add_argument('--out', required=True, metavar='DIR', help='work folder')
    parser.add_argument('--epochs', type=int, default=20, help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, default=BATCH, help='default: %(default)s')
    parser.add_argument('--random', action='store_true', help='begin from random weights')
    args = parser.parse_args(argv)
    with explained_errors('finetune'):
        config = write_finetuning(args.checkpoint, args.labels, args.out, args.epochs,
                                  args.batch_size, args.random)
        cfg = Config.fromfile(config)
        cfg.work_dir, cfg.launcher = str(config.parent), 'none'
    runner = build_runner_beside(cfg)
    # There is no --resume here: how to go on is said below.
    runner.logger.addFilter(lambda record: not record.getMessage().startswith(HINT))
    try:
        runner.train()
    except SystemExit:  # SaveOnInterruptHook has saved
        tell(f'finetune: go on with\n    {go_on(config.parent)}')
        raise
    accuracy = read_run(config.parent).curves['accuracy/top1'][-1][1]
    print(f'finetune: {accuracy:.1f} % of the pictures that were not for learning\n'
          f'classifier: {find_checkpoint(config.parent)}, of {config}')


if __name__ == '__main__':
    main()
