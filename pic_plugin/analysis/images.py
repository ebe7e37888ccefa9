# SPDX-License-Identifier: Apache-2.0
"""Pictures to analyse: a folder of files or a data set of a config, read a few at a time."""
from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmpretrain.registry import DATASETS

from pic_plugin.analysis.picture_reader import PictureReader, dicts_in
from pic_plugin.datasets.endings import readable_endings
from pic_plugin.datasets.file_names import printable
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.datasets.random_crop import resize
from pic_plugin.datasets.walk import walk
from pic_plugin.engine.type_names import type_name
from pic_plugin.wording import counted

DEFAULT_SIDE = 224  # pixels, where a checkpoint does not say with which it was trained


class Skipped(NamedTuple):
    """A picture that was left out."""

    name: str
    reason: str


class Images:
    """Pictures with names and, if they are known, labels.

    Attributes:
        names (list[str]): One for each picture; for files the path below the folder.
        labels (list[str] | None): Name of each picture's class; None where there are no classes.
        reader (PictureReader): Of channels and depth.
        skipped (list[Skipped]): Pictures that could not be read so far.
        note (str): Why these and not others; '' where they are those that were meant.
    """

    def __init__(self, names: Sequence[str], labels: Sequence[str] | None,
                 reader: PictureReader = PictureReader()) -> None:  # noqa: B008  unchangeable
        self.names = list(names)
        self.labels = None if labels is None else list(labels)
        self.reader = reader
        self.skipped: list[Skipped] = []
        self.note = ''

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """(H, W, C), BGR if C is 3; uint8, or what :meth:`PictureReader.fit` gives.

        Raises:
            ValueError: If it cannot be read.
        """
        raise NotImplementedError

    def batches(self, indices: Sequence[int], side: int,
                batch_size: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Read pictures, a few in memory at a time; those that cannot be read are left out.

        Args:
            indices (Sequence[int]): Which ones.
            side (int): Pixels; see :func:`square`.
            batch_size (int): Pictures at a time.

        Yields:
            tuple: Indices of up to ``batch_size`` pictures, and (B, side, side, C) as :meth:`read`.

        Raises:
            ValueError: If ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f'the batch size must be at least 1, not {batch_size}.')
        kept: list[int] = []
        pixels: list[np.ndarray] = []
        for index in indices:
            try:
                picture = square(self.read(index), side)
            except ValueError as error:
                skipped = Skipped(self.names[index], str(error))
                if skipped not in self.skipped:
                    self.skipped.append(skipped)
                continue
            kept.append(index)
            pixels.append(picture)
            if len(kept) == batch_size:
                yield kept, np.stack(pixels)
                kept, pixels = [], []
        if kept:
            yield kept, np.stack(pixels)

    def shown(self, indices: Sequence[int], side: int,
              batch_size: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """As :meth:`batches`, with pictures for people: (B, side, side, 3) uint8, BGR."""
        for kept, pictures in self.batches(indices, side, batch_size):
            yield kept, self.reader.shown(pictures)

    def check_any(self, kept: Sequence[int]) -> None:
        """Stop where there is nothing to go on with.

        Raises:
            ValueError: If none of the pictures could be read.
        """
        if not kept:
            first = f', the first because {self.skipped[0].reason}' if self.skipped else ''
            raise ValueError(f'none of {len(self)} pictures can be read{first}.')


class FolderImages(Images):
    """All picture files in a folder and below it, in the order of their paths.

    Folders directly below are taken for classes if every picture lies in one.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is a file, or there is no picture in it.
    """

    def __init__(self, folder: str | Path,
                 reader: PictureReader = PictureReader()) -> None:  # noqa: B008
        self.folder = Path(folder).expanduser()
        if self.folder.is_file():
            raise ValueError(f'{printable(folder)} is a file: give the folder of pictures that '
                             'holds it.')
        found = walk(self.folder, reader.extensions or readable_endings())
        self.report = found.report
        files = [os.fsdecode(name) for name in found.names]
        if not files:
            raise ValueError(f'{printable(folder)} holds no pictures. {found.report}')
        in_classes = all('/' in file for file in files)
        super().__init__(
            files, [printable(file.partition('/')[0]) for file in files] if in_classes else None,
            reader)

    def read(self, index: int) -> np.ndarray:
        """See :meth:`Images.read`."""
        return self.reader.read(dict(img_path=str(self.folder / self.names[index])))


class DatasetImages(Images):
    """The pictures of a data set of a config, before its pipeline.

    Args:
        cfg (dict): Config of one of mmengine's data sets, whose data infos have ``img`` or
            ``img_path``, or of wrappers of such.

    Raises:
        ValueError: If it is another data set, or has no pictures.
        FileNotFoundError: If its files are not there.
    """

    def __init__(self, cfg: dict,
                 reader: PictureReader = PictureReader()) -> None:  # noqa: B008
        # Wrappers build what they wrap from mmengine's registry, which needs the scope.
        try:
            self._dataset: Any = DATASETS.build(
                {'_scope_': 'mmpretrain', **_without_pipelines(cfg)})
        except RuntimeError as error:  # mmpretrain's CustomDataset without pictures
            raise ValueError(str(error)) from error
        if not hasattr(self._dataset, 'get_data_info'):
            raise ValueError(f'{cfg["type"]} is not a data set of single pictures: give a folder '
                             'of pictures.')
        first = self._dataset.get_data_info(0)
        if 'img' not in first and 'img_path' not in first:
            raise ValueError(f'the data infos of {cfg["type"]} have neither img nor img_path: give '
                             'a folder of pictures.')
        # One picture for each instance class, in the order of their ids; copies come once.
        ids = number_instances(self._dataset).ids
        self._places = list(range(len(self._dataset))) if ids is None else (
            np.unique(ids, return_index=True)[1].tolist())
        names, labels = [], []
        for place in self._places:  # not all infos at once: they may hold pixels
            info = self._dataset.get_data_info(place)
            names.append(str(info.get('img_path', place)))
            labels.append(info.get('gt_label'))
        classes = self._dataset.metainfo.get('classes')
        # Lists of labels, one picture being of several classes, are no groups.
        single = all(label is not None and np.ndim(label) == 0 for label in labels)
        super().__init__(names, [classes[int(label)] if classes else str(int(label))
                                 for label in labels] if single else None, reader)

    def read(self, index: int) -> np.ndarray:
        """See :meth:`Images.read`."""
        return self.reader.read(self._dataset.get_data_info(self._places[index]))


def skipped_lines(images: Images, most: int = 5) -> list[str]:
    """Which pictures were left out and why; ``most`` of them by name."""
    report = getattr(images, 'report', None)
    lines = str(report).splitlines() if report is not None and report.num_left_out else []
    lines += [f'left out {printable(name)}: {reason}' for name, reason in images.skipped[:most]]
    if len(images.skipped) > most:
        lines.append(f'left out {counted(len(images.skipped) - most, "more picture")}')
    return lines


def report_skipped(tool: str, images: Images, most: int = 5) -> None:
    """Say :func:`skipped_lines` on stderr."""
    for line in skipped_lines(images, most):
        print(f'{tool}: {line}', file=sys.stderr)


def _without_pipelines(cfg: dict) -> dict:
    """Config of a data set that loads nothing; of the innermost ones, where it wraps others."""
    if cfg.get('datasets') is not None:
        return {**cfg, 'datasets': [_without_pipelines(part) for part in cfg['datasets']]}
    if isinstance(cfg.get('dataset'), dict):
        return {**cfg, 'dataset': _without_pipelines(cfg['dataset'])}
    return {**cfg, 'pipeline': []}


def evaluated_dataset(cfg: Any) -> dict | None:
    """Config of the data set that a run evaluates on, without the references of kNN, if any."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    dataset = loader.get('dataset') if loader else None
    while dataset is not None and dataset.get('datasets'):
        dataset = dataset['datasets'][-1]
    return dataset


def choose(count: int, wanted: int | None) -> list[int]:
    """Indices of pictures, evenly from all; all if no number is wanted.

    Raises:
        ValueError: If the number is not positive.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f'the number of pictures must be at least 1, not {wanted}.')
    if wanted is None or wanted >= count:
        return list(range(count))
    return [number * count // wanted for number in range(wanted)]


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """Cut the middle square out of a picture and scale it.

    Args:
        picture (np.ndarray): (H, W, C) of any size.
        side (int): Pixels.

    Returns:
        np.ndarray: (side, side, C) of the same type.
    """
    height, width = picture.shape[:2]
    # Before scaling: a strip of 1 x 10,000 pixels must not become 224 x 2,240,000.
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    picture = picture[top:top + shorter, left:left + shorter]
    if shorter != side:
        picture = resize(picture, (side, side),
                         cv2.INTER_AREA if shorter > side else cv2.INTER_LINEAR)
    return np.ascontiguousarray(picture)


def training_side(cfg: Any) -> int | None:
    """Side of the largest random crop that a config trains with, pixels; None if there is none."""
    loader = cfg.get('train_dataloader')
    return max(_crops(loader), default=None) if loader else None


def _crops(loader: dict) -> Iterator[int]:
    for node in dicts_in(loader):
        name = type_name(node)
        if name.endswith('RandomResizedCrop') or name == 'DecodeRandomCrop':
            for crop in node.get('crops') or [node]:
                size: Any = crop.get('size', crop.get('scale'))
                yield int(max(size) if isinstance(size, (list, tuple)) else size)
