# SPDX-License-Identifier: Apache-2.0
"""Time and memory of this process."""
from __future__ import annotations

import os
import re
import time
from pathlib import Path

from torch import Tensor, cuda

MB = 2**20


def now(tensor: Tensor) -> float:
    """Seconds; on a GPU when all work so far is done."""
    if tensor.is_cuda:
        cuda.synchronize(tensor.device)
    return time.perf_counter()


def resident_bytes(key: str = 'VmRSS') -> int:
    """Memory of this process, bytes.

    Args:
        key (str): 'VmRSS' for now, 'VmHWM' for the peak. Defaults to 'VmRSS'.

    Returns:
        int: Bytes; 0 where the system does not tell (other than Linux).
    """
    status = Path('/proc/self/status')
    found = status.exists() and re.search(rf'^{key}:\s+(\d+) kB', status.read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def forget_peak() -> None:
    """Let the peak of memory begin anew, where the system can (Linux)."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        pass


def drop_from_cache(path: Path) -> None:
    """Write a file out and take it from the system's page cache, so that it is read from disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        if hasattr(os, 'posix_fadvise'):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
