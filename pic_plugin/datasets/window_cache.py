# SPDX-License-Identifier: Apache-2.0
"""Cache of decoded images for as long as the sampler's window shows them."""
from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from pic_plugin.datasets.decoding import Decoded

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WAYS = 8  # places in the index that one image may take
FREE, WRITING = -1, -2
PASSES = 8  # the authors' window by their stride
PREFIX = 'pic_window_cache_'  # of names of folders

_ENTRY = np.dtype([
    ('key', np.int64), ('offset', np.int64), ('num_bytes', np.int64), ('born', np.int64),
    ('uses', np.int32), ('height', np.int32), ('width', np.int32), ('channels', np.int32),
    ('full_height', np.int32), ('full_width', np.int32), ('type', 'S8')])
_STATE = np.dtype([('clock', np.int64), ('head', np.int64), ('tail', np.int64),
                   ('first', np.int64), ('count', np.int64), ('hits', np.int64),
                   ('window_size', np.int64), ('passes', np.int64), ('num_processes', np.int64)])


class WindowCache:
    """Images by id, in files that the loader workers of one process map into memory.

    Pixels lie in a ring of bytes in the order in which images were put in, which is that in which
    the window leaves them behind. An image is dropped when it has been asked for as often as the
    window shows it, or when as many requests have come as its windows have images, and its place
    is needed; one that finds no place is not taken in. So nothing that is still to be shown makes
    room for another, and a cache that is too small holds a part of the window.

    Args:
        max_bytes (int): Of pixels, which are taken at once; the index takes 0.3 % more.
        window_size (int, optional): Images in the sampler's window. Defaults to None, that of
            the SlidingWindowSampler.
        passes (int, optional): Times that the window shows an image, its size by its stride.
            Defaults to None, the SlidingWindowSampler's; 8 without one.
        image_bytes (int): Size of an image, of which the index has room for as many as fit into
            the cache; a smaller mean than this is not used to the full. Defaults to 32768, 128x85
            pixels.
        folder (str | Path, optional): For the files; one in memory (``/dev/shm``) or on a fast
            disk. They are removed when the process ends; if it is killed, by the next cache there.
            Defaults to None, the system's for scratch files.

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
        _remove_left_behind(place)
        self.max_bytes = int(max_bytes)
        self.given = dict(window_size=window_size, passes=passes)
        self.num_entries = max(1, -(-self.max_bytes // image_bytes // WAYS)) * WAYS
        self.folder, self._owner_lock = _make_folder(place)
        weakref.finalize(self, _remove, self.folder, os.getpid())
        self._take_space(place)
        self._open()
        self._entries['key'] = FREE
        self.follow(0, 0)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name[:1] != '_'}

    def __setstate__(self, state: dict) -> None:  # in a worker that was spawned
        self.__dict__.update(state)
        self._open()

    def __deepcopy__(self, memo: dict) -> WindowCache:
        return self  # mmengine's subsets copy their pipeline

    def follow(self, window_size: int, passes: int, num_processes: int = 1) -> None:
        """Learn from the sampler what was not given; workers learn it too.

        Args:
            window_size (int): Images in the sampler's window.
            passes (int): Times that the window shows an image.
            num_processes (int): That share the stream, each with a cache of its own.
        """
        # In the file: workers may have started before the size of the window was settled.
        self._state['window_size'] = self.given['window_size'] or window_size
        self._state['passes'] = self.given['passes'] or passes
        self._state['num_processes'] = num_processes

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
        if not self._state['window_size']:
            raise ValueError('cache needs window_size, as no SlidingWindowSampler gives it.')
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
        if not state['count']:
            state['tail'] = start
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
        passes = state['passes'] or PASSES
        slot = self._order[state['first']]
        entry = self._entries[slot]
        # Of the requests meanwhile the other processes get their share.
        max_age = state['window_size'] * passes // state['num_processes']
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

    def _files(self) -> dict[str, tuple[Any, int]]:
        """Type and number of what each file holds."""
        return dict(pixels=(np.dtype(np.uint8), self.max_bytes),
                    entries=(_ENTRY, self.num_entries), state=(_STATE, 1),
                    order=(np.dtype(np.int64), self.num_entries))

    def _take_space(self, place: Any) -> None:
        """Take the room for all that will be written, in ``/dev/shm`` too, where it is memory.

        Writing to a mapped file on a full disk kills the process without a word, and what is free
        now may go to another cache, or to anything else, before this one is full.
        """
        free = shutil.disk_usage(place).free
        try:
            if self.max_bytes > free:
                raise OSError(errno.ENOSPC, '')
            for name, (dtype, count) in self._files().items():
                with open(self.folder / name, 'wb') as file:
                    file.truncate(dtype.itemsize * count)
                    _allocate(file, dtype.itemsize * count)
        except OSError as error:
            _remove(self.folder, os.getpid())
            if error.errno != errno.ENOSPC:
                raise
            raise ValueError(f'a cache of {self.max_bytes / 2**30:.1f} GiB, and {place} has '
                             f'{free / 2**30:.1f} GiB free: choose another folder, or lower '
                             'max_bytes. Each process has a cache of its own.') from None

    def _open(self) -> None:
        self._pixels, self._entries, state, self._order = (
            np.memmap(self.folder / name, dtype, 'r+', shape=(count, ))
            for name, (dtype, count) in self._files().items())
        self._state = state[0:1].reshape(())
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


def _make_folder(place: Any) -> tuple[Path, IO]:
    """A new folder, and the file whose lock says that it is in use.

    A lock by ``flock`` belongs to an open file, and so to forked workers too: of a process that was
    killed, they keep the folder until they have ended themselves.
    """
    folder = Path(tempfile.mkdtemp(prefix=f'new_{PREFIX}', dir=place))
    lock = open(folder / 'owner', 'wb')
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Under its name only now: nobody is to find a folder that has no lock yet.
    return folder.rename(folder.with_name(folder.name[len('new_'):])), lock


def _remove_left_behind(place: Any) -> None:
    """Remove folders of processes that were killed."""
    for path in Path(place).glob(f'{PREFIX}*/owner'):
        try:
            with open(path, 'r+b') as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
        except OSError:
            continue  # in use, of another user, or just removed


def _allocate(file: IO, num_bytes: int) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except AttributeError:  # macOS
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not in a forked worker
        shutil.rmtree(folder, ignore_errors=True)
