# SPDX-License-Identifier: Apache-2.0
"""Stored rows against a dict."""
from __future__ import annotations

import numpy as np
import pytest

from pic_plugin.bank import RowStore
from pic_plugin.bank.row_store import ITERATION_ROWS


@pytest.fixture(params=['memory', 'file'])
def path(request, tmp_path):
    return None if request.param == 'memory' else tmp_path / 'folder' / 'rows.bank'


@pytest.mark.parametrize('num_rows', [1, 100, ITERATION_ROWS, 3 * ITERATION_ROWS + 17])
@pytest.mark.parametrize('num_planes', [1, 2, 3])
def test_equals_a_dict(path, num_rows, num_planes):
    rng = np.random.default_rng(0)
    store = RowStore(num_rows, num_planes, 5, path)
    assert store.shape == (num_planes, 5)
    expected = {}
    for _ in range(30):
        rows = rng.choice(num_rows, min(num_rows, 7), replace=False)
        steps = rng.integers(0, 2**40, len(rows))
        steps[0] = 0  # a step like any other, not "never written"
        values = rng.normal(size=(len(rows), num_planes, 5)).astype(np.float32)
        store.write(rows, steps, values)
        expected.update(zip(rows.tolist(), zip(steps.tolist(), values)))
        asked = rng.integers(0, num_rows, 20)
        steps, values = store.read(asked)
        for i, row in enumerate(asked.tolist()):
            wanted = expected.get(row, (-1, np.zeros((num_planes, 5))))
            assert steps[i] == wanted[0]
            np.testing.assert_array_equal(values[i], wanted[1])
    found = [part for chunk in store.written() for part in zip(*chunk)]
    assert [row for row, _, _ in found] == sorted(expected)
    for row, step, values in found:
        assert step == expected[row][0]
        np.testing.assert_array_equal(values, expected[row][1])
    store.close()


def test_what_is_read_does_not_change_later(path):
    store = RowStore(10, 1, 2, path)
    rows = np.array([3])
    store.write(rows, np.array([1]), np.ones((1, 1, 2), dtype=np.float32))
    steps, values = store.read(rows)
    listed = list(store.written())
    store.write(rows, np.array([2]), np.zeros((1, 1, 2), dtype=np.float32))
    assert steps == [1] and values.min() == 1 and listed[0][1] == [1] and listed[0][2].min() == 1


def test_a_billion_rows_take_what_was_written(tmp_path):
    for path in (None, tmp_path / 'rows.bank'):
        store = RowStore(10**9, 2, 8, path)  # 72 GB if all were written
        rows = np.array([0, 5 * 10**8, 10**9 - 1])
        store.write(rows, np.arange(3), np.ones((3, 2, 8), dtype=np.float32))
        assert np.concatenate([chunk[0] for chunk in store.written()]).tolist() == rows.tolist()
        if path is not None:
            assert path.stat().st_size == store.num_bytes == 72 * 10**9
            assert path.stat().st_blocks * 512 < 2**20
        store.close()


def test_file_is_replaced_and_removed(tmp_path):
    path = tmp_path / 'rows.bank'
    path.write_bytes(b'\xff' * 1000)
    store = RowStore(4, 1, 2, path)
    assert store.read(np.arange(4))[0].tolist() == [-1] * 4 and not list(store.written())
    store.close()
    assert not path.exists()
