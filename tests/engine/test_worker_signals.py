# SPDX-License-Identifier: Apache-2.0
"""Which signals end a data worker."""
import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pic_plugin.engine.worker_signals import outlive


class Hanging(Dataset):
    """Its second sample never comes."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            time.sleep(600)
        return os.getpid()


@pytest.mark.skipif(not hasattr(signal, 'sigwaitinfo'), reason='Python does not say who signals')
def test_a_worker_that_hangs_is_ended_by_its_loader_and_no_other():
    loader = DataLoader(Hanging(), num_workers=1, prefetch_factor=1)
    started = []
    loader.worker_init_fn = started.append
    outlive(loader, (signal.SIGTERM, signal.SIGUSR1))
    iterator = iter(loader)
    worker = int(next(iterator))
    # From a process that is not the worker's parent.
    stranger = torch.multiprocessing.get_context('fork').Process(
        target=lambda: [os.kill(worker, number) for number in (signal.SIGTERM, signal.SIGUSR1)])
    stranger.start()
    stranger.join()
    time.sleep(0.5)
    os.kill(worker, 0)
    del iterator  # asks it to end, waits for five seconds, and terminates it
    end = time.monotonic() + 60
    while time.monotonic() < end and worker in [
            child.pid for child in torch.multiprocessing.active_children()]:
        time.sleep(0.1)  # torch 2.1 does not wait until it has ended
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_the_function_that_was_there_is_called_and_keeps_its_keywords():
    def first(worker_id, seed):
        raise ValueError(f'seed {seed} in worker {worker_id}')

    from functools import partial
    loader = DataLoader(Hanging(), num_workers=1, worker_init_fn=partial(first, seed=1))
    outlive(loader, (signal.SIGTERM, ))
    outlive(loader, (signal.SIGTERM, ))  # once is enough
    loader.worker_init_fn.keywords['seed'] = 2  # as a resumed run does
    with pytest.raises(ValueError, match='seed 2 in worker 0'):
        next(iter(loader))
