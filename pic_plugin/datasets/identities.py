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
        label (str): The part's folder, or the name that the config gives it.
        named (bool): Whether it is such a name.
    """

    hashes: np.ndarray
    label: str
    named: bool = False


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
    hashes = [np.array(part.hashes, dtype=np.int64) for part in parts]
    if len(parts) == 1 and not parts[0].named:
        return hashes[0]
    for part, own in zip(parts, hashes):
        if part.named:
            own[:] = _with_label(own, part.label)
    unnamed = [i for i, part in enumerate(parts) if not part.named]
    # Of an image that one folder lists twice, be it in two lists, there is one.
    by_label: dict[str, list[np.ndarray]] = {}
    for i in unnamed:
        by_label.setdefault(os.path.normpath(parts[i].label), []).append(hashes[i])
    once = [np.unique(np.concatenate(own)) for own in by_label.values()]
    values, counts = np.unique(np.concatenate(once) if once else np.zeros(0, np.int64),
                               return_counts=True)
    shared = values[counts > 1]
    if len(shared):
        short = dict(zip(by_label, short_labels(list(by_label))))
        for i in unnamed:
            inside = np.isin(hashes[i], shared)
            hashes[i][inside] = _with_label(hashes[i][inside],
                                            short[os.path.normpath(parts[i].label)])
    return np.concatenate(hashes)


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
