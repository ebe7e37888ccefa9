# SPDX-License-Identifier: Apache-2.0
"""The cache of decoded images: what it returns, holds and drops, in one process and in several."""
import copy
import errno
import multiprocessing
import os
import pickle
import signal
import time
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest

from pic_plugin.datasets import DecodeRandomCrop, SlidingWindowSampler
from pic_plugin.datasets.decoding import Decoded
from pic_plugin.datasets.window_cache import WindowCache
from toys.cached_images import die_with_a_cache, fill_two_caches, image, same, visit
from toys.processes import run_alone, start_process


def test_what_comes_out_is_what_went_in(tmp_path):
    cache = WindowCache(100_000, 50, folder=tmp_path, image_bytes=16)
    assert cache.get(3) is None
    for key in range(40):
        assert cache.put(key, image(key))
    assert all(same(cache.get(key), key) for key in range(40))
    assert cache.hits == cache.num_images == 40
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    cache.put(77, Decoded(values, (3, 4)))
    np.testing.assert_array_equal(cache.get(77).pixels, values)
    changed = cache.get(5).pixels
    changed[:] = 0
    assert same(cache.get(5), 5), 'pixels are a copy'


@pytest.mark.parametrize('capacity', [1.2, 0.5, 0.1])
def test_the_window_is_decoded_once_if_it_fits(tmp_path, capacity):
    size, passes = (8, 8), 8
    num_bytes = 8 * 8 * 3
    sampler = SlidingWindowSampler(range(4000), 256, 32, seed=0)
    # Images leave in the order in which they came, so that two windows are needed for all of them.
    cache = WindowCache(int(capacity * 2 * 256 * num_bytes), 256, passes, tmp_path, image_bytes=96)
    decoded, held = 0, 0
    for key in list(sampler)[:4000]:
        found = cache.get(key)
        if found is None:
            decoded += 1
            cache.put(key, image(key, size))
        else:
            assert same(found, key, size)
        held = max(held, cache.num_images)
    assert held * num_bytes <= cache.max_bytes
    shown = 4000
    distinct = len(set(list(sampler)[:4000]))
    if capacity > 1:
        assert decoded <= 1.15 * distinct, 'each image once'
    # Less room, fewer hits, in proportion: not none, as with the oldest thrown out.
    assert (shown - decoded) > 0.6 * min(capacity, 1) * (shown - distinct)


@pytest.mark.parametrize('num_processes', [1, 3])
def test_the_sampler_says_how_long(tmp_path, num_processes, monkeypatch):
    """Also to one of several processes, each of which meets an image in a part of its visits."""
    monkeypatch.setattr('pic_plugin.datasets.sliding_window_sampler.get_dist_info',
                        lambda: (0, num_processes))
    size, num_bytes = (8, 8), 8 * 8 * 3
    crop = DecodeRandomCrop(8, cache=dict(short_edge=8, max_bytes=2 * 256 * num_bytes,
                                          folder=tmp_path, image_bytes=96))
    leaf = Namespace(pipeline=Namespace(transforms=[Namespace(), crop]))
    with pytest.raises(ValueError, match='cache needs window_size, as no'):
        crop.cache.put(0, image(0, size))

    class Joined(list):
        datasets = [leaf]

    keys = list(SlidingWindowSampler(Joined(range(40000)), 256, 16, seed=0))
    hits = 0
    for key in keys:
        found = crop.cache.get(key)
        hits += found is not None
        if found is None:
            crop.cache.put(key, image(key, size))
    assert crop.cache._state['passes'] == 16
    # Room for two windows is enough, with several processes too.
    assert hits > 0.9 * (len(keys) - len(set(keys)))


