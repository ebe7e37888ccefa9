# SPDX-License-Identifier: Apache-2.0
"""Finds the pictures below folders, and says which files are left out and why."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple, Union

# What OpenCV, with which training reads pictures, decodes.
ENDINGS = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
# Made by file systems, archives and galleries: thumbnails, or copies, of the pictures beside them.
SERVICE_FOLDERS = ('__macosx', '$recycle.bin', '#recycle', '@eadir', 'lost+found',
                   'system volume information')


class Found(NamedTuple):
    """Pictures of one data set.

    Attributes:
        folders (tuple[str, ...]): Absolute; the same one, or one inside of another, only once.
        root (str): The deepest folder that holds all of them.
        files (list[str]): Paths below ``root``, sorted folder by folder.
        sizes (list[int]): Bytes of each.
        left_out (dict[str, int]): Numbers of other files by the reason.
        notices (tuple[str, ...]): What should be said.
    """

    folders: Tuple[str, ...]
    root: str
    files: List[str]
    sizes: List[int]
    left_out: Dict[str, int]
    notices: Tuple[str, ...]


def find_pictures(folders: Sequence[Union[str, Path]]) -> Found:
    """Find all pictures; links to folders are followed, each folder once.

    Raises:
        FileNotFoundError: If a folder is not there.
        ValueError: If it is no folder, or may not be read.
    """
    given: List[str] = []
    notices: List[str] = []
    for folder in map(str, folders):
        path = os.path.abspath(os.path.expanduser(folder))
        if not os.path.exists(path):
            raise FileNotFoundError(f'there is no folder {folder}.')
        if not os.path.isdir(path):
            raise ValueError(f'{folder} is a file: give the folder of pictures that holds it.')
        if not os.access(path, os.R_OK | os.X_OK):
            raise ValueError(f'{folder} may not be read: ask its owner for permission '
                             '(chmod -R u+rX).')
        given.append(path)
    real = [os.path.realpath(path) for path in given]
    kept: List[str] = []
    for place, path in enumerate(given):
        inside = [other for other in range(len(given)) if other != place
                  and (real[place].startswith(real[other] + os.sep)
                       or real[place] == real[other] and other < place)]
        if inside:
            notices.append(f'{path} is given twice, or lies in {given[inside[0]]}: its pictures '
                           'are taken once.')
        else:
            kept.append(path)
    root = kept[0] if len(kept) == 1 else os.path.commonpath(kept)
    left_out: Counter = Counter()
    seen: Set[str] = set()
    files: List[str] = []
    sizes: List[int] = []
    for folder in kept:
        for path, size in _walk(folder, seen, left_out):
            files.append(os.path.relpath(path, root))
            sizes.append(size)
    return Found(tuple(kept), root, files, sizes, dict(left_out.most_common()), tuple(notices))


def _walk(folder: str, seen: Set[str], left_out: Counter) -> Iterator[Tuple[str, int]]:
    """Absolute paths and sizes of the pictures in a folder and below it, in order of names."""
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back
        left_out['folders that links lead to again'] += 1
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        left_out['folders without permission'] += 1
        return
    for entry in entries:
        if entry.name.startswith('.') or entry.name.lower() in SERVICE_FOLDERS:
            left_out['hidden files and service folders'] += 1
        elif entry.is_dir():
            yield from _walk(entry.path, seen, left_out)
        else:
            ending = os.path.splitext(entry.name)[1].lower()
            try:
                size = entry.stat().st_size
            except OSError:
                left_out['links that lead nowhere'] += 1
                continue
            if ending not in ENDINGS:
                left_out[f'files ending in {ending}' if ending else 'files without ending'] += 1
            elif size == 0:
                left_out['empty files'] += 1
            elif not os.access(entry.path, os.R_OK):
                left_out['pictures without permission'] += 1
            elif '\n' in entry.name or '\r' in entry.name:
                left_out['pictures with a line break in their name'] += 1
            else:
                yield entry.path, size
