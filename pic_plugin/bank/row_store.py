# SPDX-License-Identifier: Apache-2.0
"""Rows of the instance classes outside the active set, one contiguous record each."""
from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import Iterator, Optional, Tuple, Union

import numpy as np

CHUNK_ROWS = 4096  # granularity of iteration over the rows that were written

Rows = Tuple[np.ndarray, np.ndarray, np.ndarray]


class RowStore:
    """Records of (optimizer step, P x d float32) for N rows; those never written take no memory.

    Memory and file are the same code over a mapping of N records: an anonymous one, of which the
    system backs only the pages that were written, or a sparse file.

    Args:
        num_rows (int): N.
        num_planes (int): P: the class weight and each tensor that the optimizer keeps for it.
        feat_dim (int): d.
        path (str | Path, optional): File to keep the rows in; replaced if it exists, and removed
            by :meth:`close`. It is scratch space of one run: checkpoints hold a copy. Defaults to
            None: memory.
    """

    def __init__(self,
                 num_rows: int,
                 num_planes: int,
                 feat_dim: int,
                 path: Optional[Union[str, Path]] = None) -> None:
        record = np.dtype([('stamp', '<i8'), ('values', '<f4', (num_planes, feat_dim))])
        self.path = None if path is None else Path(path)
        self.num_bytes = max(num_rows, 1) * record.itemsize
        self._mapping = _map(self.num_bytes, self.path)
        self._records = np.frombuffer(self._mapping, dtype=record)
        # Reading a page that was never written would make the system allocate it.
        self._written = np.zeros(-(-max(num_rows, 1) // CHUNK_ROWS), dtype=bool)

    @property
    def shape(self) -> Tuple[int, int]:
        """(P, d)."""
        num_planes, feat_dim = self._records.dtype['values'].shape
        return num_planes, feat_dim

    def write(self, rows: np.ndarray, steps: np.ndarray, values: np.ndarray) -> None:
        """Store rows.

        Args:
            rows (np.ndarray): (R,) int64, distinct.
            steps (np.ndarray): (R,) int64, optimizer steps that the values are as of.
            values (np.ndarray): (R, P, d) float32.
        """
        self._records['stamp'][rows] = steps + 1  # 0, a fresh page, means never written
        self._records['values'][rows] = values
        self._written[rows // CHUNK_ROWS] = True

    def read(self, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Look rows up.

        Args:
            rows (np.ndarray): (R,) int64.

        Returns:
            tuple[np.ndarray, np.ndarray]: (R,) int64 steps, -1 for a row that was never written,
            and (R, P, d) float32 values, 0 for those.
        """
        steps = np.full(len(rows), -1, dtype=np.int64)
        values = np.zeros((len(rows), *self.shape), dtype=np.float32)
        there = self._written[rows // CHUNK_ROWS]
        steps[there] = self._records['stamp'][rows[there]] - 1
        values[there] = self._records['values'][rows[there]]
        return steps, values

    def written(self) -> Iterator[Rows]:
        """All rows that were written, in order: rows (R,), steps (R,), values (R, P, d)."""
        for chunk in np.flatnonzero(self._written):
            start = chunk * CHUNK_ROWS
            records = self._records[start:start + CHUNK_ROWS]
            inside = np.flatnonzero(records['stamp'])
            yield start + inside, records['stamp'][inside] - 1, records['values'][inside]

    def close(self) -> None:
        """Give the memory back, or remove the file."""
        del self._records
        self._mapping.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _map(num_bytes: int, path: Optional[Path]) -> mmap.mmap:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, 'w+b') as file:
            os.truncate(file.fileno(), num_bytes)
            return mmap.mmap(file.fileno(), num_bytes)
    if not hasattr(mmap, 'MAP_ANONYMOUS'):
        return mmap.mmap(-1, num_bytes)
    # Shared, or each data worker that is forked would cost a copy of every page written since.
    # Not reserved, or the system would refuse N records where only those written will fit.
    mapping = mmap.mmap(
        -1, num_bytes, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    if hasattr(mmap, 'MADV_NOHUGEPAGE'):
        mapping.madvise(mmap.MADV_NOHUGEPAGE)  # one row of 1 kB would commit 2 MB
    return mapping


# Python names it from 3.13 on; the value is Linux's on x86 and Arm.
_MAP_NORESERVE = getattr(mmap, 'MAP_NORESERVE', 0x4000 if sys.platform == 'linux' else 0)
