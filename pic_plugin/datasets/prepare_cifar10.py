# SPDX-License-Identifier: Apache-2.0
"""Write CIFAR-10 as folders of PNGs by class, complete or under another name."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import ProgressBar

from pic_plugin.datasets.cifar10_archive import CLASSES, Split, read_cifar10

# The bar flushes at each update: 60,000 updates would fill a log file with 5 MB of it.
IMAGES_PER_UPDATE = 500


def prepare_cifar10(source: str | Path, out: str | Path,
                    batch_size: int = 10000) -> bool:
    """Write both splits below ``out``, or find them there.

    Everything is written to ``<out>.partial``, which takes the name ``out`` when it is complete. A
    run that was interrupted is continued by the next one: images that are there and right are
    kept, the others written again.

    Args:
        source (str | Path): What :func:`read_cifar10` takes.
        out (str | Path): Folder to make. If it exists and is not empty nothing is written: it is
            compared with ``source``, pixel by pixel.
        batch_size (int): Images in each batch file. Defaults to 10000, CIFAR-10's.

    Returns:
        bool: True if the folder was written, False if it was there already, complete and right.

    Raises:
        FileExistsError: If ``out`` or ``<out>.partial`` holds anything else than these images.
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If ``source`` is not CIFAR-10.
    """
    out = Path(out).resolve()
    partial = out.with_name(f'{out.name}.partial')
    for folder in (out, partial):
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f'{folder} is a file: give the name of a folder.')
    splits = read_cifar10(source, batch_size)

    if out.is_dir() and any(out.iterdir()):
        print(f'{out} is there already: comparing it with {source}.')
        _compare(out, splits)
        return False
    if partial.is_dir():
        print(f'Continuing the preparation that was interrupted in {partial}.')
        _refuse_strangers(partial, splits)
    _write(partial, splits)
    if out.is_dir():
        out.rmdir()
    partial.rename(out)
    return True


def _expected(splits: dict[str, Split]) -> Iterator[tuple[str, np.ndarray]]:
    """Relative POSIX path and (32, 32, 3) uint8 RGB pixels of every image."""
    for split, (images, labels) in splits.items():
        for index, (image, label) in enumerate(zip(images, labels)):
            yield f'{split}/{CLASSES[label]}/{index:05d}.png', image


def _with_progress(splits: dict[str, Split]) -> Iterator[tuple[str, np.ndarray]]:
    total = sum(len(split.labels) for split in splits.values())
    bar = ProgressBar(total, file=sys.stdout)
    for done, item in enumerate(_expected(splits), start=1):
        yield item
        if done % IMAGES_PER_UPDATE == 0 or done == total:
            bar.update(done - bar.completed)
    print()


def _holds(file: Path, image: np.ndarray) -> bool:
    if not file.is_file() or file.stat().st_size == 0:
        return False
    pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels is not None and np.array_equal(pixels, image[:, :, ::-1])


def _write(folder: Path, splits: dict[str, Split]) -> None:
    for split in splits:
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    for path, image in _with_progress(splits):
        file = folder / path
        if not _holds(file, image):
            encoded, content = cv2.imencode('.png', np.ascontiguousarray(image[:, :, ::-1]))
            assert encoded, 'OpenCV encodes any uint8 picture as PNG'
            file.write_bytes(content.tobytes())


def _refuse_strangers(folder: Path, splits: dict[str, Split]) -> None:
    """A file that is not one of the images would become a training image of the data set."""
    expected = {path for path, _ in _expected(splits)}
    for file in folder.rglob('*'):
        if not file.is_dir() and file.relative_to(folder).as_posix() not in expected:
            raise FileExistsError(f'{file} is not an image of this source: remove {folder} or '
                                  'choose another folder.')


def _compare(folder: Path, splits: dict[str, Split]) -> None:
    _refuse_strangers(folder, splits)
    for path, image in _with_progress(splits):
        if not _holds(folder / path, image):
            raise FileExistsError(
                f'{folder} is not this data set, complete and unchanged ({path} is missing or '
                'differs), and is left as it is: remove it or choose another folder.')
