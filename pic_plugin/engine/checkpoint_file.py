# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's file, looked at before it is loaded."""
from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Union

import torch
from mmengine.utils import digit_version


def check_checkpoint_file(path: Union[str, Path]) -> None:
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
    if digit_version(torch.__version__) < digit_version('2.6') and os.environ.get(
            'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '0').lower() not in ('1', 'y', 'yes', 'true'):
        torch.load(path, map_location='cpu', weights_only=True)
