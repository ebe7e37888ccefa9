# SPDX-License-Identifier: Apache-2.0
"""Class weights before training, computed where they are needed."""
from __future__ import annotations

import numpy as np
from torch import Tensor, from_numpy

from pic_plugin.random_bits import random_bits

INIT_STD = 0.01  # the authors' N(0, 0.01²) per element
FILL_ROWS = 65536  # in one go: 270 MB of host memory for d = 128

_ZEROTH, _FIRST = np.arange(2, dtype=np.uint64)[:, None]


def initial_rows(ids: np.ndarray, feat_dim: int, seed: int) -> np.ndarray:
    """Normal random rows that depend on the seed and their class alone.

    Random bits by seed, class and element, and the Box-Muller transform: a billion rows need
    neither memory nor a pass over them.

    Args:
        ids (np.ndarray): (R,) int64 instance classes.
        feat_dim (int): d.
        seed (int): Any integer.

    Returns:
        np.ndarray: (R, d) float32, N(0, 0.01²) per element.
    """
    num_pairs = (feat_dim + 1) // 2
    key = random_bits(np.array([seed % 2**64], dtype=np.uint64), _FIRST)
    streams = random_bits(key ^ random_bits(ids.astype(np.uint64), _FIRST), _ZEROTH)  # (R,)
    counters = np.arange(1, 2 * num_pairs + 1, dtype=np.uint64)
    bits = random_bits(streams[:, None], counters)  # (R, 2 * num_pairs)
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    # log1p of minus a number in [0, 1) is finite.
    radius = np.sqrt(-2 * np.log1p(-uniform[:, :num_pairs]))
    angle = 2 * np.pi * uniform[:, num_pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return (INIT_STD * normal[:, :feat_dim]).astype(np.float32)


def fill_with_initial_rows(rows: Tensor, ids: np.ndarray, seed: int) -> None:
    """Give the first R rows of a tensor (S, d) the initial values of classes (R,), in pieces."""
    for start in range(0, len(ids), FILL_ROWS):
        part = ids[start:start + FILL_ROWS]
        rows[start:start + len(part)] = from_numpy(
            initial_rows(part, rows.shape[1], seed)).to(rows)
