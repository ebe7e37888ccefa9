# SPDX-License-Identifier: Apache-2.0
"""Archives that a process holds open, the least recently used ones being closed."""
from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MAX_OPEN = 128  # archives that a process holds open

_open: OrderedDict = OrderedDict()  # handle and how to close it, by archive
_lock = threading.Lock()


def close_archives() -> None:
    """Close what this process holds open."""
    while _open:
        _, (handle, close) = _open.popitem()
        close(handle)


def _after_fork() -> None:
    """A worker opens its own: LMDB's handles must not be shared between processes."""
    global _lock
    _lock = threading.Lock()  # another thread may have held the old one
    close_archives()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


def opened(archive: str, opener: Callable[[str], Any],
           close: Callable[[Any], None] = lambda handle: None) -> Any:
    """A handle of this process, the least recently used ones being closed."""
    with _lock:
        if archive not in _open:
            while len(_open) >= MAX_OPEN:
                _, (old, closer) = _open.popitem(last=False)
                closer(old)
            _open[archive] = (opener(archive), close)
        _open.move_to_end(archive)
        return _open[archive][0]
