# SPDX-License-Identifier: Apache-2.0
"""The index of a place's files, kept on disk and mapped into memory at the next start."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from pic_plugin.datasets.file_names import NameList
from pic_plugin.datasets.file_report import FileReport

VERSION = 2  # of what is kept; another one is made anew
MIN_KEPT = 10_000  # names; fewer are read again in no time
KEPT_DAYS = 7  # that an index which was replaced may still be in use
_NAMES = ('buffer', 'starts', 'ends')


class FileIndex:
    """Names of pictures with an array entry for each.

    Args:
        names (NameList): N names.
        arrays (dict[str, np.ndarray]): (N,) each: labels, places in an archive, and so on.
        meta (dict): Plain containers that tell what it is of.
        report (FileReport): What was found and left out.
    """

    def __init__(self, names: NameList, arrays: dict[str, np.ndarray], meta: dict[str, Any],
                 report: FileReport) -> None:
        self.names, self.arrays, self.meta, self.report = names, arrays, meta, report
        self._folder: str | None = None  # where it is kept

    def save(self, folder: Path) -> None:
        """Write all of it to a new folder."""
        for name in _NAMES:
            np.save(folder / f'names_{name}.npy', getattr(self.names, name))
        for name, array in self.arrays.items():
            np.save(folder / f'{name}.npy', array)
        (folder / 'index.json').write_text(json.dumps(dict(
            arrays=sorted(self.arrays), meta=self.meta, report=vars(self.report))))

    @classmethod
    def load(cls, folder: str | Path) -> FileIndex:
        """Map what :meth:`save` wrote; nothing is read before it is used."""
        folder = Path(folder)
        state = json.loads((folder / 'index.json').read_text())

        def array(name: str) -> np.ndarray:
            return np.load(folder / f'{name}.npy', mmap_mode='r', allow_pickle=False)

        index = cls(NameList(*(array(f'names_{name}') for name in _NAMES)),
                    {name: array(name) for name in state['arrays']}, state['meta'],
                    FileReport.of(state['report']))
        index._folder = str(folder)
        return index

    def __reduce__(self) -> Any:
        # A spawned worker maps the same files; pickling would copy gigabytes into each.
        if self._folder is not None and os.path.isdir(self._folder):
            return FileIndex.load, (self._folder, )
        return FileIndex, (self.names, self.arrays, self.meta, self.report)


class IndexStore:
    """Keeps indices in a folder, one for each place.

    Args:
        folder (str | Path, optional): Where. Defaults to None: ``$PIC_PLUGIN_CACHE``, else
            ``pic_plugin`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        chosen = folder or os.environ.get('PIC_PLUGIN_CACHE') or os.path.join(
            os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'pic_plugin')
        self.folder = Path(os.path.expanduser(chosen)) / 'indices'

    def get(self, place: Any, make: Callable[[], FileIndex],
            is_current: Callable[[dict[str, Any]], bool], smallest: int = MIN_KEPT) -> FileIndex:
        """The index of a place: the one that is kept if it still holds, else a new one.

        Args:
            place: Plain containers that say what the index is of, and how it was made.
            make (Callable): Makes it.
            is_current (Callable): Whether an index with this meta still holds.
            smallest (int): Names from which on it is worth keeping.
        """
        text = json.dumps([VERSION, place], sort_keys=True)
        key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        for kept in sorted(self.folder.glob(f'{key}-*'), reverse=True):
            try:
                index = FileIndex.load(kept)
            except (OSError, ValueError, KeyError, EOFError):
                continue  # half deleted, or of a disk that was full
            if is_current(index.meta):
                return index
            break
        index = make()
        if len(index.names) < smallest:
            return index
        return self._keep(key, index)

    def _keep(self, key: str, index: FileIndex) -> FileIndex:
        now = time.time_ns()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix='partial-', dir=self.folder))
            try:
                index.save(partial)
                final = self.folder / f'{key}-{now:020d}-{os.getpid()}'
                os.rename(partial, final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        except OSError as error:
            print_log(f'The list of files cannot be kept in {self.folder} ({error.strerror}): the '
                      'next start makes it again. Set PIC_PLUGIN_CACHE to a folder on a disk with '
                      'room.', logger='current')
            return index
        for other in self.folder.glob(f'{key}-*'):
            if int(other.name.split('-')[1]) < now - KEPT_DAYS * 86_400 * 10**9:
                shutil.rmtree(other, ignore_errors=True)
        return FileIndex.load(final)  # mapped, so that workers share it


def file_state(path: str | bytes | os.PathLike) -> list:
    """Size in bytes and time of modification in nanoseconds: another state is another content."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]
