# SPDX-License-Identifier: Apache-2.0
"""Class weights before training: a fixed function of seed and class, N(0, 0.01^2)."""
from __future__ import annotations

import numpy as np
import pytest

from pic_plugin.bank import initial_rows

GOLDEN = [[-0.0069251293, -0.008826918, 0.0078907069],
          [-0.002684741, -0.00097429345, -0.0045316722]]


def test_depend_on_seed_and_class_alone():
    ids = np.array([7, 0, 10**12, 7, 3])
    rows = initial_rows(ids, 5, seed=1)
    assert rows.shape == (5, 5) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0], rows[3])
    for i, row in zip(ids, rows):
        np.testing.assert_array_equal(initial_rows(np.array([i]), 5, seed=1)[0], row)
    assert initial_rows(np.empty(0, dtype=np.int64), 5, seed=1).shape == (0, 5)


def test_golden_values():
    # A change of these would make checkpoints resume with other rows than they were saved with.
    np.testing.assert_allclose(
        initial_rows(np.array([0, 123456789]), 3, seed=42), GOLDEN, rtol=1e-6)


@pytest.mark.parametrize('feat_dim', [1, 2, 127, 128])
def test_seeds_and_classes_differ(feat_dim):
    seeds = [-1, 0, 1, 2**31, 2**63, 2**64 - 2]
    rows = np.concatenate([initial_rows(np.arange(300), feat_dim, seed) for seed in seeds])
    # float32 of one normal number: 1800 draws of 24 bits seldom meet.
    assert len(np.unique(rows, axis=0)) >= len(rows) - 3
    assert np.isfinite(rows).all()


def test_distribution():
    z = initial_rows(np.arange(20000), 16, seed=0).astype(np.float64) / 0.01
    n = z.size
    # Five standard errors of each moment of a normal sample.
    for moment, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**moment).mean() - expected) < 5 * np.sqrt(variance / n), moment
    for bound, probability in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        error = np.sqrt(probability * (1 - probability) / n)
        assert abs((np.abs(z) < bound).mean() - probability) < 5 * error
    # Elements of a row, and neighbouring classes, are uncorrelated: the largest of 256.
    assert np.abs(np.corrcoef(z.T) - np.eye(16)).max() < 5 / np.sqrt(len(z))
    assert np.abs((z[1:] * z[:-1]).mean(axis=0)).max() < 5 / np.sqrt(len(z))
    seeds = initial_rows(np.arange(20000), 16, seed=1).astype(np.float64) / 0.01
    assert np.abs((z * seeds).mean(axis=0)).max() < 5 / np.sqrt(len(z))
