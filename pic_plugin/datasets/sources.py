# SPDX-License-Identifier: Apache-2.0
"""The places that images are in: folders, lists, archives, LMDB, tables, storage back-ends."""
from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Union

import numpy as np
from mmengine import fileio

from pic_plugin.datasets.archives import index_archive, is_archive
from pic_plugin.datasets.file_index import FileIndex, IndexStore, file_state
from pic_plugin.datasets.file_names import NameList, hash_names, printable
from pic_plugin.datasets.file_report import FileReport
from pic_plugin.datasets.image_lists import LABEL_COLUMNS, read_list
from pic_plugin.datasets.members import member_path
from pic_plugin.datasets.stores import index_lmdb, index_rows, is_lmdb, is_rows, lmdb_file
from pic_plugin.datasets.walk import hidden_folder, sort_out, walk

# A folder that was changed this short a time before it was listed may have been changed again
# since without another time: clocks of file systems tick slowly.
UNSURE_NS = 2 * 10**9


class ReadOptions(NamedTuple):
    """How places are read; see :class:`ImageFiles`."""

    endings: Sequence[str]
    with_label: bool = False
    path_column: str | None = None
    label_column: str | None = None
    key_column: str | None = None
    backend_args: dict[str, Any] | None = None


class Part(NamedTuple):
    """Images of one place.

    Attributes:
        kind (str): 'files', 'list', 'tar', 'zip', 'lmdb', 'rows' or 'remote'.
        root (str): Folder or archive; of a list the folder that its paths start from.
        label (str): The place as the config has it, by which its images are told from others of
            the same name.
        name (str, optional): What the config calls it.
        files (FileIndex): Names and what is known of each; ``hash`` is the hash of each name.
    """

    kind: str
    root: str
    label: str
    name: str | None
    files: FileIndex

    def path(self, number: int) -> str:
        """Where an image is, for a loader."""
        name = os.fsdecode(self.files.names[number])
        if self.kind in ('files', 'list', 'remote'):
            return name if '://' in name else join_path(self.root, name)
        columns = dict(tar=('start', 'size'), zip=('start', 'size', 'deflated')).get(self.kind, ())
        numbers = [int(self.files.arrays[column][number]) for column in columns]
        if self.kind == 'rows':
            numbers = [int(name.rpartition('/')[2])]
        return member_path(self.kind, self.root, name, *numbers)


def join_path(root: str, name: str) -> str:
    """A path below a folder or URL; '' for none."""
    return f'{root.rstrip("/")}/{name}' if '://' in root else os.path.join(root, name)


def expand(root: str) -> list[str]:
    """Places that a pattern with ``*``, ``?`` or ``[...]`` matches; others as they are.

    Raises:
        FileNotFoundError: If it matches none.
    """
    root = os.path.expanduser(root)
    if '://' in root or os.path.exists(root) or not glob.has_magic(root):
        return [root]
    found = sorted(glob.glob(root, recursive=True))
    if not found:
        raise FileNotFoundError(f'nothing matches {printable(root)}.')
    return found


def open_place(root: str, name: str | None, options: ReadOptions, store: IndexStore) -> Part:
    """The images of a folder, an archive or a store.

    Raises:
        FileNotFoundError: If there is nothing there.
        ValueError: If it is none of them.
    """
    if '://' in root or options.backend_args:
        return Part('remote', root, root, name, _hashed(_list_remote(root, options)))
    if not os.path.exists(root):
        raise FileNotFoundError(f'there is nothing at {printable(root)}: check data_root.')
    place = ['place', os.path.abspath(root), list(options)]
    if is_archive(root) and not os.path.isdir(root):
        path = os.path.abspath(root)
        prefix = os.fsencode(os.path.basename(path)) + b'/'

        def make() -> FileIndex:
            # Members of shards are often numbered in each anew.
            return _hashed(index_archive(path, options.endings), prefix)

        index = store.get(place, make, lambda meta: meta['state'] == file_state(path), smallest=1)
        return Part(index.meta['kind'], path, root, name, index)
    if is_lmdb(root):
        index = store.get(place, lambda: _hashed(index_lmdb(root)),
                          lambda meta: meta['state'] == file_state(lmdb_file(root)))
        return Part('lmdb', os.path.abspath(root), root, name, index)
    if is_rows(root):
        column = options.label_column or (LABEL_COLUMNS[1] if options.with_label else None)
        state = os.path.join(root, 'state.json')
        index = store.get(place, lambda: _hashed(index_rows(root, column, options.key_column)),
                          lambda meta: meta['state'] == file_state(state))
        return Part('rows', os.path.abspath(root), root, name, index)
    if not os.path.isdir(root):
        raise ValueError(f'{printable(root)} is neither a folder nor a .tar, .zip or .lmdb: a list '
                         'of images is given as ann_file.')
    index = store.get(place, lambda: _index_folder(root, options.endings),
                      lambda meta: _folders_are_as_they_were(root, meta))
    return Part('files', root, root, name, index)


