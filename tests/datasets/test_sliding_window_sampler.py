# SPDX-License-Identifier: Apache-2.0
"""SlidingWindowSampler: against a stream of Python lists, and its behaviour in mmengine."""
import itertools
import logging
import tracemalloc
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from pic_plugin.datasets import SlidingWindowSampler, sliding_window_sampler
from pic_plugin.datasets.permutation import derive_keys, permute
from pic_plugin.datasets.sliding_window_sampler import (
    CHUNK,
    PASS_ORDER,
    WINDOW_ORDER,
    default_window,
)
from toys.processes import command, run_alone, run_ranks


class Images(Dataset):
    """N images, image i being the number i."""

    def __init__(self, num_images):
        self.num_images = num_images

    def __len__(self):
        return self.num_images

    def __getitem__(self, index):
        return index


def make_sampler(num_images, window_size, stride, rank=0, world_size=1, epoch=0, **kwargs):
    # Which process this is; the real thing is test_processes_share_out_one_stream.
    with mock.patch.object(sliding_window_sampler, 'get_dist_info', lambda: (rank, world_size)):
        sampler = SlidingWindowSampler(Images(num_images), window_size, stride, **kwargs)
    sampler.set_epoch(epoch)
    return sampler


def read_stream(num_images, window_size, stride, num_epochs, **kwargs):
    sampler = make_sampler(num_images, window_size, stride, **kwargs)
    stream = []
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        stream += list(sampler)
    return stream