def test_it_follows_a_window_that_is_settled_later(tmp_path):
    """Of workers that have begun, each holds a copy of what the transform was then."""
    crop = DecodeRandomCrop(8, cache=dict(short_edge=8, max_bytes=1000, folder=tmp_path,
                                          image_bytes=96))
    given = DecodeRandomCrop(8, cache=dict(short_edge=8, max_bytes=1000, folder=tmp_path,
                                           image_bytes=96, window_size=7, passes=3))

    class Images(list):
        pipeline = Namespace(transforms=[crop, given])

    def window(cache):
        return int(cache._state['window_size']), int(cache._state['passes'])

    sampler = SlidingWindowSampler(Images(range(4000)), seed=0)
    worker = pickle.loads(pickle.dumps(crop.cache))
    assert window(worker) == (400, 8)
    sampler.set_global_batch(256)
    assert window(worker) == (1024, 8)
    sampler.load_state_dict(dict(seed=0, window_size=500, stride=50))
    assert window(worker) == (500, 10) and window(given.cache) == (7, 3)


def test_an_image_is_dropped_when_its_time_is_over(tmp_path):
    cache = WindowCache(3 * 300, window_size=10, passes=2, folder=tmp_path, image_bytes=16)
    for key in (1, 2, 3):
        assert cache.put(key, image(key, (10, 10)))
    assert not cache.put(4, image(4, (10, 10))), 'all three are still to be shown'
    assert same(cache.get(1), 1, (10, 10))  # its second and last showing
    assert cache.put(4, image(4, (10, 10)))
    assert cache.get(1) is None
    assert not cache.put(5, image(5, (10, 10)))
    for _ in range(20):
        cache.get(99)  # two windows pass
    assert cache.put(5, image(5, (10, 10)))
    assert cache.get(2) is None and same(cache.get(5), 5, (10, 10))


@pytest.mark.parametrize('passes', [1, 3])  # with one the cache is often left with no image
def test_random_sizes_against_a_dictionary(tmp_path, passes):
    """Nothing is ever wrong, whatever wraps around the end of the ring."""
    generator = np.random.default_rng(1)
    cache = WindowCache(4000, window_size=5, passes=passes, folder=tmp_path, image_bytes=16)
    known = OrderedDict()
    hits = 0
    for _ in range(6000):
        key = int(generator.integers(0, 60))
        size = tuple(generator.integers(1, 30, 2))
        found = cache.get(key)
        if found is not None:
            assert same(found, key, known[key])
            hits += 1
        elif cache.put(key, image(key, size)):
            known[key] = size
        ranges = sorted((int(e['offset']), int(e['offset'] + e['num_bytes']))
                        for e in cache._entries if e['key'] >= 0)
        assert all(a[1] <= b[0] for a, b in zip(ranges, ranges[1:])), 'images overlap'
        assert not ranges or ranges[-1][1] <= 4000
    assert hits > 500


def test_too_large_or_empty_is_not_taken(tmp_path):
    cache = WindowCache(100, 5, folder=tmp_path, image_bytes=16)
    assert not cache.put(1, image(1, (10, 10)))
    assert not cache.put(2, Decoded(np.zeros((0, 4, 3), np.uint8), (0, 4)))
    assert cache.put(3, image(3, (5, 5))) and not cache.put(3, image(3, (5, 5)))


