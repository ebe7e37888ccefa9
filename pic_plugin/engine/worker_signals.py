# SPDX-License-Identifier: Apache-2.0
"""Data workers that live on when a signal is sent to the whole job.

``timeout``, Slurm's warning and a terminal send signals to all processes of a job. torch's data
workers end at it, before the training has had its last batches from them.
"""
from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import DataLoader


def outlive(loader: DataLoader, signals: Sequence[int]) -> None:
    """Let workers that the loader starts from now on leave signals to the training process.

    SIGTERM from the training process itself still ends them: so torch ends workers that hang.

    Args:
        loader (DataLoader): Its ``worker_init_fn`` is wrapped.
        signals (sequence[int]): Numbers of signals.
    """
    if not isinstance(loader.worker_init_fn, _Init):
        loader.worker_init_fn = _Init(loader.worker_init_fn, signals)


class _Init:
    """Runs in a worker, after torch has installed its handlers there."""

    def __init__(self, first: Callable[[int], Any] | None, signals: Sequence[int]) -> None:
        self.first = first
        self.signals = tuple(signals)

    @property
    def keywords(self) -> dict[str, Any]:
        """Of mmengine's function, a partial one, to which a resumed run gives its seed."""
        return getattr(self.first, 'keywords', {})

    def __call__(self, worker_id: int) -> None:
        for number in self.signals:
            if number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
            # Elsewhere than on Linux Python does not say who has sent a signal.
            elif hasattr(signal, 'sigwaitinfo'):
                # Threads that start later have the mask as well: it waits for the one below.
                signal.pthread_sigmask(signal.SIG_BLOCK, {number})
                threading.Thread(target=_end_with, args=(os.getppid(), ), daemon=True).start()
        if self.first is not None:
            self.first(worker_id)


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as torch's handler does
