# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and config of a training, by what mmengine leaves in its work folder."""
from __future__ import annotations

import re
from pathlib import Path

from pic_plugin.analysis.images import choose
from pic_plugin.analysis.scalars import FILE


def earlier_checkpoints(checkpoint: Path, most: int) -> list[Path]:
    """Checkpoints of the same run before this one, evenly from all, in their order.

    Args:
        checkpoint (Path): ``epoch_N.pth`` or ``iter_N.pth``, or ``interrupted.pth``, before which
            are all of them; another name has none before it.
        most (int): How many.
    """
    files = sorted((file for file in checkpoint.parent.glob('*.pth')
                    if re.fullmatch(r'(epoch|iter)_\d+', file.stem)),
                   key=lambda file: int(file.stem.partition('_')[2]))
    if checkpoint.stem == 'interrupted':
        files.append(checkpoint)
    before = files[:files.index(checkpoint)] if checkpoint in files else []
    return [before[place] for place in choose(len(before), most)]


def find_run_config(work_dir: Path) -> Path:
    """The config that mmengine wrote into a work folder, of the newest training.

    Raises:
        FileNotFoundError: If there is none.
    """
    files = sorted(work_dir.glob('*/vis_data/config.py'))
    # A test in the same folder logs no scalars, nor does a training that has just begun.
    trained = [file for file in files if file.with_name(FILE).is_file()]
    files = trained or files or sorted(work_dir.glob('*.py'))
    if not files:
        raise FileNotFoundError(f'{work_dir} holds no config of a training: give the config too.')
    return files[-1]