@pytest.mark.parametrize('start', ['fork', 'forkserver'])
def test_workers_share_it(tmp_path, start):
    context = multiprocessing.get_context(start)
    cache = WindowCache(3000, window_size=10, passes=4, folder=tmp_path, image_bytes=16)
    failures = context.Queue()
    workers = [context.Process(target=visit, args=(cache, seed, failures)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert failures.empty(), 'pixels of another image'
    assert cache.hits > 100


class Stalled:
    """Pixels that are read only once another process has replaced them, if it can."""

    def __init__(self, pixels, reading, replaced):
        self.pixels, self.reading, self.replaced = pixels, reading, replaced

    def __getitem__(self, place):
        self.reading.set()
        self.replaced.wait(0.5)
        return self.pixels[place]


def replace(cache, reading, replaced):
    """Drop image 1, put image 2 in its place, and image 1 behind it."""
    assert reading.wait(60)
    cache.put(2, image(2, (10, 10)))
    # Another process that was held up between reading and writing it sets the clock back.
    cache._state['clock'] = 0
    cache.put(1, image(1, (9, 9)))
    replaced.set()


def test_an_image_is_not_replaced_while_it_is_read(tmp_path):
    context = multiprocessing.get_context('fork')
    cache = WindowCache(560, window_size=10, passes=1, folder=tmp_path, image_bytes=16)
    cache.put(1, image(1, (10, 10)))
    reading, replaced = context.Event(), context.Event()
    other = context.Process(target=replace, args=(cache, reading, replaced))
    other.start()
    pixels, cache._pixels = cache._pixels, Stalled(cache._pixels, reading, replaced)
    assert same(cache.get(1), 1, (10, 10))
    cache._pixels = pixels
    other.join()
    assert other.exitcode == 0 and replaced.is_set()
    assert same(cache.get(2), 2, (10, 10)) and same(cache.get(1), 1, (9, 9))


def test_files_are_removed_with_their_owner_alone(tmp_path):
    cache = WindowCache(1000, 5, folder=tmp_path, image_bytes=16)
    other = pickle.loads(pickle.dumps(cache))
    cache.put(1, image(1, (5, 5)))
    assert same(other.get(1), 1, (5, 5))
    assert copy.deepcopy(cache) is cache
    del other
    assert same(cache.get(1), 1, (5, 5))
    folder = cache.folder
    del cache
    assert not folder.exists()


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match='at least 1'):
        WindowCache(0, 5, folder=tmp_path, image_bytes=16)
    # A page of a file that the disk has no room for kills the process that writes it.
    with pytest.raises(ValueError, match='cache of .* GiB, and .* has .* GiB free: choose'):
        WindowCache(2**60, 5, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_that_do_not_fit_beside_each_other(tmp_path):
    """Writing to a mapped file on a full disk would kill the process."""
    result = run_alone(fill_two_caches)
    if 'CannotMount' in result:
        pytest.skip('this system lets no user mount: the full disk cannot be made')
    assert 'a cache of 0.0 GiB, and /mnt has 0.0 GiB free: choose another folder' in result


def test_its_space_is_taken_at_once(tmp_path, monkeypatch):
    cache = WindowCache(3_000_000, 5, folder=tmp_path)
    assert os.stat(cache.folder / 'pixels').st_blocks * 512 >= 3_000_000
    del cache

    def refuse(number):
        def posix_fallocate(*args):
            raise OSError(number, os.strerror(number))
        monkeypatch.setattr(os, 'posix_fallocate', posix_fallocate)

    refuse(errno.EOPNOTSUPP)  # by file systems that only grow by writing
    assert WindowCache(1000, 5, folder=tmp_path, image_bytes=16).put(1, image(1, (5, 5)))
    refuse(errno.ENOSPC)
    with pytest.raises(ValueError, match='free: choose another folder, or lower max_bytes'):
        WindowCache(1000, 5, folder=tmp_path, image_bytes=16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('outlived', [False, True])
def test_a_folder_that_was_left_behind_is_removed(tmp_path, outlived):
    living = WindowCache(1000, 5, folder=tmp_path, image_bytes=16)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = start_process(die_with_a_cache, tmp_path, theirs, outlived)
    left, worker = ours.recv()
    process.join()
    assert process.exitcode == -signal.SIGKILL and left.exists()
    if outlived:
        WindowCache(1000, 5, folder=tmp_path, image_bytes=16)
        assert left.exists(), 'a worker still has it'
        os.kill(worker, signal.SIGKILL)
        while os.path.exists(f'/proc/{worker}') and left.exists():
            WindowCache(1000, 5, folder=tmp_path, image_bytes=16)
            time.sleep(0.05)
    WindowCache(1000, 5, folder=tmp_path, image_bytes=16)
    assert [living.folder] == list(tmp_path.iterdir())
