# SPDX-License-Identifier: Apache-2.0
"""Which images are one instance class: those with one key, or that are told to be duplicates."""
from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pic_plugin.datasets.file_names import hash_names, printable


def number_by_first(values: np.ndarray) -> np.ndarray:
    """(N,) int64: values numbered from 0 on in the order in which they first occur."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


class InstanceClasses:
    """A partition of images into classes, numbered in the order of their first images.

    Args:
        same (np.ndarray): (N,) int64; images with one value are one class.

    Attributes:
        class_of (np.ndarray): (N,) int64 class of each image.
        members (np.ndarray): (N,) int64 images, those of class c at starts[c]:starts[c + 1].
        starts (np.ndarray): (C + 1,) int64.
    """

    def __init__(self, same: np.ndarray) -> None:
        self.class_of = number_by_first(same)
        self.members = np.argsort(self.class_of, kind='stable')
        self.starts = np.concatenate([[0], np.bincount(self.class_of).cumsum()]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def firsts(self) -> np.ndarray:
        """(C,) int64 first image of each class."""
        return self.members[self.starts[:-1]]

    def images_of(self, number: int) -> np.ndarray:
        """Images of a class, in their order."""
        return self.members[self.starts[number]:self.starts[number + 1]]

    def draw(self, number: int) -> int:
        """One image of a class, by numpy's global generator: that of the worker process.

        mmengine seeds it in each worker, and a resumed run draws on as an uninterrupted one.
        """
        start, stop = self.starts[number], self.starts[number + 1]
        # No draw where there is no choice: the random numbers stay those of a run without keys.
        return int(self.members[start if stop - start == 1 else np.random.randint(start, stop)])


class InstanceKey(NamedTuple):
    """What images of one class share; exactly one of the three is set.

    Attributes:
        column (str, optional): Column of a list or table.
        pattern (str, optional): Regular expression that is searched in the path below the data
            set's folder; the key is its first group, or all that it matched.
        duplicates (str, optional): CSV of pairs (columns ``first``, ``second``) as the tool
            ``neighbours`` writes; images that are linked by pairs are one class.
        similarity (float): Least ``similarity`` of pairs that count.
    """

    column: str | None = None
    pattern: str | None = None
    duplicates: str | None = None
    similarity: float = 0.0

    @classmethod
    def of(cls, value: Any) -> InstanceKey | None:
        """From the config's ``instance_key``.

        Raises:
            ValueError: If it is not one of the three.
        """
        if value is None:
            return None
        options: dict[str, Any] = {} if not isinstance(value, Mapping) else {
            name: part for name, part in value.items() if name != '_scope_'}
        chosen = [name for name in ('column', 'pattern', 'duplicates') if options.get(name)]
        if len(chosen) != 1 or set(options) - set(cls._fields) or (
                'similarity' in options and chosen != ['duplicates']):
            raise ValueError(
                f'instance_key={value!r} is unknown: choose dict(column="patient"), '
                'dict(pattern=r"(.*)/frame") or dict(duplicates="neighbours/duplicates.csv", '
                'similarity=0.98).')
        if 'pattern' in chosen:
            try:
                re.compile(options['pattern'])
            except re.error as error:
                raise ValueError(f'instance_key: the pattern {options["pattern"]!r} is not a '
                                 f'regular expression: {error}.') from error
        return cls(**options)


def keys_by_pattern(names: Iterable[bytes], pattern: str) -> tuple[np.ndarray, int]:
    """Hash of each name's key, and how many names have none: each of them is its own class."""
    # In bytes, as names are: any of them can be searched.
    search = re.compile(pattern.encode()).search
    missed = 0

    def keys() -> Iterable[bytes]:
        nonlocal missed
        for name in names:
            match = search(name)
            key = match and match[1 if match.re.groups else 0]
            missed += not key
            yield key or b'\0' + name  # no key that a pattern finds begins so

    hashes = hash_names(keys())
    return hashes, missed


class Pairs(NamedTuple):
    """Images that are to be one class.

    Attributes:
        first (list[int]): Images.
        second (list[int]): The other one of each.
        unknown (list[str]): Names in the file that the data set does not have.
    """

    first: list[int]
    second: list[int]
    unknown: list[str]


def read_pairs(file: str | Path, similarity: float,
               find: Callable[[bytes], int | None]) -> Pairs:
    """Pairs of images that ``neighbours`` found.

    Args:
        file (str | Path): CSV of names in the columns ``first`` and ``second``.
        similarity (float): Least one of pairs that count.
        find (Callable): The image of a name; None if the data set does not have it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has other columns.
    """
    if not os.path.isfile(file):
        raise FileNotFoundError(f'instance_key: there is no file {printable(file)}; '
                                '`pic_plugin.tools.neighbours` writes duplicates.csv.')
    pairs = Pairs([], [], [])
    with open(file, encoding='utf-8', errors='surrogateescape', newline='') as stream:
        reader = csv.DictReader(stream)
        if not {'first', 'second'} <= set(reader.fieldnames or ()):
            raise ValueError(f'{printable(file)} has the columns {reader.fieldnames}, and pairs '
                             'are in columns first and second.')
        for number, row in enumerate(reader, 1):
            try:
                if float(row.get('similarity') or 1.0) < similarity:
                    continue
            except ValueError as error:
                raise ValueError(f'{printable(file)}: pair {number} has the similarity '
                                 f'{row["similarity"]!r}, which is not a number.') from error
            found = [find(os.fsencode(row[name])) for name in ('first', 'second')]
            pairs.unknown.extend(row[name] for name, place in zip(('first', 'second'), found)
                                 if place is None)
            if found[0] is not None and found[1] is not None:
                pairs.first.append(found[0])
                pairs.second.append(found[1])
    return pairs


def join(same: np.ndarray, first: Iterable[int], second: Iterable[int]) -> np.ndarray:
    """Make one class of all images that pairs link, directly or through others.

    Args:
        same (np.ndarray): (N,) int64; images with one value are one class already.
        first (Iterable[int]): Images.
        second (Iterable[int]): The other one of each pair.

    Returns:
        np.ndarray: (N,) int64, equal for images of one class.
    """
    _, same = np.unique(same, return_inverse=True)
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent.get(number, number) != number:
            parent[number] = parent.get(parent[number], parent[number])
            number = parent[number]
        return number

    for one, other in zip(first, second):
        ours, theirs = sorted((root(int(same[one])), root(int(same[other]))))
        parent[theirs] = ours
    if parent:
        changed = np.array(sorted(parent), dtype=np.int64)
        table = np.arange(int(same.max()) + 1)
        table[changed] = [root(number) for number in changed.tolist()]
        same = table[same]
    return same.astype(np.int64)
