# SPDX-License-Identifier: Apache-2.0
"""Rows of the instance classes outside the active set, one contiguous record each."""
from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .record_file import RecordFile
from .row_codec import RowCodec

GROUP_ROWS = 4  # rows, about a page of them, that share a bit in the map of what was written
ITERATION_ROWS = 16384  # rows looked at in one go by written(): 17 MB for d = 128

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


class RowStore:
    """Records of (optimizer step, P x d values) for N rows; those never written take no space.

    In memory the records are an anonymous mapping, of which the system backs only the pages that
    were written. On disk they are a sparse file, which grows likewise.

    Args:
        num_rows (int): N.
        num_tensors (int): P: the class weight and each tensor that the optimizer keeps for it.
        feat_dim (int): d.
        path (str | Path, optional): File to keep the rows in; replaced if it exists, locked while
            it is used, and removed by :meth:`close`. It is scratch space of one run: checkpoints
            hold a copy. Defaults to None: memory.
        dtype (str): What values are rounded to, see :class:`RowCodec`. Defaults to 'float32'.
        squares (Sequence[int]): Which of the P hold squares, likewise. Defaults to none.

    Raises:
        ValueError: If the dtype is unknown.
        OSError: If the file cannot be made, or another run uses it.
    """

    def __init__(self,
                 num_rows: int,
                 num_tensors: int,
                 feat_dim: int,
                 path: str | Path | None = None,
                 dtype: str = 'float32',
                 squares: Sequence[int] = ()) -> None:
        self.codec = RowCodec(dtype, squares)
        record = np.dtype([('step_after', '<i8'), *self.codec.fields(num_tensors, feat_dim)])
        num_rows = max(num_rows, 1)
        self.num_bytes = num_rows * record.itemsize
        self.shape = (num_tensors, feat_dim)
        self._records: RecordFile | _RecordMemory = (
            _RecordMemory(num_rows, record) if path is None else
            RecordFile(num_rows, record, Path(path)))
        # Reading a page of memory that was never written would make the system allocate it.
        self._written = np.zeros(-(-num_rows // (8 * GROUP_ROWS)), dtype=np.uint8)

    def write(self, rows: np.ndarray, steps: np.ndarray, values: np.ndarray) -> None:
        """Store rows.

        Args:
            rows (np.ndarray): (R,) int64, distinct.
            steps (np.ndarray): (R,) int64, optimizer steps that the values are as of.
            values (np.ndarray): (R, P, d) float32.

        Raises:
            OSError: If the file cannot take them (full disk).
        """
        records = np.empty(len(rows), dtype=self._records.dtype)
        records['step_after'] = steps + 1  # 0, a fresh page, means never written
        for name, field in self.codec.encode(values).items():
            records[name] = field
        self._records.write(rows, records)
        groups = rows // GROUP_ROWS
        np.bitwise_or.at(self._written, groups // 8, (1 << (groups % 8)).astype(np.uint8))

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look rows up.

        Args:
            rows (np.ndarray): (R,) int64.

        Returns:
            tuple[np.ndarray, np.ndarray]: (R,) int64 steps, -1 for a row that was never written,
            and (R, P, d) float32 values, 0 for those.
        """
        steps = np.full(len(rows), -1, dtype=np.int64)
        values = np.zeros((len(rows), *self.shape), dtype=np.float32)
        there = self._maybe_written(rows)
        records = self._records.read(rows[there])
        steps[there] = records['step_after'] - 1
        values[there] = self._decode(records)
        return steps, values

    def prefetch(self, rows: np.ndarray) -> None:
        """Have the system read what the disk holds of rows (R,) int64; returns at once."""
        self._records.prefetch(rows[self._maybe_written(rows)])

    def written(self) -> Iterator[Rows]:
        """All rows that were written, in order: rows (R,), steps (R,), values (R, P, d) float32."""
        places = np.arange(8 * GROUP_ROWS)
        in_go = max(ITERATION_ROWS // len(places), 1)
        used = np.flatnonzero(self._written)
        for start in range(0, len(used), in_go):
            rows = (used[start:start + in_go, None] * len(places) + places).reshape(-1)
            rows = rows[rows < self._records.num_records]
            rows = rows[self._maybe_written(rows)]
            records = self._records.read(rows)
            inside = records['step_after'] > 0
            if inside.any():
                records = records[inside]
                yield rows[inside], records['step_after'] - 1, self._decode(records)

    def close(self) -> None:
        """Give the memory back, or remove the file."""
        self._records.close()

    def _maybe_written(self, rows: np.ndarray) -> np.ndarray:
        groups = rows // GROUP_ROWS
        return (self._written[groups // 8] >> (groups % 8).astype(np.uint8)) & 1 == 1

    def _decode(self, records: np.ndarray) -> np.ndarray:
        names = (records.dtype.names or ())[1:]
        return self.codec.decode({name: records[name] for name in names})


class _RecordMemory:
    """N records in memory that the system backs page by page."""

    def __init__(self, num_records: int, dtype: np.dtype) -> None:
        self.dtype, self.num_records = dtype, num_records
        self._mapping = _map_memory(num_records * dtype.itemsize)
        self._records: Any = np.frombuffer(self._mapping, dtype=dtype)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self._records[rows]

    def write(self, rows: np.ndarray, records: np.ndarray) -> None:
        self._records[rows] = records

    def prefetch(self, rows: np.ndarray) -> None:
        pass

    def close(self) -> None:
        self._records = None
        self._mapping.close()


def _map_memory(num_bytes: int) -> mmap.mmap:
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
