# SPDX-License-Identifier: Apache-2.0
"""Random bits by number: the same on every platform, for any seed, without drawing those before.

numpy's generators give a stream, and the stream may change between numpy releases.
"""
from __future__ import annotations

import numpy as np

_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, SplitMix64's increment
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_27, _SHIFT_30, _SHIFT_31 = (np.uint64(bits) for bits in (27, 30, 31))


def random_bits(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Output number ``counters`` of the generators seeded with ``keys``.

    SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*, OOPSLA
    2014). Integer arithmetic modulo 2**64 alone. For shuffling and initial values, not for secrecy.

    Args:
        keys (np.ndarray): uint64. An array, if of one element: numpy warns of the wrap-around of
            scalars.
        counters (np.ndarray): uint64, of a shape that goes with that of the keys.

    Returns:
        np.ndarray: uint64, of their common shape.
    """
    bits = counters * _GOLDEN_RATIO + keys
    bits ^= bits >> _SHIFT_30
    bits *= _MULTIPLIER_1
    bits ^= bits >> _SHIFT_27
    bits *= _MULTIPLIER_2
    bits ^= bits >> _SHIFT_31
    return bits
