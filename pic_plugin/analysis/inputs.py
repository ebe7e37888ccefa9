# SPDX-License-Identifier: Apache-2.0
"""Pictures to analyse, as a command line names them, and a progress bar for what takes minutes."""
from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NamedTuple

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.utils import ProgressBar

from pic_plugin.analysis.images import (
    DatasetImages,
    FolderImages,
    Images,
    choose,
    evaluated_dataset,
    training_side,
)
from pic_plugin.analysis.picture_reader import reader_of
from pic_plugin.analysis.work_folder import find_run_config
from pic_plugin.engine.config_file import read_config


class Inputs(NamedTuple):
    """Pictures, and the config of the network that looks at them.

    Attributes:
        cfg (Config): Of the network's training.
        side (int): Pixels that pictures are scaled to.
        images (Images): Pictures.
        indices (list[int]): Which of them.
    """

    cfg: Config
    side: int
    images: Images
    indices: list[int]


def open_inputs(config: str, folder: str | None = None, side: int | None = None,
                num_images: int | None = None) -> Inputs:
    """Read the config and find the pictures.

    Args:
        config (str): Path or name, or the work folder of a training.
        folder (str, optional): Of pictures. Defaults to None: what the config evaluates on or, if
            it evaluates on nothing or that cannot be read, what it trains on.
        side (int, optional): Pixels. Defaults to None: the crop that the config trains with.
        num_images (int, optional): How many, evenly from all. Defaults to None: all.

    Raises:
        FileNotFoundError: If the config or the pictures are not there.
        ModuleNotFoundError: If the config needs pkg_resources and there is none.
        ValueError: If an argument is out of range, or the config does not say what is left out.
    """
    cfg = read_config(str(find_run_config(Path(config))) if Path(config).is_dir() else config)
    side = training_side(cfg) if side is None else side
    if side is None:
        raise ValueError(f'{cfg.filename} has no RandomResizedCrop that would say how large images '
                         'are: give --side PIXELS.')
    if side < 1:
        raise ValueError(f'--side must be at least 1 pixel, not {side}.')
    images = _open_default(cfg) if folder is None else FolderImages(folder, reader_of(cfg))
    return Inputs(cfg, side, images, choose(len(images), num_images))


def _open_default(cfg: Config) -> Images:
    """Pictures that a config evaluates on or, failing that, trains on."""
    evaluated = evaluated_dataset(cfg)
    if evaluated is None:
        return open_trained(cfg)
    try:
        return DatasetImages(evaluated, reader_of(cfg))
    except (OSError, ValueError) as error:
        try:
            images = open_trained(cfg)
        except (OSError, ValueError):
            raise error from None
        images.note = (f'The pictures that the config evaluates on cannot be read ({error}): these '
                       'are those of its training.')
        print_log(images.note, logger='current', level=logging.WARNING)
        return images


def open_trained(cfg: Config) -> Images:
    """Pictures that a config trains on.

    Raises:
        FileNotFoundError: If they are not there.
        ValueError: If there are none.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    if dataset is None:
        raise ValueError('the config has no data set of pictures: give --images FOLDER.')
    return DatasetImages(dataset, reader_of(cfg))


def network_name(checkpoint: str) -> str:
    """For figures: the file's name, and that of its run where the name is no more than a number."""
    path = Path(checkpoint)
    numbered = re.fullmatch(r'(?:epoch|iter)_\d+', path.stem)
    return f'{path.resolve().parent.name}/{path.stem}' if numbered else path.stem


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr for ``total`` parts; yields what to call with parts just done.

    Nothing is drawn where stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    bar = ProgressBar(total, file=sys.stderr)
    try:
        yield lambda done: bar.update(done)
    finally:
        sys.stderr.write('\n')
