# SPDX-License-Identifier: Apache-2.0
"""Cache of decoded images for as long as the sampler's window shows them."""
from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pic_plugin.datasets.decoding import Decoded

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WAYS = 8  # places in the index that one image may take
FREE, WRITING = -1, -2
PASSES = 8  # the authors' window by their stride

_ENTRY = np.dtype([
    ('key', np.int64), ('offset', np.int64), ('num_bytes', np.int64), ('born', np.int64),
    ('uses', np.int32), ('height', np.int32), ('width', np.int32), ('channels', np.int32),
    ('full_height', np.int32), ('full_width', np.int32), ('type', 'S8')])
_STATE = np.dtype([('clock', np.int64), ('head', np.int64), ('tail', np.int64),
                   ('first', np.int64), ('count', np.int64), ('hits', np.int64)])


class WindowCache:
    """Images by id, in files that the loader workers of one process map into memory.

    Pixels lie in a ring of bytes in the order in which images were put in, which is that in which
    the window leaves them behind. An image is dropped when it has been asked for as often as the
    window shows it, or when as many requests have come as its windows have images, and its place
    is needed; one that finds no place is not taken in. So nothing that is still to be shown makes
    room for another, and a cache that is too small holds a part of the window.

    Args:
        max_bytes (int): Of pixels; the index takes 0.3 % more. The files are sparse.
        window_size (int, optional): Images in the sampler's window. Defaults to None, that of
            the SlidingWindowSampler.
        passes (int, optional): Times that the window shows an image, its size by its stride.
            Defaults to None, the SlidingWindowSampler's; 8 without one.
        image_bytes (int): Size of an image, of which the index has room for as many as fit into
            the cache; a smaller mean than this is not used to the full. Defaults to 32768, 128x85
            pixels.
        folder (str | Path, optional): For the files, removed when the process ends; one in memory
            (``/dev/shm``) or on a fast disk. Defaults to None, the system's for scratch files.

    Raises:
        ValueError: If a number is not positive, the folder has no room, or the system cannot lock
            parts of files.
    """

    def __init__(self, max_bytes: int, window_size: int | None = None, passes: int | None = None,
                 folder: os.PathLike | None = None, image_bytes: int = 32_768) -> None:
        given = dict(max_bytes=max_bytes, window_size=window_size, passes=passes,
                     image_bytes=image_bytes)
        for name, value in given.items():
            if value is not None and value < 1:
                raise ValueError(f'{name} of a cache must be at least 1, not {value}.')
        if fcntl is None:
            raise ValueError('the cache of decoded images needs a POSIX system: leave cache out.')
        place = folder or tempfile.gettempdir()
        free = shutil.disk_usage(place).free
        if max_bytes > free:
            # Writing to a mapped file on a full disk kills the process without a word.
            raise ValueError(f'a cache of {max_bytes / 2**30:.1f} GiB, and {place} has '
                             f'{free / 2**30:.1f} GiB free: choose another folder, or fewer '
                             'max_bytes.')
        self.max_bytes = int(max_bytes)
        self.window_size, self.passes = window_size, passes
        self.num_processes = 1
        self.num_entries = max(1, -(-self.max_bytes // image_bytes // WAYS)) * WAYS
        self.folder = Path(tempfile.mkdtemp(prefix='pic_window_cache_', dir=folder))
        weakref.finalize(self, _remove, self.folder, os.getpid())
        self._open('w+')
        self._entries['key'] = FREE
        self._state[...] = 0

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name[:1] != '_'}

    def __setstate__(self, state: dict) -> None:  # in a worker that was spawned
        self.__dict__.update(state)
        self._open('r+')

    def __deepcopy__(self, memo: dict) -> WindowCache:
        return self  # mmengine's subsets copy their pipeline

    def follow(self, window_size: int, passes: int, num_processes: int = 1) -> None:
        """Learn from the sampler what was not given; before workers have a copy.

        Args:
            window_size (int): Images in the sampler's window.
            passes (int): Times that the window shows an image.
            num_processes (int): That share the stream, each with a cache of its own.
        """
        self.window_size = self.window_size or window_size
        self.passes = self.passes or passes
        self.num_processes = num_processes

    def get(self, key: int) -> Decoded | None:
        """The image with an id, or None. The pixels are a copy."""
        self._state['clock'] += 1
        # Readers share the lock: without it another process could drop the image and write over it.
        with self._lock(shared=True):
            for slot in self._slots(key):
                entry = self._entries[slot]
                if entry['key'] != key:
                    continue
                shape = tuple(int(entry[name]) for name in ('height', 'width', 'channels'))
                start = int(entry['offset'])
                pixels = self._pixels[start:start + int(entry['num_bytes'])].copy()
                # Counts are for deciding what to drop: one lost to another process does no harm.
                self._entries['uses'][slot] += 1
                self._state['hits'] += 1
                dtype = np.dtype(entry['type'].decode())
                return Decoded(pixels.view(dtype).reshape(shape),
                               (int(entry['full_height']), int(entry['full_width'])))
        return None

    def put(self, key: int, image: Decoded) -> bool:
        """Take an image in, if there is room. Counts as its first showing.

        Returns:
            bool: Whether it was.

        Raises:
            ValueError: If the size of the window is not known.
        """
        if self.window_size is None:
            raise ValueError('cache needs window_size where no SlidingWindowSampler says it.')
        pixels = np.ascontiguousarray(image.pixels)
        if pixels.nbytes == 0 or pixels.nbytes > self.max_bytes:
            return False
        with self._lock():
            slot = self._reserve(key, pixels.nbytes)
            if slot is None:
                return False
            entry = self._entries[slot]
            entry['height'], entry['width'], entry['channels'] = pixels.shape
            entry['full_height'], entry['full_width'] = image.full_size
            entry['type'] = pixels.dtype.str.encode()
            start = int(entry['offset'])
            # Under the lock: a process that was held up here could write over an image that got
            # this place after its own had been dropped as too old.
            self._pixels[start:start + pixels.nbytes] = pixels.reshape(-1).view(np.uint8)
            entry['key'] = key
        return True

    @property
    def hits(self) -> int:
        """Requests that were answered, by all workers together."""
        return int(self._state['hits'])

    @property
    def num_images(self) -> int:
        """Images held now, those included whose time is over."""
        return int((self._entries['key'] >= 0).sum())

    def _reserve(self, key: int, num_bytes: int) -> int | None:
        """A slot and a stretch of the ring, or None; under the lock."""
        slots = list(self._slots(key))
        if any(self._entries['key'][slot] == key for slot in slots):
            return None  # another worker was faster
        while True:
            free = [slot for slot in slots if self._entries['key'][slot] == FREE]
            start = self._place(num_bytes)
            if free and start is not None and self._state['count'] < self.num_entries:
                break
            if not self._drop_oldest():
                return None
        slot = free[0]
        state, entry = self._state, self._entries[slot]
        entry['offset'], entry['num_bytes'] = start, num_bytes
        entry['born'], entry['uses'] = state['clock'], 1
        entry['key'] = WRITING
        self._order[(state['first'] + state['count']) % self.num_entries] = slot
        state['count'] += 1
        state['head'] = start + num_bytes
        return slot

    def _place(self, num_bytes: int) -> int | None:
        """Start of a free stretch of the ring, which pixels never wrap around in."""
        head, tail = int(self._state['head']), int(self._state['tail'])
        if self._state['count'] == 0:
            return 0
        if head > tail:  # used: tail to head
            if head + num_bytes <= self.max_bytes:
                return head
            return 0 if num_bytes <= tail else None
        return head if head + num_bytes <= tail else None  # used: tail to the end, and up to head

    def _drop_oldest(self) -> bool:
        """Drop the image that came first, if its time is over."""
        state = self._state
        if state['count'] == 0:
            return False
        assert self.window_size is not None, 'put has made sure'
        passes = self.passes or PASSES
        slot = self._order[state['first']]
        entry = self._entries[slot]
        # Of the requests meanwhile the other processes get their share.
        max_age = self.window_size * passes // self.num_processes
        if entry['uses'] < passes and state['clock'] - entry['born'] <= max_age:
            return False
        entry['key'] = FREE
        state['first'] = (state['first'] + 1) % self.num_entries
        state['count'] -= 1
        if state['count']:
            state['tail'] = self._entries['offset'][self._order[state['first']]]
        return True

    def _slots(self, key: int) -> range:
        first = key % (self.num_entries // WAYS) * WAYS
        return range(first, first + WAYS)

    def _open(self, mode: Any) -> None:
        def file(name: str, dtype: Any, shape: Any) -> np.memmap:
            return np.memmap(self.folder / name, dtype, mode, shape=shape)

        self._pixels = file('pixels', np.uint8, (self.max_bytes, ))
        self._entries = file('entries', _ENTRY, (self.num_entries, ))
        self._order = file('order', np.int64, (self.num_entries, ))
        self._state = file('state', _STATE, (1, ))[0:1].reshape(())
        self._lock_file = open(self.folder / 'state', 'r+b')

    @contextmanager
    def _lock(self, shared: bool = False) -> Iterator[None]:
        # POSIX locks belong to a process, so that forked workers exclude each other too.
        fcntl.lockf(self._lock_file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)


def caches_of(dataset: Any) -> Iterator[WindowCache]:
    """Caches of the transforms of a data set, or of those that it wraps."""
    for part in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
        if part is not None:
            yield from caches_of(part)
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if isinstance(getattr(transform, 'cache', None), WindowCache):
            yield transform.cache


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not in a forked worker
        shutil.rmtree(folder, ignore_errors=True)
