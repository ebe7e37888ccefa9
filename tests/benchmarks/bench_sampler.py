# SPDX-License-Identifier: Apache-2.0
"""Start time, peak memory and speed of SlidingWindowSampler against the size of the data set.

    python tests/benchmarks/bench_sampler.py

One rank of one process; the columns `of 64` are those of rank 5 of 64. Memory is what Python and
numpy allocate from construction to the 100,000th index.
"""
import collections
import itertools
import platform
import time
import tracemalloc

import numpy as np
from mmengine.logging import MMLogger

from pic_plugin.datasets import SlidingWindowSampler

NUM_INDICES = 2000000
WINDOWS = [(131072, 16384), (1024, 128)]


def make_sampler(num_images, window_size, stride, rank=0, world_size=1):
    sampler = SlidingWindowSampler(range(num_images), window_size, stride, seed=0)
    sampler.rank, sampler.world_size = rank, world_size
    return sampler


def measure_start(*run):
    """Milliseconds from construction to the first index."""
    begin = time.perf_counter()
    next(iter(make_sampler(*run)))
    return (time.perf_counter() - begin) * 1e3


def measure_memory(*run):
    """Peak in MB."""
    tracemalloc.start()
    collections.deque(itertools.islice(make_sampler(*run), 100000), maxlen=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure_speed(*run):
    """Million indices a second through a Python for loop."""
    sampler = make_sampler(*run)
    count = 0
    begin = time.perf_counter()
    while count < NUM_INDICES:
        for _ in itertools.islice(sampler, NUM_INDICES - count):
            count += 1
        sampler.set_epoch(sampler.epoch + 1)
    return count / (time.perf_counter() - begin) / 1e6


def main():
    MMLogger.get_current_instance().setLevel('WARNING')  # the notice would cut the table
    print(f'Python {platform.python_version()}, numpy {np.__version__}')
    print(f'{"images":>12} {"window":>8} {"stride":>7} {"start ms":>9} {"peak MB":>8} '
          f'{"M idx/s":>8} {"of 64":>8}')
    for window_size, stride in WINDOWS:
        for num_images in (10**5, 10**6, 10**7, 10**8, 10**9):
            run = (num_images, window_size, stride)
            print(f'{num_images:>12} {window_size:>8} {stride:>7} {measure_start(*run):>9.2f} '
                  f'{measure_memory(*run):>8.2f} {measure_speed(*run):>8.2f} '
                  f'{measure_speed(*run, 5, 64):>8.2f}', flush=True)


if __name__ == '__main__':
    main()
