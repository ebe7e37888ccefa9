# SPDX-License-Identifier: Apache-2.0
"""A sparse scratch file of fixed-size records that one process uses."""
from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None  # type: ignore[assignment]

#: Files that this process uses.
_OPEN: set[tuple[int, int]] = set()


class RecordFile:
    """N records in a sparse file, which takes disk space where records were written.

    Positioned reads and writes, not a mapping of the file: records are far apart, and a mapping
    would take a page fault and page tables for each (five times slower to read at N = 1e9), hold
    every page that it ever touched in the process's resident memory, and answer a full disk with
    SIGBUS, which kills the process without a word. Here it is an OSError. What is cached is the
    system's page cache, which gives way when memory is wanted elsewhere.

    Args:
        num_records (int): N.
        dtype (np.dtype): Of a record.
        path (Path): The file; replaced if it exists and no process uses it.

    Raises:
        OSError: If the file cannot be made, or is in use.
    """

    def __init__(self, num_records: int, dtype: np.dtype, path: Path) -> None:
        if not hasattr(os, 'pread'):
            raise OSError(errno.ENOSYS, "this system has no positioned reads: choose storage=dict("
                          "type='memory')")
        self.dtype, self.num_records, self.path = dtype, num_records, path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and _identity(os.stat(path)) in _OPEN:
            # An earlier run of this process, which no lock would tell apart, goes on with its own.
            path.unlink()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_CLOEXEC', 0), 0o644)
        try:
            self._lock()
            os.ftruncate(self._file, 0)
            os.ftruncate(self._file, num_records * dtype.itemsize)
        except OSError as error:
            os.close(self._file)
            if error.errno in (errno.EFBIG, errno.EINVAL):
                raise OSError(
                    error.errno, f'the file system or a limit (ulimit -f) does not allow {path} '
                    f'of {num_records * dtype.itemsize:,} bytes, of which only visited rows take '
                    "space: set storage=dict(type='mmap', path=...) to a folder on a file system "
                    'with large sparse files (ext4, xfs)') from error
            raise
        # When it is closed, nobody refers to it any more, or the interpreter ends.
        _OPEN.add(_identity(os.fstat(self._file)))
        self._remove = weakref.finalize(self, _remove, path, self._file, os.getpid())

    def _lock(self) -> None:
        """Two runs that write to one file would train on each other's rows."""
        if fcntl is None:
            return
        try:
            # A lock of this process, which data workers do not inherit: left behind by a run that
            # was killed, they do not keep its successor out.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise OSError(
                error.errno, f'{self.path} is in use by another run: wait for its end, or give '
                "this one another work directory or storage=dict(type='mmap', path=...)"
            ) from error

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Records (R,) of the record's dtype for rows (R,) int64; zeros where none was written.

        Raises:
            OSError: If the disk fails.
        """
        size = self.dtype.itemsize
        content = b''.join([os.pread(self._file, size, row * size) for row in rows.tolist()])
        if len(content) != size * len(rows):
            raise OSError(errno.EIO, f'{self.path} has become shorter while it was used')
        return np.frombuffer(content, dtype=self.dtype)

    def write(self, rows: np.ndarray, records: np.ndarray) -> None:
        """Replace records (R,) at rows (R,) int64.

        Raises:
            OSError: If the disk is full.
        """
        size = self.dtype.itemsize
        content = records.tobytes()
        try:
            for i, row in enumerate(rows.tolist()):
                record = content[i * size:(i + 1) * size]
                if os.pwrite(self._file, record, row * size) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OSError(
                error.errno, f'{os.strerror(error.errno)}: the stored class weights do not fit '
                f'beside {self.path}, which takes {size} bytes for each image that was visited. '
                "Make room, or set storage=dict(type='mmap', path=...) to another disk, and "
                'resume from the last checkpoint') from error

    def prefetch(self, rows: np.ndarray) -> None:
        """Ask the system to read records at rows (R,) into its cache; returns at once."""
        if hasattr(os, 'posix_fadvise'):
            size = self.dtype.itemsize
            for row in rows.tolist():
                os.posix_fadvise(self._file, row * size, size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Remove the file."""
        self._remove()


def _remove(path: Path, file: int, owner: int) -> None:
    if os.getpid() == owner:  # not a data worker that was forked
        own = _identity(os.fstat(file))
        _OPEN.discard(own)
        if path.exists() and _identity(os.stat(path)) == own:
            path.unlink()
        os.close(file)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
