# SPDX-License-Identifier: Apache-2.0
"""Small images and labels of the study, on the device.

A folder of images of one size in JPEG sheets (:func:`write_sheets`): small enough to carry to a
machine without a network, and the same images for every method.
"""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

COLUMNS = 100
SHEET_IMAGES = 10000
HELD_OUT = 1000  # photos of clothes


@dataclasses.dataclass
class Images:
    """Images of one data set.

    Attributes:
        train (Tensor): (R, 3, H, W) uint8; a training takes the first N.
        train_labels (Tensor): (R,) int64.
        splits (dict): Name -> images (Q, 3, H, W) uint8 and labels (Q,): 'validation' for choosing,
            'test' for results.
        references (int): First images of ``train`` that neighbours are looked for among, and that
            the linear classifier is fitted to.
        size (int): Pixels of the side that the network sees.
        mean (Tensor): (3,) of the channels, 0 to 1.
        std (Tensor): (3,).
    """

    train: Tensor
    train_labels: Tensor
    splits: dict[str, tuple]
    references: int
    size: int
    mean: Tensor
    std: Tensor

    def to(self, device: torch.device) -> Images:
        """The same on a device."""
        return dataclasses.replace(
            self, train=self.train.to(device), train_labels=self.train_labels.to(device),
            splits={name: (images.to(device), labels.to(device))
                    for name, (images, labels) in self.splits.items()})

    def plain(self, images: Tensor) -> Tensor:
        """(M, 3, H, W) uint8 -> (M, 3, size, size) normalised, on a GPU channels last."""
        x = images.float() / 255
        if x.shape[-1] != self.size:
            x = F.interpolate(x, size=(self.size, self.size), mode='bilinear', antialias=True)
        mean, std = (value.to(x.device).view(1, 3, 1, 1) for value in (self.mean, self.std))
        layout = torch.channels_last if x.is_cuda else torch.contiguous_format
        return ((x - mean) / std).contiguous(memory_format=layout)


def write_sheets(folder: Path, name: str, images: np.ndarray, labels: np.ndarray,
                 quality: int = 90) -> None:
    """Write (M, H, H, 3) uint8 images as JPEG sheets and their labels as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    size = images.shape[1]
    for number, start in enumerate(range(0, len(images), SHEET_IMAGES)):
        part = images[start:start + SHEET_IMAGES]
        rows = -(-len(part) // COLUMNS)
        filled = np.zeros((rows * COLUMNS, size, size, 3), dtype=np.uint8)
        filled[:len(part)] = part
        sheet = filled.reshape(rows, COLUMNS, size, size, 3).swapaxes(1, 2)
        Image.fromarray(sheet.reshape(rows * size, COLUMNS * size, 3)).save(
            folder / f'{name}{number}.jpg', quality=quality, subsampling=0)
    (folder / f'{name}.json').write_text(json.dumps(dict(size=size, labels=labels.tolist())))


def read_sheets(folder: Path, name: str) -> tuple:
    """Images (M, 3, H, H) uint8 and labels (M,) int64 of :func:`write_sheets`.

    Raises:
        FileNotFoundError: If the folder has no such images.
    """
    record = json.loads((folder / f'{name}.json').read_text())
    size, labels = record['size'], torch.tensor(record['labels'])
    parts = []
    for number in range(-(-len(labels) // SHEET_IMAGES)):
        pixels = np.array(Image.open(folder / f'{name}{number}.jpg').convert('RGB'))
        rows = len(pixels) // size
        parts.append(pixels.reshape(rows, size, COLUMNS, size, 3).swapaxes(1, 2)
                     .reshape(-1, size, size, 3))
    images = torch.from_numpy(np.concatenate(parts)[:len(labels)])
    return images.permute(0, 3, 1, 2).contiguous(), labels


def load(name: str, folder: Path, limit: int = 0) -> Images:
    """A data set of the study.

    Args:
        name (str): 'cifar10' (references: 20,000 training images; validation: the last 10,000
            training images; test: the test images), 'cifar10-all' (references: all 50,000),
            'clothing' (references: the training images; test: the others) or 'clothing-held-out'
            (the last HELD_OUT training images are no references but validation).
        folder (Path): Of :func:`write_sheets`.
        limit (int): Most images of a part, for rehearsals. Defaults to 0: all.

    Raises:
        ValueError: If the name is unknown.
    """
    if name.startswith('cifar10'):
        train, test = (_limited(read_sheets(folder / 'cifar10', part), limit)
                       for part in ('train', 'test'))
        held_out = tuple(part[-10000:] for part in train)
        everything = name == 'cifar10-all'
        return Images(train[0], train[1], splits=dict(validation=held_out, test=test),
                      references=len(train[0]) if everything else min(20000, len(train[0])),
                      size=32, mean=_channels(125.3, 123.0, 113.9),
                      std=_channels(63.0, 62.1, 66.7))
    if name in ('clothing', 'clothing-held-out'):
        train, test = (_limited(read_sheets(folder / 'clothing', part), limit)
                       for part in ('train', 'test'))
        splits = dict(test=test)
        if name == 'clothing-held-out':
            count = min(HELD_OUT, len(train[0]) // 3)
            splits = dict(validation=tuple(part[-count:] for part in train))
            train = tuple(part[:-count] for part in train)
        return Images(train[0], train[1], splits=splits, references=len(train[0]), size=48,
                      mean=_channels(123.675, 116.28, 103.53), std=_channels(58.395, 57.12, 57.375))
    raise ValueError(f"no images are named {name!r}: choose 'cifar10', 'cifar10-all', 'clothing' "
                     "or 'clothing-held-out'.")


def _limited(part: Sequence[Tensor], limit: int) -> tuple:
    return tuple(value[:limit or None] for value in part)


def _channels(*values: float) -> Tensor:
    return torch.tensor(values) / 255
