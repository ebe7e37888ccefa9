# SPDX-License-Identifier: Apache-2.0
"""The pictures of one or several folders as one data set, by the walk that all tools share."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pic_plugin.datasets.endings import readable_endings
from pic_plugin.datasets.file_report import FileReport
from pic_plugin.datasets.walk import walk


class Found(NamedTuple):
    """Pictures of one data set.

    Attributes:
        folders (tuple[str, ...]): Absolute; the same one, or one inside of another, only once.
        root (str): The deepest folder that holds all of them.
        files (list[str]): Paths below ``root``, sorted folder by folder.
        sizes (list[int]): Bytes of each.
        left_out (FileReport): Other files by the reason.
        notices (tuple[str, ...]): What should be said.
    """

    folders: tuple[str, ...]
    root: str
    files: list[str]
    sizes: list[int]
    left_out: FileReport
    notices: tuple[str, ...]


def find_pictures(folders: Sequence[str | Path], endings: Sequence[str] | None = None) -> Found:
    """Find all pictures; see :func:`pic_plugin.datasets.walk.walk`.

    Args:
        folders (Sequence[str | Path]): Where to look.
        endings (Sequence[str], optional): Of files. Defaults to None: those of pictures.

    Raises:
        FileNotFoundError: If a folder is not there.
        ValueError: If it is no folder, or may not be read.
    """
    given: list[str] = []
    notices: list[str] = []
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
    kept: list[str] = []
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
    left_out = FileReport()
    seen: set[str] = set()
    files: list[str] = []
    sizes: list[int] = []
    for folder in kept:
        found = walk(folder, endings or readable_endings())
        left_out.add(found.report)
        for name in found.names:
            path = os.path.join(folder, os.fsdecode(name))
            # One folder's walk gives no picture twice; asking is slow for millions.
            real_path = os.path.realpath(path) if len(kept) > 1 else path
            try:
                size = os.stat(path).st_size
            except OSError:
                left_out.leave_out('files that went away', name)
                continue
            if real_path in seen:  # folders that are linked to each other
                left_out.leave_out('pictures under a second path', name)
            elif size == 0:
                left_out.leave_out('empty files', name)
            elif not os.access(path, os.R_OK):
                left_out.leave_out('pictures without permission', name)
            elif '\n' in path or '\r' in path:
                left_out.leave_out('pictures with a line break in the path', name)
            else:
                seen.add(real_path)
                files.append(os.path.relpath(path, root))
                sizes.append(size)
    return Found(tuple(kept), root, files, sizes, left_out, tuple(notices))
