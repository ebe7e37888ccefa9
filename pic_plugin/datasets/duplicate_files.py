# SPDX-License-Identifier: Apache-2.0
"""Files with the same bytes: found by size, then by a part of them, then by all of them."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pic_plugin.datasets.file_index import FileIndex, IndexStore
from pic_plugin.datasets.file_names import NameList
from pic_plugin.datasets.file_report import FileReport
from pic_plugin.datasets.image_table import ImageTable
from pic_plugin.datasets.members import is_member, read_bytes
from pic_plugin.datasets.sources import Part

PART = 4096  # bytes from the middle of a file, which differ where its header does not
MIN_KEPT = 1000  # files; fewer are read again in no time


def first_copies(paths: Sequence[str], sizes: np.ndarray) -> np.ndarray:
    """For each file the first one with the same bytes: itself, if there is none before it.

    Args:
        paths (Sequence[str]): N files or members of archives. One that cannot be read is nobody's
            copy.
        sizes (np.ndarray): (N,) int64 bytes; files below 1 byte are nobody's copies.

    Returns:
        np.ndarray: (N,) int64.
    """
    def part_of(number: int) -> bytes:
        middle = max(0, (int(sizes[number]) - PART) // 2)
        if is_member(paths[number]):
            return read_bytes(dict(img_path=paths[number]))[middle:middle + PART]
        with open(paths[number], 'rb') as file:
            file.seek(middle)
            return file.read(PART)

    def whole_of(number: int) -> bytes:
        return hashlib.blake2b(read_bytes(dict(img_path=paths[number])), digest_size=16).digest()

    copies = np.arange(len(sizes))
    groups = _groups([int(size) if size > 0 else None for size in sizes], copies.tolist())
    for narrow in (part_of, whole_of):
        groups = [group for one in groups
                  for group in _groups([_or_none(narrow, i) for i in one], one)]
    for group in groups:
        copies[group] = group[0]
    return copies


def _groups(values: Sequence[Any], numbers: Sequence[int]) -> list[list[int]]:
    """Numbers with equal values, two or more each; None equals nothing."""
    found: dict[Any, list[int]] = {}
    for value, number in zip(values, numbers):
        if value is not None:
            found.setdefault(value, []).append(number)
    return [group for group in found.values() if len(group) > 1]


def _or_none(function: Callable[[int], bytes], number: int) -> Any:
    try:
        return function(number)
    except OSError:
        return None


def find_copies(table: ImageTable, store: IndexStore) -> np.ndarray:
    """Exact copies among files and members of archives; looked for again where they have changed.

    Returns:
        np.ndarray: (N,) int64 first image with the same bytes.
    """
    paths = [path for _, path in table.names()]
    states = np.concatenate([_states(part) for part in table.parts])
    state = hashlib.blake2b(states.tobytes(), digest_size=16)
    state.update('\0'.join(paths).encode('utf-8', 'surrogateescape'))

    def make() -> FileIndex:
        copies = first_copies(paths, states[:, 0])
        return FileIndex(NameList.of([]), dict(copies=copies), dict(state=state.hexdigest()),
                         FileReport())

    place = ['copies', [os.path.abspath(part.root) for part in table.parts]]
    index = store.get(place, make, lambda meta: meta['state'] == state.hexdigest(),
                      smallest=0 if len(paths) >= MIN_KEPT else 1)  # it has no names
    return np.asarray(index.arrays['copies'])


def _states(part: Part) -> np.ndarray:
    """(n, 2) int64 size in bytes and time of modification in nanoseconds; -1 for no file."""
    arrays = part.files.arrays
    if 'length' in arrays:
        modified = np.full(len(arrays['length']), part.files.meta['state'][1])
        return np.stack([arrays['length'], modified], axis=1)
    states = np.full((len(part.files.names), 2), -1, dtype=np.int64)
    for number in range(len(states)):
        try:
            status = os.stat(part.path(number))
        except OSError:
            continue  # the loader will say so
        states[number] = status.st_size, status.st_mtime_ns
    return states
