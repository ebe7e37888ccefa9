# SPDX-License-Identifier: Apache-2.0
"""permutation: against Python integers, one-to-one, and random by the counts of many keys."""
import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pic_plugin.datasets import permutation
from pic_plugin.datasets.permutation import MAX_TABLE_SIZE, NUM_ROUNDS, derive_keys, permute

NUM_KEYS = 60000
GOLDEN_KEYS = [12811403643021094797, 3617470430366721307, 17158597948468446742, 6639616302043554968]
GOLDEN = {  # size: images of 0, 1, 2, 63
    64: [27, 36, 20, 15],
    100: [88, 80, 65, 86],
    131072: [120798, 53000, 110130, 125129],
    1281167: [1210225, 332182, 131438, 57600],
    10**9: [440544139, 984048750, 815534484, 101308524],
}
MAX_DEVIATION = 5  # standard deviations; the keys are fixed, so the outcome never changes


def make_keys(num_keys, seed=0, purpose=0):
    return derive_keys(seed, purpose, np.arange(num_keys, dtype=np.uint64))


def whole_permutation(size, key):
    return permute(np.arange(size, dtype=np.uint64), size, np.full(size, key, dtype=np.uint64))


def images_of(index, size, keys):
    """Where each key's permutation sends one index."""
    return permute(np.full(len(keys), index, dtype=np.uint64), size, keys).astype(np.int64)


def deviation(counts):
    """Chi-square of equally likely cells, in standard deviations from its mean."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return (((counts - expected)**2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def slow_random_bits(key, counter):
    bits = (counter * 0x9E3779B97F4A7C15 + key) % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


def slow_permute(index, size, key):
    """The same permutation in Python integers, which cannot overflow, one index at a time."""
    if size <= MAX_TABLE_SIZE:
        return sorted(range(size), key=lambda place: slow_random_bits(key, place))[index]
    num_rows = math.ceil(math.sqrt(size))
    num_columns = math.ceil(size / num_rows)
    while True:
        row, column = divmod(index, num_columns)
        for number in range(0, NUM_ROUNDS, 2):
            bits = slow_random_bits(key, column + number * 2**32)
            row = (row + (bits // 2**32) * num_rows // 2**32) % num_rows
            bits = slow_random_bits(key, row + (number + 1) * 2**32)
            column = (column + (bits // 2**32) * num_columns // 2**32) % num_columns
        index = row * num_columns + column
        if index < size:
            return index


@given(size=st.one_of(st.integers(1, 200), st.integers(1, 10**12)), data=st.data())
@settings(deadline=None, max_examples=60)
def test_equals_python_integers(size, data):
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))
    keys = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(indices),
                              max_size=len(indices)))
    result = permute(np.array(indices, np.uint64), size, np.array(keys, np.uint64))
    assert result.tolist() == [slow_permute(i, size, key) for i, key in zip(indices, keys)]


@given(seed=st.integers(-2**70, 2**70), purpose=st.integers(0, 5), number=st.integers(0, 2**62))
@settings(deadline=None, max_examples=30)
def test_keys_equal_python_integers(seed, purpose, number):
    expected = slow_random_bits(seed % 2**64, 0)
    expected = slow_random_bits(slow_random_bits(expected, purpose), number)
    assert derive_keys(seed, purpose, np.array([number], np.uint64)).tolist() == [expected]


@pytest.mark.parametrize('size', [*range(1, 140), 1000, 1023, 1024, 1025, 4099, 65536, 131072])
def test_is_one_to_one(size):
    key = make_keys(1, seed=size)[0]
    assert np.array_equal(np.sort(whole_permutation(size, key)), np.arange(size))


def test_stream_is_pinned():
    # A change of any of these values would change the images of every resumed run.
    indices = np.array([0, 1, 2, 63], np.uint64)
    keys = derive_keys(2026, 1, np.arange(4, dtype=np.uint64))
    assert keys.tolist() == GOLDEN_KEYS
    for size, images in GOLDEN.items():
        assert permute(indices, size, keys).tolist() == images


def test_no_warning_and_uint64():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        keys = derive_keys(2**64 - 1, 5, np.array([0, 2**63], np.uint64))
        for size in (1, 64, 65, 10**9, 2**62):
            result = permute(np.array([0, size - 1], np.uint64), size, keys)
            assert result.dtype == np.uint64
    assert keys.dtype == np.uint64


def test_one_index_costs_the_same_at_any_size(monkeypatch):
    # Cycle walking could go on for long; on a near-square grid it hardly ever starts.
    calls = []
    permute_grid = permutation._permute_grid
    monkeypatch.setattr(permutation, '_permute_grid',
                        lambda cells, *args: calls.append(len(cells)) or permute_grid(cells, *args))
    for size in (10**3 + 1, 10**6 + 1, 2**30 + 1):
        calls.clear()
        permute(np.arange(1000, dtype=np.uint64), size, make_keys(1000))
        assert sum(calls) < 1100


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 6])
def test_every_order_of_a_tiny_set_is_equally_likely(size):
    keys = make_keys(NUM_KEYS)
    images = np.stack([images_of(index, size, keys) for index in range(size)])
    orders, counts = np.unique(images, axis=1, return_counts=True)
    assert orders.shape[1] == math.factorial(size)
    if size > 1:
        assert abs(deviation(counts)) < MAX_DEVIATION


@pytest.mark.parametrize('size', [7, 20, 64, 65, 72, 81, 100, 257])
def test_positions_of_pairs_are_uniform(size):
    # 65 leaves cells of the grid unused, 72 and 81 fill it; pairs share a row, a column or neither.
    keys = make_keys(NUM_KEYS, seed=size)
    width = -(-size // math.ceil(math.sqrt(size)))
    images = {index: images_of(index, size, keys)
              for index in {0, 1, width, width + 1, size // 2, size - 1}}
    for image in images.values():
        assert abs(deviation(np.bincount(image, minlength=size))) < MAX_DEVIATION
    for first, second in itertools.combinations(images.values(), 2):
        difference = np.bincount((first - second) % size, minlength=size)
        assert difference[0] == 0
        assert abs(deviation(difference[1:])) < MAX_DEVIATION
        if size <= 100:
            joint = np.bincount(first * size + second, minlength=size**2).reshape(size, size)
            assert abs(deviation(joint[~np.eye(size, dtype=bool)])) < MAX_DEVIATION


@pytest.mark.parametrize('size', [1000, 100003])
def test_neighbours_and_keys_are_uncorrelated(size):
    # Neighbouring pass numbers and neighbouring seeds are the keys that the sampler really uses.
    keys = [*make_keys(8, seed=1), *make_keys(8, seed=2), *make_keys(8, seed=1, purpose=1)]
    orders = np.stack([np.arange(size), *(whole_permutation(size, key) for key in keys)])
    limit = MAX_DEVIATION / math.sqrt(size)
    between = np.corrcoef(orders)
    np.fill_diagonal(between, 0)
    assert np.abs(between).max() < limit
    for order in orders[1:]:
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < limit


def test_a_key_per_index_equals_one_key_at_a_time():
    keys = make_keys(5)
    for size in (10, 1000):
        index = np.array([3, 3, 1, 9, 0], np.uint64)
        together = permute(index, size, keys)
        assert together.tolist() == [permute(index[i:i + 1], size, keys[i:i + 1])[0]
                                     for i in range(5)]