def open_list(file: str, root: str, options: ReadOptions, store: IndexStore) -> Part:
    """The images of a list.

    Args:
        file (str): The list.
        root (str): Folder that its paths are relative to; '' for that of the list.
        options (ReadOptions): How to read.
        store (IndexStore): Where indices are kept.

    Raises:
        FileNotFoundError: If there is no such file, or none of some images that it names.
        ValueError: If it cannot be understood.
    """
    remote = '://' in file or bool(options.backend_args)
    if not remote and not os.path.isfile(file):
        raise FileNotFoundError(f'there is no list {printable(file)}: check ann_file.')

    def make() -> FileIndex:
        content = fileio.get(file, backend_args=options.backend_args)
        index = read_list(content, file, options.path_column, options.label_column,
                          options.key_column, options.with_label)
        if not remote:
            index.meta['state'] = state
        return _hashed(index)

    if remote:
        index = make()
    else:
        state = file_state(file)
        index = store.get(['list', os.path.abspath(file), list(options)], make,
                          lambda meta: meta['state'] == state)
    root = root or os.path.dirname(file)
    part = Part('remote' if options.backend_args or '://' in root else 'list', root, root, None,
                index)
    _check_some(part, file)
    return part


def _check_some(part: Part, file: str) -> None:
    """Find a wrong folder before a million images are skipped one by one."""
    last = len(part.files.names) - 1
    paths = [part.path(last * step // 31) for step in range(32)] if last >= 0 else []
    if part.kind == 'list' and paths and not any(
            '://' in path or os.path.exists(path) for path in paths):
        raise FileNotFoundError(f'the images that {printable(file)} names are not there, such '
                                f'as {printable(paths[0])}: set data_root to the folder that its '
                                'paths start from.')


def _hashed(index: FileIndex, prefix: bytes = b'') -> FileIndex:
    names = index.names if not prefix else (prefix + name for name in index.names)
    index.arrays['hash'] = hash_names(names)
    index.meta['repeats'] = bool(len(np.unique(index.arrays['hash'])) < len(index.names))
    return index


def _index_folder(root: str, endings: Sequence[str]) -> FileIndex:
    began = time.time_ns()
    found = walk(root, endings)
    meta = dict(began=began, folders=found.folders, unreadable=found.unreadable)
    return _hashed(FileIndex(found.names, {}, meta, found.report))


def _folders_are_as_they_were(root: str, meta: dict[str, Any]) -> bool:
    try:
        as_they_were = all(changed < meta['began'] - UNSURE_NS
                           and os.stat(os.path.join(root, below)).st_mtime_ns == changed
                           for below, changed in meta['folders'].items())
    except OSError:
        return False
    return as_they_were and 'unreadable' in meta and not any(
        os.access(os.path.join(root, below), os.R_OK) for below in meta['unreadable'])


def _list_remote(root: str, options: ReadOptions) -> FileIndex:
    report = FileReport()
    backend = fileio.get_file_backend(root, backend_args=options.backend_args)
    if not hasattr(backend, 'list_dir_or_file'):
        raise ValueError(f'the storage back-end {type(backend).__name__} cannot list {root}: give '
                         'the images as a list, ann_file="...txt".')
    names: list[bytes] = []
    for name in backend.list_dir_or_file(root, list_dir=False, recursive=True):
        encoded = os.fsencode(name)
        if sort_out(encoded, options.endings, report, hidden_folder(encoded)):
            names.append(encoded)
    return FileIndex(NameList.of(sorted(names)), {}, {}, report)


def nested(roots: Sequence[str]) -> tuple[str, str] | None:
    """A place of several, and one that is it or is read with it; None if there is no such pair."""
    real = sorted((os.path.join(os.path.realpath(root), ''), root) for root in roots)
    # A walk does not look into archives and stores, which may lie in its folder.
    walked = [one for one in real
              if os.path.isdir(one[0]) and not is_lmdb(one[1]) and not is_rows(one[1])]
    pairs = [pair for pair in zip(real, real[1:]) if pair[0][0] == pair[1][0]]
    pairs += [pair for pair in zip(walked, walked[1:]) if pair[1][0].startswith(pair[0][0])]
    return (pairs[0][0][1], pairs[0][1][1]) if pairs else None


Roots = Union[str, Sequence[str], dict[str, str]]


def named_roots(roots: Roots) -> list[tuple[str | None, str]]:
    """Name (or None) and place of each ``data_root``."""
    if isinstance(roots, (str, os.PathLike)):
        return [(None, place) for place in expand(os.fspath(roots))] if roots else []
    if isinstance(roots, dict):
        return [(name, place) for name, root in roots.items() if name != '_scope_'
                for place in expand(root)]
    return [(None, place) for root in roots for place in expand(root)]
