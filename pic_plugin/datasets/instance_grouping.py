# SPDX-License-Identifier: Apache-2.0
"""From what a config says of keys and copies to the instance classes of a data set."""
from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from mmengine.dist import is_main_process

from pic_plugin.datasets.duplicate_files import find_copies
from pic_plugin.datasets.file_index import IndexStore
from pic_plugin.datasets.file_names import printable
from pic_plugin.datasets.identities import PartNames, tell_apart
from pic_plugin.datasets.image_lists import NO_KEY
from pic_plugin.datasets.image_table import ImageTable
from pic_plugin.datasets.instance_classes import (
    InstanceClasses,
    InstanceKey,
    join,
    keys_by_pattern,
    read_pairs,
)
from pic_plugin.wording import counted

# Images among which exact copies are looked for without being asked: seconds.
MAX_SEARCHED = 100_000
SEARCHES = ('report', 'merge', 'ignore')


class Grouping(NamedTuple):
    """What is one class.

    Attributes:
        classes (InstanceClasses, optional): None if each image is a class by itself.
        identities (np.ndarray): (C,) int64 by which each class is known for good.
        notes (list[str]): What is to be said of it, a sentence each.
    """

    classes: InstanceClasses | None
    identities: np.ndarray
    notes: list[str]


def group_images(table: ImageTable, key: InstanceKey | None, duplicates: str | None,
                 store: IndexStore) -> Grouping:
    """Number the instance classes of a data set.

    Args:
        table (ImageTable): N images.
        key (InstanceKey, optional): What images of one class share.
        duplicates (str, optional): One of :data:`SEARCHES`; None: 'report' among few images.
        store (IndexStore): Where what was found is kept.

    Raises:
        ValueError: If the key or the copies cannot be had from these places.
    """
    notes: list[str] = []
    # By these images are known for good, and those with one of them are one class.
    identities = tell_apart(
        [PartNames(part.files.arrays['hash'], part.label, part.name) for part in table.parts])
    lists = [part for part in table.parts if part.kind in ('list', 'remote')]
    grouped = len(lists) > 1 or any(part.files.meta['repeats'] for part in table.parts)
    if grouped:
        repeats = table.num_images - len(np.unique(identities))
        grouped = repeats > 0
        if grouped and key is None:
            notes.append(f'{counted(repeats, "entry lists", "entries list")} an image again: it is '
                         'one class.')
    if key is not None and key.column is not None:
        column = table.column('key')
        if column is None:
            raise ValueError(f'instance_key names the column {key.column!r}, which {table} do not '
                             'all have: give lists (ann_file) that have it.')
        # A key is a key, in whichever list it stands.
        _note_missed(int((column == NO_KEY).sum()), f'in the column {key.column!r}', notes)
        identities, grouped = np.where(column == NO_KEY, identities, column), True
    elif key is not None and key.pattern is not None:
        identities, grouped = _keys_by_pattern(table, key.pattern, notes), True
    same = identities
    if key is not None and key.duplicates is not None:
        same, grouped = _join_pairs(table, same, key, notes), True
    copies = _copies(table, same, duplicates, store, notes)
    if copies is not None and duplicates == 'merge':
        copied = np.flatnonzero(copies != np.arange(len(copies)))
        same = join(same, copied.tolist(), copies[copied].tolist())
        grouped = grouped or len(copied) > 0
    if not grouped:
        return Grouping(None, identities, notes)
    classes = InstanceClasses(same)
    by = '' if key is None else ', by ' + ', '.join(
        f'{name} {value!r}' for name, value in key._asdict().items() if value)
    notes.append(f'Instance classes: {len(classes):,} of {table.num_images:,} images{by}; a visit '
                 'draws one image of its class.')
    return Grouping(classes, np.asarray(identities)[classes.firsts], notes)


def _keys_by_pattern(table: ImageTable, pattern: str, notes: list[str]) -> np.ndarray:
    found = [keys_by_pattern(part.files.names, pattern) for part in table.parts]
    missed = sum(number for _, number in found)
    if missed == table.num_images:
        raise ValueError(f'instance_key: the pattern {pattern!r} is in none of the {missed} paths, '
                         f"such as {table.name(0)} (below the data set's folder).")
    _note_missed(missed, f'by the pattern {pattern!r}', notes)
    return tell_apart([PartNames(keys, part.label, part.name)
                       for (keys, _), part in zip(found, table.parts)])


def _note_missed(number: int, where: str, notes: list[str]) -> None:
    if number:
        notes.append(f'{counted(number, "image")} without a key {where}: each is a class by '
                     'itself.')


def _join_pairs(table: ImageTable, same: np.ndarray, key: InstanceKey,
                notes: list[str]) -> np.ndarray:
    assert key.duplicates is not None, 'checked by the caller'
    places: dict[bytes, int] = {}
    others: dict[bytes, int] = {}
    for image, (name, path) in enumerate(table.names()):
        # Tools name files of a folder by the path below it, those of a config by all of it.
        for known_as in (name, os.fsencode(path)):
            first = places.setdefault(known_as, image)
            if first != image and same[first] != same[image]:
                others[known_as] = image

    def find(name: bytes) -> int | None:
        if name in others:
            one, other = (printable(table.path(images[name])) for images in (places, others))
            raise ValueError(
                f'instance_key: {key.duplicates} names {printable(name)}, which is {one} and '
                f'{other}: write whole paths, such as {other}, in its columns first and second.')
        return places.get(name)

    pairs = read_pairs(os.path.expanduser(key.duplicates), key.similarity, find)
    if pairs.unknown and not pairs.first:
        raise ValueError(f'instance_key: none of the names in {key.duplicates}, such as '
                         f'{printable(pairs.unknown[0])}, is one of the {table.num_images} '
                         'images: let `neighbours` look at the same folder (--images).')
    if pairs.unknown:
        notes.append(f'{counted(len(pairs.unknown), "name")} in {key.duplicates} of none of the '
                     f'images, such as {printable(pairs.unknown[0])}.')
    return join(same, pairs.first, pairs.second)


def _copies(table: ImageTable, same: np.ndarray, wanted: str | None, store: IndexStore,
            notes: list[str]) -> np.ndarray | None:
    """(N,) first image with the same bytes; None if they were not looked for."""
    kinds = {part.kind for part in table.parts}
    if wanted == 'merge' and kinds & {'lmdb', 'rows', 'remote'}:
        raise ValueError('duplicates="merge" needs files or archives on a local disk.')
    if wanted == 'ignore':
        return None
    if kinds & {'lmdb', 'rows', 'remote'}:
        notes.append('Exact copies were not looked for: that takes files or archives on a local '
                     'disk.')
        return None
    if wanted is None and table.num_images > MAX_SEARCHED:
        notes.append('Exact copies were not looked for among so many images; '
                     "duplicates='report' does.")
        return None
    if wanted != 'merge' and not is_main_process():
        return None  # who alone prints the report
    copies = find_copies(table, store)
    copied = np.flatnonzero(same[copies] != same)
    if len(copied):
        notes.append(
            f'{counted(len(copied), "exact copy", "exact copies")} of other images (such as '
            f'{table.name(int(copied[0]))} = {table.name(int(copies[copied[0]]))}): '
            + ('they are one class with them.' if wanted == 'merge' else
               "each is a class that is pushed apart from its twin. duplicates='merge' makes one "
               "class of them, duplicates='ignore' does not look."))
    return copies
