# SPDX-License-Identifier: Apache-2.0
"""Images that follow from their ids, and a process that looks for them in a cache."""
import numpy as np

from pic_plugin.datasets.decoding import Decoded


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
