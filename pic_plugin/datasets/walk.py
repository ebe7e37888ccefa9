# SPDX-License-Identifier: Apache-2.0
"""The walk through folders of pictures that training and tools share."""
from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from pic_plugin.datasets.endings import PLAIN, ending_of, why_not_read
from pic_plugin.datasets.file_names import NameList, printable
from pic_plugin.datasets.file_report import FileReport

# Folders and files that desktops, network drives and archives keep beside pictures; in lower case.
# What begins with a point (.ipynb_checkpoints, .thumbnails, .Trash-1000, ._copy.jpg) is hidden.
_SYSTEM = {b'@eadir', b'@recycle', b'@tmp', b'#recycle', b'#snapshot', b'__macosx', b'__pycache__',
           b'$recycle.bin', b'system volume information', b'lost+found', b'thumbs.db',
           b'ehthumbs.db', b'desktop.ini', b'icon\r'}
# A folder that holds all of one set is where a training, pretrain's or any of mmengine, writes.
_OF_A_TRAINING = ({b'pretrain.json', b'pretrain.py'}, {b'last_checkpoint'})


class Found(NamedTuple):
    """The pictures of a folder.

    Attributes:
        names (NameList): Paths below the folder, in the order of their bytes.
        report (FileReport): By ending, and what was left out.
        folders (dict[str, int]): Path below the folder and time of modification, in nanoseconds,
            of each folder that was read: it changes when an entry comes or goes.
        unreadable (list[str]): Paths below the folder of links that lead nowhere and of folders
            that cannot be read: what there is behind them may come without a change of the above.
    """

    names: NameList
    report: FileReport
    folders: dict[str, int]
    unreadable: list[str]


def why_hidden(name: bytes) -> str | None:
    """Why a folder or file of this name is left out; None if it is not."""
    if name.startswith(b'.'):
        return 'hidden'
    return 'of the system' if name.lower() in _SYSTEM else None


def hidden_folder(name: bytes) -> str | None:
    """Why a folder in a path is left out; None if none is."""
    return next(filter(None, map(why_hidden, name.split(b'/')[:-1])), None)


def sort_out(name: bytes, endings: Iterable[str], report: FileReport,
             within: str | None = None) -> bool:
    """Whether a file is one of the pictures; the report is told.

    Args:
        name (bytes): Path of the file.
        endings (Iterable[str]): Of pictures.
        report (FileReport): What to tell.
        within (str, optional): What the folder it is in is, if that is left out.
    """
    ending = ending_of(name)
    reason = within or why_hidden(name.rpartition(b'/')[2])
    if ending in endings and reason is None:
        report.read[ending] += 1
        return True
    if ending in endings:
        report.leave_out('hidden pictures' if within is None else
                         f'pictures in folders that are {within}', name)
    elif reason is None and why_not_read(ending):
        report.leave_out(f'{ending} files, not read: {why_not_read(ending)}', name)
    elif reason is None and ending in PLAIN:
        report.leave_out(f'{ending} files, whose ending is not asked for', name)
    elif reason is None:
        report.leave_out('other files', name)
    return False


def walk(folder: str | os.PathLike, endings: Iterable[str]) -> Found:
    """All pictures in a folder and below it, links to folders followed.

    Each real folder is read once, by its own path if it lies below ``folder``, else by that of the
    first link to it: a link to a folder above, or two links to one folder, give no picture twice.
    Folders and files that are hidden or belong to a system are left out, and so are the figures in
    work folders of trainings.

    Args:
        folder (str | PathLike): Where to look; it may be hidden itself.
        endings (Iterable[str]): Of pictures, in lower case, with their points.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'there is no folder {printable(folder)}.')
    root, endings = os.fsencode(folder), frozenset(endings)
    report, names, folders, unreadable = FileReport(), [], {}, []
    visited: set[tuple[int, int]] = set()
    todo: list[tuple[bytes, str | None]] = [(b'', None)]
    links: list[bytes] = []  # after all real folders
    while todo or links:
        if not todo:
            links.sort(reverse=True)
        below, within = todo.pop() if todo else (links.pop(), None)
        try:
            # Its time before its entries: what changes meanwhile is looked at again.
            status = os.stat(os.path.join(root, below))
            if within is None and (status.st_dev, status.st_ino) in visited:
                report.leave_out('links to folders that are read anyway', below)
                continue
            if within is None:
                visited.add((status.st_dev, status.st_ino))
            with os.scandir(os.path.join(root, below)) as entries:
                found = list(entries)
        except OSError as error:
            report.leave_out(f'folders that cannot be read: {error.strerror}', below)
            unreadable.append(os.fsdecode(below))
            continue
        entry_names = {entry.name for entry in found}
        if below and any(marks <= entry_names for marks in _OF_A_TRAINING):
            within = within or 'work folders of trainings'
        if within is None:
            folders[os.fsdecode(below)] = status.st_mtime_ns
        for entry in found:
            name = below + b'/' + entry.name if below else entry.name
            is_folder, is_file = _kind(entry)
            if is_folder:
                hidden = within or why_hidden(entry.name)
                if entry.is_symlink():
                    if hidden is None:
                        links.append(name)
                else:
                    todo.append((name, hidden))
            elif not is_file:
                if within is None:
                    report.leave_out(
                        'broken links' if entry.is_symlink() else 'special files', name)
                    if entry.is_symlink():
                        unreadable.append(os.fsdecode(name))
            elif sort_out(name, endings, report, within):
                names.append(name)
    return Found(NameList.of(sorted(names)), report, folders, unreadable)


def _kind(entry: os.DirEntry) -> tuple[bool, bool]:
    """Whether an entry is a folder, and whether it is a file; links count as what they lead to."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:  # a link to itself, or to where nothing may be read
        return False, False
