# SPDX-License-Identifier: Apache-2.0
"""Keyed pseudo-random permutations of range(size), evaluated only where they are asked for.

Everything is integer arithmetic modulo 2**64, so the values are the same on every platform and
numpy version. numpy's own ``Generator.permutation`` would need an array of ``size``, and its stream
may change between numpy releases, which would silently break resume and agreement between ranks.
"""
from __future__ import annotations

import math
import operator

import numpy as np

from pic_plugin.random_bits import random_bits

# Half of the rounds change each coordinate. Joint counts of pairs over 200,000 keys show a bias
# with 6 rounds at sizes near 100 and none with 8; the rest is margin, at about 4 ns a round.
NUM_ROUNDS = 12
MAX_TABLE_SIZE = 64  # up to here sorting is cheap, and every order is equally likely

_SHIFT_32 = np.uint64(32)


def derive_keys(seed: int, purpose: int, numbers: np.ndarray) -> np.ndarray:
    """Independent 64-bit keys, one for each of ``numbers``.

    Args:
        seed (int): Any integer; those equal modulo 2**64 are the same seed.
        purpose (int): Tells apart the uses that share a seed, not negative.
        numbers (np.ndarray): (M,) uint64, e.g. the number of the pass over the data set.

    Returns:
        np.ndarray: (M,) uint64.
    """
    # One-element arrays: numpy warns of the wrap-around of scalars, but not of arrays.
    root = np.array([operator.index(seed) % 2**64], dtype=np.uint64)
    root = random_bits(root, np.array([0], dtype=np.uint64))
    root = random_bits(root, np.array([purpose], dtype=np.uint64))
    return random_bits(root, numbers)


def permute(index: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Where a permutation of range(size) sends each index.

    For a fixed key this is a bijection of range(size). Time and memory depend on M, not on
    ``size``: this is the generalised Feistel cipher with cycle walking of Black and Rogaway,
    *Ciphers with Arbitrary Finite Domains*, CT-RSA 2002, with :func:`random_bits` for the round
    functions. It is for shuffling, not for secrecy.

    Args:
        index (np.ndarray): (M,) uint64, each below ``size``.
        size (int): 1 or more.
        keys (np.ndarray): (M,) uint64, the permutation that is asked about, for each index its own.

    Returns:
        np.ndarray: (M,) uint64, each below ``size``.
    """
    if size <= MAX_TABLE_SIZE:
        return _permute_by_table(index, size, keys)
    # A near-square grid, so that fewer than num_rows cells are left over.
    num_rows = math.isqrt(size - 1) + 1
    num_columns = -(-size // num_rows)
    result = _permute_grid(index, num_rows, num_columns, keys)
    outside = np.flatnonzero(result >= np.uint64(size))
    while outside.size:
        # An orbit that starts inside comes back inside, so walking on keeps the map one-to-one.
        result[outside] = _permute_grid(result[outside], num_rows, num_columns, keys[outside])
        outside = outside[result[outside] >= np.uint64(size)]
    return result


def _permute_grid(cells: np.ndarray, num_rows: int, num_columns: int,
                  keys: np.ndarray) -> np.ndarray:
    """Permute the cells of a grid: in turn shift each row and each column by a random amount."""
    rows_, columns = np.uint64(num_rows), np.uint64(num_columns)
    row = cells // columns
    column = cells - row * columns
    for number in range(0, NUM_ROUNDS, 2):
        row = _shift(row, column, rows_, keys, number)
        column = _shift(column, row, columns, keys, number + 1)
    return row * columns + column


def _shift(place: np.ndarray, other: np.ndarray, length: np.uint64, keys: np.ndarray,
           number: int) -> np.ndarray:
    """(place + random amount below ``length`` that depends on ``other``) modulo ``length``."""
    # Coordinates are below 2**32 for any size that fits len(), so rounds share no counter.
    amount = random_bits(keys, other + np.uint64(number << 32))
    amount >>= _SHIFT_32
    amount *= length  # 32 random bits, scaled to range(length): far cheaper than a remainder
    amount >>= _SHIFT_32
    amount += place
    # Below `length` the subtraction wraps to a huge number, and the minimum is the sum itself.
    return np.minimum(amount, amount - length)


def _permute_by_table(index: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """The order of ``size`` random numbers: on a tiny grid some orders would be out of reach."""
    distinct, which = np.unique(keys, return_inverse=True)
    numbers = random_bits(distinct[:, None], np.arange(size, dtype=np.uint64))
    table = np.argsort(numbers, axis=1, kind='stable')  # stable: the same on every numpy
    return table[which, index].astype(np.uint64)
