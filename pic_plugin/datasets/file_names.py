# SPDX-License-Identifier: Apache-2.0
"""Names of files as the bytes that they are: how to print, hash and keep millions of them."""
from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator

import numpy as np

CHUNK = 65536  # names joined at a time


def printable(name: str | bytes | os.PathLike) -> str:
    r"""A name for logs and figures: bytes that are not UTF-8 as ``\xe9``.

    Python stands such bytes in a str for by surrogates, which no stream and no font takes.
    """
    return os.fsencode(name).decode('utf-8', 'backslashreplace')


def hash_names(names: Iterable[bytes]) -> np.ndarray:
    """(N,) int64, BLAKE2b of 8 bytes of each name.

    Two of ten million different names have the same number with a probability of 3e-6.
    """
    digests = b''.join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype='<i8').astype(np.int64)


class NameList:
    """Names in one array of bytes, which forked workers share and no garbage collector walks.

    A name is ``buffer[starts[i]:ends[i]]``: a list's file is the buffer itself.

    Args:
        buffer (np.ndarray): (B,) uint8.
        starts (np.ndarray): (N,) int64 place of the first byte of each name.
        ends (np.ndarray): (N,) int64 place after its last.
    """

    def __init__(self, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.buffer, self.starts, self.ends = buffer, starts, ends

    @classmethod
    def of(cls, names: Iterable[bytes]) -> NameList:
        """Gather names from anything that yields them."""
        parts: list[bytes] = []
        lengths: list[np.ndarray] = []
        chunk: list[bytes] = []

        def close() -> None:
            parts.append(b''.join(chunk))
            lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
            chunk.clear()

        for name in names:
            chunk.append(name)
            if len(chunk) == CHUNK:
                close()
        close()
        ends = np.concatenate(lengths).cumsum()
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        return cls(np.frombuffer(b''.join(parts), np.uint8), starts.astype(np.int64), ends)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        return self.buffer[self.starts[index]:self.ends[index]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(0, len(self), CHUNK):
            starts = self.starts[begin:begin + CHUNK].tolist()
            ends = self.ends[begin:begin + CHUNK].tolist()
            for start, end in zip(starts, ends):
                yield self.buffer[start:end].tobytes()
