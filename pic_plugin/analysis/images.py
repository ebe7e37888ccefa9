# SPDX-License-Identifier: Apache-2.0
"""Pictures to analyse: a folder of files or a data set of a config, read a few at a time."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Union

import cv2
import numpy as np
from mmpretrain.registry import DATASETS

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')


class Skipped(NamedTuple):
    """A picture that was left out."""

    name: str
    reason: str


class Images:
    """Pictures with names and, if they are known, labels.

    Attributes:
        names (list[str]): One for each picture; for files the path below the folder.
        labels (list[str] | None): Name of each picture's class; None where there are no classes.
        skipped (list[Skipped]): Pictures that could not be read so far.
    """

    def __init__(self, names: Sequence[str], labels: Optional[Sequence[str]]) -> None:
        self.names = list(names)
        self.labels = None if labels is None else list(labels)
        self.skipped: List[Skipped] = []

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, BGR.

        Raises:
            ValueError: If it cannot be read.
        """
        raise NotImplementedError

    def batches(self, indices: Sequence[int], side: int,
                batch_size: int) -> Iterator[tuple[List[int], np.ndarray]]:
        """Read pictures, a few in memory at a time; those that cannot be read are left out.

        Args:
            indices (Sequence[int]): Which ones.
            side (int): Pixels; see :func:`square`.
            batch_size (int): Pictures at a time.

        Yields:
            tuple: Indices of up to ``batch_size`` pictures, and (B, side, side, 3) uint8, BGR.
        """
        kept: List[int] = []
        pixels: List[np.ndarray] = []
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


class FolderImages(Images):
    """All picture files in a folder and below it, in the order of their paths.

    Folders directly below are taken for classes if every picture lies in one.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no picture in it.
    """

    def __init__(self, folder: Union[str, Path]) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise FileNotFoundError(f'there is no folder {folder}.')
        files = sorted(file.relative_to(self.folder) for file in self.folder.rglob('*')
                       if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise ValueError(f'{folder} holds no pictures: files that end in '
                             f'{", ".join(SUFFIXES)}.')
        in_classes = all(len(file.parts) > 1 for file in files)
        super().__init__([file.as_posix() for file in files],
                         [file.parts[0] for file in files] if in_classes else None)

    def read(self, index: int) -> np.ndarray:
        """See :meth:`Images.read`."""
        return _read_file(self.folder / self.names[index])


class DatasetImages(Images):
    """The pictures of a data set of a config, before its pipeline.

    Args:
        cfg (dict): Config of one of mmengine's data sets, whose data infos have ``img`` or
            ``img_path``.

    Raises:
        ValueError: If it is another data set.
        FileNotFoundError: If its files are not there.
    """

    def __init__(self, cfg: dict) -> None:
        self._dataset: Any = DATASETS.build({**cfg, 'pipeline': []})
        if not hasattr(self._dataset, 'get_data_info'):
            raise ValueError(f'{cfg["type"]} is no data set of single pictures: give a folder of '
                             'pictures.')
        first = self._dataset.get_data_info(0)
        if 'img' not in first and 'img_path' not in first:
            raise ValueError(f'the data infos of {cfg["type"]} have neither img nor img_path: give '
                             'a folder of pictures.')
        infos = [self._info(index) for index in range(len(self._dataset))]
        classes = self._dataset.metainfo.get('classes')
        labels = [info[1] for info in infos]
        super().__init__(
            [info[0] for info in infos],
            None if any(label is None for label in labels) else
            [classes[label] if classes else str(label) for label in labels])

    def _info(self, index: int) -> tuple[str, Optional[int]]:
        info = self._dataset.get_data_info(index)
        label = info.get('gt_label')
        return str(info.get('img_path', index)), None if label is None else int(label)

    def read(self, index: int) -> np.ndarray:
        """See :meth:`Images.read`."""
        info = self._dataset.get_data_info(index)
        return info['img'] if 'img' in info else _read_file(Path(info['img_path']))


def evaluated_dataset(cfg: Any) -> Optional[dict]:
    """Config of the data set that a run evaluates on, without the references of kNN, if any."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    dataset = loader.get('dataset') if loader else None
    while dataset is not None and dataset.get('datasets'):
        dataset = dataset['datasets'][-1]
    return dataset


def _read_file(file: Path) -> np.ndarray:
    try:
        content = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise ValueError(f'it cannot be read ({error.strerror})') from error
    picture: Optional[np.ndarray] = None
    if content.size:
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if picture is None:
        raise ValueError(f'its {content.size} bytes are no picture that OpenCV can decode')
    if picture.dtype != np.uint8:
        raise ValueError(f'its pixels are {picture.dtype}, of which black and white are not known: '
                         'save it with 8 bits')
    return picture


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """Cut the middle square out of a picture and scale it.

    Args:
        picture (np.ndarray): (H, W, 3) uint8 of any size.
        side (int): Pixels.

    Returns:
        np.ndarray: (side, side, 3) uint8.
    """
    height, width = picture.shape[:2]
    # Before scaling: a strip of 1 x 10,000 pixels must not become 224 x 2,240,000.
    shorter = min(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    picture = picture[top:top + shorter, left:left + shorter]
    if shorter != side:
        picture = cv2.resize(
            picture, (side, side),
            interpolation=cv2.INTER_AREA if shorter > side else cv2.INTER_LINEAR)
    return np.ascontiguousarray(picture)


def training_side(cfg: Any) -> Optional[int]:
    """Side of the largest random crop that a config trains with, pixels; None if there is none."""
    loader = cfg.get('train_dataloader')
    return max(_crops(loader), default=None) if loader else None


def _crops(node: Any) -> Iterator[int]:
    if isinstance(node, dict):
        if str(node.get('type', '')).endswith('RandomResizedCrop'):
            size: Any = node.get('size', node.get('scale'))
            yield int(max(size) if isinstance(size, (list, tuple)) else size)
        if node.get('type') == 'DecodeRandomCrop':
            for crop in node.get('crops') or [node]:
                size = crop['size']
                yield int(max(size) if isinstance(size, (list, tuple)) else size)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _crops(part)
