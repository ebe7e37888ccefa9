# SPDX-License-Identifier: Apache-2.0
"""What the tools that analyse a network share: arguments, pictures, and files of numbers."""
from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, List, Optional

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.utils import ProgressBar

from pic_plugin.analysis.images import DatasetImages, FolderImages, Images, training_side
from pic_plugin.datasets.file_names import printable
from pic_plugin.dependencies import explain_missing_pkg_resources
from pic_plugin.tools.config_file import find_config

NUM_NAMED = 5  # skipped pictures that are printed


def add_picture_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Add what all of them take."""
    parser.add_argument('--side', type=int, help='pixels that the middle square of each picture is '
                        'scaled to; default: the crop that the config trains with')
    parser.add_argument('--num-images', type=int, help='take this many pictures, evenly from all')
    parser.add_argument('--batch-size', type=int, default=128,
                        help='images in one forward pass; default: %(default)s')
    parser.add_argument('--device', default=get_device(), help='default: %(default)s')
    parser.add_argument('--out', type=Path, default=Path(out),
                        help='folder for figures and numbers; default: %(default)s')


def read_config_file(name: str) -> Config:
    """A config by path or name.

    Raises:
        FileNotFoundError: If there is none.
        ModuleNotFoundError: If it needs pkg_resources and there is none.
        ValueError: If the name is ambiguous.
    """
    try:
        return Config.fromfile(find_config(name))
    except ModuleNotFoundError as error:
        explanation = explain_missing_pkg_resources(error)
        if explanation is None:
            raise
        raise ModuleNotFoundError(explanation, name=error.name) from error


def choose_side(side: Optional[int], cfg: Config) -> int:
    """Pixels that pictures are scaled to.

    Raises:
        ValueError: If it is not positive, or not given and unknown.
    """
    chosen = training_side(cfg) if side is None else side
    if chosen is None:
        raise ValueError(f'{cfg.filename} has no RandomResizedCrop that would say how large images '
                         'are: give --side PIXELS.')
    if chosen < 1:
        raise ValueError(f'--side must be at least 1 pixel, not {chosen}.')
    return chosen


def open_images(folder: Optional[str], dataset: Optional[dict]) -> Images:
    """Pictures of a folder or, without one, of a data set of the config.

    Raises:
        FileNotFoundError: If they are not there.
        ValueError: If there are none.
    """
    if folder is not None:
        return FolderImages(folder)
    if dataset is None:
        raise ValueError('the config has no data set of pictures: give --images FOLDER.')
    return DatasetImages(dataset)


def choose(count: int, wanted: Optional[int]) -> List[int]:
    """Indices of pictures, evenly from all; all if no number is wanted.

    Raises:
        ValueError: If the number is not positive.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f'the number of pictures must be at least 1, not {wanted}.')
    if wanted is None or wanted >= count:
        return list(range(count))
    return [number * count // wanted for number in range(wanted)]


def network_name(checkpoint: str) -> str:
    """For figures: of a file named by its epoch, the run it is of, too."""
    path = Path(checkpoint)
    numbered = re.fullmatch(r'(?:epoch|iter)_\d+', path.stem)
    return f'{path.resolve().parent.name}/{path.stem}' if numbered else path.stem


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, for work of ``total`` parts; yields what to call with parts done.

    Nothing is drawn where stderr is no terminal.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    bar = ProgressBar(total, file=sys.stderr)

    def advance(done: int) -> None:
        bar.update(done)

    try:
        yield advance
    finally:
        sys.stderr.write('\n')


def report_skipped(tool: str, images: Images) -> None:
    """Say on stderr what was left out and why."""
    report = getattr(images, 'report', None)
    if report is not None and report.num_left_out:
        print('\n'.join(f'{tool}: {line}' for line in str(report).splitlines()), file=sys.stderr)
    for skipped in images.skipped[:NUM_NAMED]:
        print(f'{tool}: left out {printable(skipped.name)}: {skipped.reason}', file=sys.stderr)
    more = len(images.skipped) - NUM_NAMED
    if more > 0:
        print(f'{tool}: left out {more} more pictures', file=sys.stderr)


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows; floats with 6 digits after the point, NaN and None as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    write_text(file, text.getvalue())


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, float) and np.isnan(value):
        return ''
    return f'{value:.6f}' if isinstance(value, float) else value


def write_json(file: Path, content: Any) -> None:
    """Write plain values, readable by people too."""
    write_text(file, json.dumps(content, indent=2, allow_nan=False) + '\n')


def write_text(file: Path, text: str) -> None:
    """Write a file, whole or not at all; names of files as the bytes that they are."""
    partial = file.with_name(f'{file.name}.partial')
    partial.write_text(text, encoding='utf-8', errors='surrogateescape')
    os.replace(partial, file)
