# SPDX-License-Identifier: Apache-2.0
"""Images that follow from their ids, and processes that have a cache of them."""
import os
import signal
import time

import numpy as np

from pic_plugin.datasets.decoding import Decoded
from pic_plugin.datasets.window_cache import WindowCache
from toys.processes import mount_small


def image(key, size=None):
    """Of which every pixel follows from the id."""
    generator = np.random.default_rng(key)
    height, width = size or generator.integers(3, 12, 2)
    return Decoded(generator.integers(0, 256, (height, width, 3), np.uint8),
                   (int(height) * 2, int(width) * 2))


def same(found, key, size=None):
    """Whether what was found is the image of an id."""
    expected = image(key, size)
    return np.array_equal(found.pixels, expected.pixels) and found.full_size == expected.full_size


def visit(cache, seed, failures):
    """Ask for images in random order, and put in those that are not there."""
    generator = np.random.default_rng(seed)
    for _ in range(1500):
        key = int(generator.integers(0, 40))
        found = cache.get(key)
        if found is None:
            cache.put(key, image(key))
        elif not same(found, key):
            failures.put(key)


def fill_two_caches():
    """Where each fits, and not both: what the second one said, or how many images both hold."""
    mount_small('size=8m')
    caches, size = [], (100, 100)
    for _ in range(2):
        try:
            caches.append(WindowCache(6_000_000, 400, folder='/mnt', image_bytes=30_000))
        except ValueError as error:
            return str(error)
    return [sum(cache.put(key, image(key, size)) for key in range(190)) for cache in caches]


def die_with_a_cache(folder, pipe, outlived):
    """Leave a cache's folder behind and, perhaps, a forked worker."""
    cache = WindowCache(1000, 5, folder=folder, image_bytes=16)
    worker = os.fork() if outlived else 0
    if outlived and not worker:
        time.sleep(60)
        os._exit(0)
    pipe.send((cache.folder, worker))
    os.kill(os.getpid(), signal.SIGKILL)