def read_windows(num_images, window_size, stride, num_windows, **kwargs):
    num_epochs = -(-num_windows * window_size // num_images)
    stream = read_stream(num_images, window_size, stride, num_epochs, **kwargs)
    return [stream[k * window_size:(k + 1) * window_size] for k in range(num_windows)]


def list_order(size, seed, purpose, number):
    """A whole permutation, as a list."""
    key = derive_keys(seed, purpose, np.array([number], np.uint64))
    return permute(np.arange(size, dtype=np.uint64), size, np.repeat(key, size)).tolist()


def list_stream(num_images, window_size, stride, seed, reshuffle, length):
    """The first ``length`` positions of the window stream, the slow and obvious way."""
    window_size, stride = min(window_size, num_images), min(stride, num_images)
    image_stream, window_stream = [], []
    for window in itertools.count():
        if len(window_stream) >= length:
            return window_stream[:length]
        while len(image_stream) < window * stride + window_size:
            pass_number = len(image_stream) // num_images if reshuffle else 0
            image_stream += list_order(num_images, seed, PASS_ORDER, pass_number)
        members = image_stream[window * stride:window * stride + window_size]
        order = list_order(window_size, seed, WINDOW_ORDER, window)
        window_stream += [members[place] for place in order]


@st.composite
def settings_of_a_run(draw):
    num_images = draw(st.one_of(st.integers(1, 20), st.integers(1, 300)))
    window_size = draw(st.integers(1, num_images + 20))
    return dict(num_images=num_images, window_size=window_size,
                stride=draw(st.integers(max(1, window_size // 8), window_size)),
                seed=draw(st.integers(0, 2**31)), reshuffle=draw(st.booleans()))


@given(run=settings_of_a_run(), epoch=st.integers(0, 5), world_size=st.integers(1, 5),
       round_up=st.booleans())
@settings(deadline=None, max_examples=150)
def test_ranks_share_out_the_list_stream(run, epoch, world_size, round_up):
    num_images = run['num_images']
    start, stop = epoch * num_images, (epoch + 1) * num_images
    if round_up:
        stop = start + -(-num_images // world_size) * world_size
    stream = list_stream(length=stop, **run)
    for rank in range(world_size):
        sampler = make_sampler(rank=rank, world_size=world_size, epoch=epoch, round_up=round_up,
                               **run)
        expected = [stream[p] for p in range(start, stop) if p % world_size == rank]
        assert list(sampler) == expected
        assert len(sampler) == len(expected)


@pytest.mark.parametrize('world_size', [1, 3])
def test_list_stream_over_several_chunks(world_size):
    run = dict(num_images=3 * CHUNK + 5, window_size=5000, stride=700, seed=3)
    stream = list_stream(length=2 * run['num_images'] + world_size, reshuffle=True, **run)
    for rank in range(world_size):
        sampler = make_sampler(rank=rank, world_size=world_size, epoch=1, **run)
        indices = list(sampler)
        first = next(p for p in itertools.count(run['num_images']) if p % world_size == rank)
        assert indices == stream[first:first + len(indices) * world_size:world_size]
        assert len(indices) == -(-run['num_images'] // world_size)


def test_stream_is_pinned():
    # A change would change the images of every resumed run; both numpy 1.26 and 2.x give these.
    assert list(make_sampler(10, 4, 2, seed=7, epoch=1)) == [2, 9, 9, 0, 8, 2, 0, 8, 2, 7]
    sampler = make_sampler(1281167, 131072, 16384, seed=7, epoch=100)
    assert list(itertools.islice(sampler, 5)) == [1072433, 404075, 250303, 97525, 1206577]


@pytest.mark.parametrize('num_images', [96, 480])
@pytest.mark.parametrize('window_size, stride', [(24, 8), (96, 24), (32, 32), (12, 1)])
def test_windows_slide(num_images, window_size, stride):
    in_one_pass = (num_images - window_size) // stride + 1
    windows = read_windows(num_images, window_size, stride, in_one_pass, seed=5)
    for window in windows:
        assert len(set(window)) == window_size
    for window, following in zip(windows, windows[1:]):
        assert len(set(window) & set(following)) == window_size - stride
    assert all(window != sorted(window) for window in windows)
    assert len({tuple(np.argsort(window)) for window in windows}) == len(windows)


@pytest.mark.parametrize('num_images, window_size, stride',
                         [(96, 24, 8), (480, 96, 16), (60, 60, 5)])
def test_each_image_is_visited_window_over_stride_times(num_images, window_size, stride):
    windows = read_windows(num_images, window_size, stride, num_images // stride, seed=5,
                           reshuffle=False)
    visits = np.bincount(np.concatenate(windows), minlength=num_images)
    assert visits.tolist() == [window_size // stride] * num_images


def test_reshuffle_draws_a_new_order_for_each_pass():
    # With stride = window = N each window is one pass.
    passes = read_windows(200, 200, 200, 3, seed=5)
    assert all(sorted(one_pass) == list(range(200)) for one_pass in passes)
    # Windows of one image keep the order of the image stream.
    stream = read_stream(50, 1, 1, 3, seed=5)
    assert sorted(stream[:50]) == sorted(stream[50:100]) == list(range(50))
    assert stream[:50] != stream[50:100] != stream[100:]
    stream = read_stream(50, 1, 1, 3, seed=5, reshuffle=False)
    assert stream[:50] == stream[50:100] == stream[100:]


@given(run=settings_of_a_run())
@settings(deadline=None, max_examples=30)
def test_without_reshuffle_straddling_windows_are_distinct_too(run):
    run['reshuffle'] = False
    sampler = make_sampler(**run)
    stream = read_stream(num_epochs=4, **run)
    size = sampler.window_size
    for start in range(0, len(stream) - size + 1, size):
        assert len(set(stream[start:start + size])) == size


def test_a_straddling_window_takes_the_end_and_the_start():
    num_images, window_size, stride = 40, 16, 8
    passes = read_stream(num_images, 1, 1, 2, seed=5)  # the image stream itself
    windows = read_windows(num_images, window_size, stride, 5, seed=5)
    assert sorted(windows[4]) == sorted(passes[32:40] + passes[40:48])


@pytest.mark.parametrize('round_up', [True, False])
def test_round_up(round_up):
    samplers = [make_sampler(10, 4, 2, rank=rank, world_size=4, seed=1, round_up=round_up)
                for rank in range(4)]
    stream = read_stream(10, 4, 2, 6, seed=1)
    for epoch in range(5):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        lengths = [len(sampler) for sampler in samplers]
        assert lengths == [len(list(sampler)) for sampler in samplers]
        visited = [index for sampler in samplers for index in sampler]
        if round_up:
            assert lengths == [3, 3, 3, 3]
            assert sorted(visited) == sorted(stream[epoch * 10:epoch * 10 + 12])
        else:
            # Positions 10..19: ranks 2 and 3 come first, so they are the ones with a third.
            assert lengths == ([3, 3, 2, 2] if epoch % 2 == 0 else [2, 2, 3, 3])
            assert sorted(visited) == sorted(stream[epoch * 10:epoch * 10 + 10])


def test_resume_equals_going_on():
    going_on = make_sampler(500, 64, 16, seed=5)
    for epoch in range(3):
        going_on.set_epoch(epoch)
        last = list(going_on)
    assert list(make_sampler(500, 64, 16, seed=5, epoch=2)) == last
    # Half-read iterators and repeated ones leave nothing behind.
    next(iter(going_on))
    assert list(going_on) == last


def test_seed_may_be_set_later():
    sampler = make_sampler(500, 64, 16, seed=5)
    before = list(sampler)
    sampler.seed = 6
    assert list(sampler) == list(make_sampler(500, 64, 16, seed=6)) != before
    running = iter(sampler)
    sampler.seed = 5
    sampler.set_epoch(3)
    assert list(running) == list(make_sampler(500, 64, 16, seed=6))


def test_seed_none_is_drawn_and_kept():
    samplers = [make_sampler(500, 64, 16) for _ in range(2)]
    assert isinstance(samplers[0].seed, int)
    assert samplers[0].seed != samplers[1].seed
    assert list(samplers[0]) == list(make_sampler(500, 64, 16, seed=samplers[0].seed))


def test_indices_are_python_integers():
    # A data set may put the index into a file name or a dict: numpy's type would come through.
    assert {type(index) for index in make_sampler(100, 10, 5, seed=1)} == {int}


@pytest.mark.parametrize('arguments, error, message', [
    ((100, 10, 11), ValueError, r'stride 11 exceeds window_size 10: .* choose stride <= window_s'),
    ((100, 200, 300), ValueError, 'stride 300 exceeds window_size 200'),
    ((100, 0, 1), ValueError, 'window_size 0 is below 1'),
    ((100, 10, 0), ValueError, 'stride 0 is below 1'),
    ((100, 10, -5), ValueError, 'stride -5 is below 1'),
    ((0, 10, 5), ValueError, 'data set is empty'),
    ((100, 10.0, 5), TypeError, r'window_size must be an integer, got 10\.0 of float'),
    ((100, 10, '5'), TypeError, "stride must be an integer, got '5' of str"),
    ((100, 10, True), TypeError, 'stride must be an integer, got True of bool'),
])
def test_bad_arguments(arguments, error, message):
    num_images, window_size, stride = arguments
    with pytest.raises(error, match=message):
        SlidingWindowSampler(Images(num_images), window_size, stride, seed=1)


def test_bad_seed_and_epoch():
    with pytest.raises(TypeError, match='seed must be an integer, got 1.5'):
        SlidingWindowSampler(Images(10), 5, 5, seed=1.5)
    sampler = SlidingWindowSampler(Images(10), 5, 5, seed=1)
    with pytest.raises(ValueError, match='epoch -1 is negative'):
        sampler.set_epoch(-1)
    with pytest.raises(TypeError, match='epoch must be an integer'):
        sampler.set_epoch(1.5)
    sampler.seed = 'one'
    with pytest.raises(TypeError, match="seed must be an integer, got 'one'"):
        iter(sampler)


@contextmanager
def logged():
    """What the sampler logs."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize('asked, used, warned', [
    ((200, 50), (100, 50), True),
    ((200, 150), (100, 100), True),
    ((100, 100), (100, 100), True),
    ((51, 7), (51, 7), True),
    ((50, 7), (50, 7), False),
    ((None, None), (10, 1), False),
])
def test_window_larger_than_half_of_the_data_set(asked, used, warned):
    with logged() as records:
        sampler = SlidingWindowSampler(Images(100), *asked, seed=1)
    assert (sampler.window_size, sampler.stride) == used
    assert [record.levelno for record in records] == [logging.WARNING] * warned
    for record in records:
        text = record.getMessage()
        assert f'window_size {asked[0]} is more than half of the 100 images' in text
        assert 'once an epoch' in text and 'a window of 10 images' in text
        assert (f'used as window_size 100, stride {used[1]}' in text) == (asked[0] > 100)
    assert len(set(itertools.islice(sampler, used[0]))) == used[0]


@pytest.mark.parametrize('num_images, global_batch, window', [
    (1281167, 256, 128116),  # a tenth
    (50000, 1, 5000),
    (2000, 64, 256),  # four batches
    (300, 64, 150),  # half
    (15, 8, 7),
    (2, 8, 1), (1, 8, 1), (1, 1, 1),
])
def test_default_window(num_images, global_batch, window):
    assert default_window(num_images, global_batch) == window
    sampler = make_sampler(num_images, None, None, seed=1)
    sampler.set_global_batch(global_batch)
    assert sampler.window_size == window
    assert sampler.stride == max(1, window // 8)
    assert list(sampler) == list_stream(num_images, window, max(1, window // 8), 1, True,
                                        num_images)


def test_given_numbers_mean_what_they_say():
    sampler = make_sampler(1000, 40, None, seed=1)
    sampler.set_global_batch(64)
    assert (sampler.window_size, sampler.stride) == (40, 5)
    sampler = make_sampler(1000, None, 7, seed=1)
    sampler.set_global_batch(64)
    assert (sampler.window_size, sampler.stride) == (256, 7)
    with pytest.raises(ValueError, match='stride 101 exceeds window_size 100'):
        make_sampler(1000, None, 101, seed=1)


def test_a_checkpoint_brings_window_and_stride_along():
    saved = make_sampler(1000, 120, 30, seed=3).state_dict()
    assert saved == dict(seed=3, window_size=120, stride=30)
    with logged() as records:
        sampler = make_sampler(1000, None, None, seed=1)
        sampler.set_global_batch(4)
        sampler.load_state_dict(saved)
        assert list(sampler) == list(make_sampler(1000, 120, 30, seed=3))
    assert not records


@pytest.mark.parametrize('num_images, used', [(1281167, (131072, 16384)), (20000, (20000, 16384)),
                                              (100, (100, 100))])
def test_a_checkpoint_of_version_0_1_0_has_the_old_defaults(num_images, used):
    sampler = make_sampler(num_images, None, None, seed=1)
    sampler.load_state_dict(dict(seed=5))
    assert (sampler.window_size, sampler.stride, sampler.seed) == (*used, 5)
    given = make_sampler(num_images, 64, 8, seed=1)
    given.load_state_dict(dict(seed=None))
    assert (given.window_size, given.stride, given.seed) == (64, 8, 1)


def test_numbers_of_the_config_go_before_those_of_the_checkpoint():
    sampler = make_sampler(1000, 64, None, seed=1)
    with logged() as records:
        sampler.load_state_dict(dict(seed=1, window_size=120, stride=30))
    assert (sampler.window_size, sampler.stride) == (64, 30)
    record, = records
    assert record.levelno == logging.WARNING
    assert 'saved with window_size 120 and stride 30, and this run has 64 and 30' in (
        record.getMessage())


@pytest.mark.parametrize('world_size', [1, 3])
def test_endless_goes_on_along_the_stream(world_size):
    stream = list_stream(50, 12, 4, 3, True, 400)
    for rank in range(world_size):
        sampler = make_sampler(50, 12, 4, rank, world_size, seed=3, endless=True)
        assert len(sampler) == -(-50 // world_size)
        assert list(itertools.islice(sampler, 100)) == stream[rank::world_size][:100]
        sampler.start_at(0, 123)
        expected = [stream[p] for p in range(123, 400) if p % world_size == rank]
        assert list(itertools.islice(sampler, 80)) == expected[:80]


@pytest.mark.parametrize('world_size', [1, 3])
def test_an_epoch_goes_on_where_it_was_left(world_size):
    for rank in range(world_size):
        sampler = make_sampler(50, 12, 4, rank, world_size, epoch=2, seed=3)
        whole, length = list(sampler), len(sampler)
        sampler.start_at(2, 5 * world_size)
        assert list(sampler) == whole[5:] and len(sampler) == length
        sampler.set_epoch(2)
        assert list(sampler) == whole[5:]
        sampler.set_epoch(3)
        assert list(sampler) == list(make_sampler(50, 12, 4, rank, world_size, epoch=3, seed=3))
    with pytest.raises(ValueError, match='offset -1 is negative'):
        sampler.start_at(0, -1)


@pytest.mark.parametrize('offset', [0, 4, 8, 20, 48, 50, 52])
@pytest.mark.parametrize('round_up', [True, False])
def test_another_number_of_ranks_shares_out_the_rest(offset, round_up):
    """Of an epoch that one process has begun; with rounding, in equal parts: ranks wait for all."""
    stream = list_stream(50, 12, 4, 3, True, 200)
    samplers = [make_sampler(50, 12, 4, rank, 3, epoch=1, seed=3, round_up=round_up)
                for rank in range(3)]
    for sampler in samplers:
        sampler.start_at(1, offset)
    parts = [list(sampler) for sampler in samplers]
    lengths = [len(part) for part in parts]
    assert [sampler.num_left for sampler in samplers] == lengths
    end = max(50, offset) + (-max(50 - offset, 0) % 3 if round_up else 0)
    assert parts == [[stream[p] for p in range(50 + offset, 50 + end) if p % 3 == rank]
                     for rank in range(3)]
    assert max(lengths) - min(lengths) <= (not round_up)


def test_each_position_has_random_numbers_of_its_own():
    samplers = [make_sampler(50, 12, 4, rank, 2, seed=3, endless=True) for rank in range(2)]
    parts = [list(itertools.islice(sampler, 100)) for sampler in samplers]
    whole = list(itertools.islice(make_sampler(50, 12, 4, seed=3, endless=True), 200))
    draws = [index.draws for index in whole]
    assert len(set(draws)) == 200
    # Whichever process has the position.
    assert [index.draws for part in zip(*parts) for index in part] == draws
    others = list(itertools.islice(make_sampler(50, 12, 4, seed=4, endless=True), 200))
    assert not set(draws) & {index.draws for index in others}


@pytest.mark.parametrize('window_size, stride', [(131072, 16384), (10**9, 10**9)])
def test_a_billion_images_take_no_memory(window_size, stride):
    tracemalloc.start()
    try:
        sampler = make_sampler(10**9, window_size, stride, seed=1, epoch=200)
        assert len(sampler) == 10**9
        indices = list(itertools.islice(sampler, 100000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6  # bytes; the 100,000 Python integers of the test are a third of it
    assert len(set(indices)) > 90000
    assert max(indices) < 10**9


RESIDENT_MEMORY = """
import itertools, resource
from pic_plugin.datasets import SlidingWindowSampler
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sampler = SlidingWindowSampler(range(10**9), seed=1)
for index in itertools.islice(sampler, 100000):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_billion_images_take_no_resident_memory(tmp_path):
    status, output = run_alone(command, ['-c', RESIDENT_MEMORY], tmp_path)
    assert status == 0, output
    # KiB of the peak beyond the imports; one array of N would be 8,000,000.
    assert int(output.splitlines()[-1]) < 20000


ONE_RANK = """
import torch.distributed
from pic_plugin.datasets import SlidingWindowSampler
torch.distributed.init_process_group('gloo')
sampler = SlidingWindowSampler(range(51), 16, 4)
sampler.set_epoch(1)
torch.distributed.barrier()
print('RESULT', sampler.seed, *sampler)
"""


def test_processes_share_out_one_stream(tmp_path):
    # seed=None: the processes must agree on a random one.
    results = [output.split('RESULT')[1].split()
               for _, output in run_ranks(command, 2, ['-c', ONE_RANK], tmp_path)]
    (seed, *even), (other_seed, *odd) = (map(int, result) for result in results)
    assert seed == other_seed
    stream = list_stream(51, 16, 4, seed, True, 51 + 52)[51:]  # position 51 is odd
    assert odd == stream[0::2]
    assert even == stream[1::2]


@pytest.mark.parametrize('num_workers', [0, 1])
def test_in_the_dataloader_of_a_runner(num_workers):
    config = dict(
        batch_size=16, num_workers=num_workers, persistent_workers=num_workers > 0,
        dataset=Images(100), collate_fn=dict(type='default_collate'),
        sampler=dict(type='SlidingWindowSampler', window_size=32, stride=8))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(config, seed=9)
    for epoch in (0, 1, 5):
        loader.sampler.set_epoch(epoch)
        batches = [batch.tolist() for batch in loader]
        assert len(batches) == len(loader) == 7
        assert sum(batches, []) == list(make_sampler(100, 32, 8, seed=9, epoch=epoch))


@pytest.mark.parametrize('world_size', [1, 3])
def test_ids_at_is_what_all_processes_visit(world_size):
    # 12 images in batches of 2 on each process: batch b is the stretch from b * 2 * world_size on.
    samplers = [make_sampler(12, 6, 2, rank, world_size, epoch=2, seed=1)
                for rank in range(world_size)]
    visited = [list(sampler) for sampler in samplers]
    for batch in range(12 // (2 * world_size)):
        expected = sorted(i for part in visited for i in part[2 * batch:2 * batch + 2])
        start = 2 * 12 + batch * 2 * world_size
        found = samplers[0].ids_at(start, start + 2 * world_size)
        assert found.dtype == np.int64 and sorted(found.tolist()) == expected
