# SPDX-License-Identifier: Apache-2.0
"""Numbers that tell images of several parts apart, and stay when parts move or are joined."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pic_plugin.datasets.file_names import hash_names


class PartNames(NamedTuple):
    """Names of the images of one part.

    Attributes:
        hashes (np.ndarray): (n,) int64, of each image's path below the part's folder.
        label (str): The part's folder.
        name (str, optional): What the config calls it, and perhaps others.
    """

    hashes: np.ndarray
    label: str
    name: str | None = None


def tell_apart(parts: Sequence[PartNames]) -> np.ndarray:
    """One number for each image of all parts.

    It is the hash of the path below the part's folder, so that a folder may move, and images stay
    what they are when their folder is joined by others. Only where two parts have an image of one
    name, these images are known by their part besides: by the last folders of its path, as many
    as it takes. A part with a name of its own is always known by that.

    Args:
        parts (Sequence[PartNames]): In their order.

    Returns:
        np.ndarray: (N,) int64.
    """
    by_name: dict[str | None, list[int]] = {}
    for number, part in enumerate(parts):
        by_name.setdefault(part.name, []).append(number)
    hashes: list[np.ndarray] = [part.hashes for part in parts]
    for name, numbers in by_name.items():
        for number, own in zip(numbers, _by_folder([parts[number] for number in numbers])):
            hashes[number] = own if name is None else _with_label(own, name)
    return np.concatenate(hashes)


def _by_folder(parts: Sequence[PartNames]) -> list[np.ndarray]:
    """Hashes of each part, with the last folders in those that two folders have in common."""
    # Of an image that one folder lists twice, be it in two lists, there is one.
    by_label: dict[str, list[np.ndarray]] = {}
    for part in parts:
        by_label.setdefault(os.path.normpath(part.label), []).append(part.hashes)
    values, counts = np.unique(
        np.concatenate([np.unique(np.concatenate(own)) for own in by_label.values()]),
        return_counts=True)
    short = dict(zip(by_label, short_labels(list(by_label))))
    result = []
    for part in parts:
        hashes = np.array(part.hashes, dtype=np.int64)
        shared = np.isin(hashes, values[counts > 1])
        hashes[shared] = _with_label(hashes[shared], short[os.path.normpath(part.label)])
        result.append(hashes)
    return result


def short_labels(paths: Sequence[str]) -> list[str]:
    """The last folders of each path, as few as tell all of them apart."""
    pieces = [[piece for piece in os.path.normpath(path).split(os.sep) if piece] for path in paths]
    longest = max(map(len, pieces), default=0)
    for depth in range(1, longest + 1):
        labels = ['/'.join(piece[-depth:]) for piece in pieces]
        if len(set(labels)) == len(labels):
            return labels
    return list(paths)


def _with_label(hashes: np.ndarray, label: str) -> np.ndarray:
    person = hashlib.blake2b(os.fsencode(label), digest_size=16).digest()
    return hash_names(person + int(value).to_bytes(8, 'little', signed=True) for value in hashes)
