# SPDX-License-Identifier: Apache-2.0
"""Rows are asked for before they are wanted, and that changes nothing else."""
from __future__ import annotations

import numpy as np
import pytest

from pic_plugin.bank import RowStore
from pic_plugin.engine import row_prefetch
from toys.training import assert_equal, snapshot, train


@pytest.fixture
def asked(monkeypatch):
    """Rows that were asked for; reading others fails, once rows have been stored for a while."""
    rows, missed = set(), []
    prefetch, read = RowStore.prefetch, RowStore.read

    def record(self, wanted):
        rows.update(wanted.tolist())
        prefetch(self, wanted)

    def check(self, wanted):
        missed.extend(set(wanted.tolist()) - rows)
        return read(self, wanted)

    monkeypatch.setattr(RowStore, 'prefetch', record)
    monkeypatch.setattr(RowStore, 'read', check)
    # One thing after another, so that the test does not depend on who is faster.
    monkeypatch.setattr(row_prefetch, 'ThreadPoolExecutor', Immediately)
    return rows, missed


class Immediately:
    """An executor without a thread."""

    def __init__(self, *args, **kwargs):
        pass

    def submit(self, work, *args):
        work(*args)
        return self

    def done(self):
        return True

    def result(self):
        return None

    def shutdown(self):
        pass


@pytest.mark.parametrize('loop', [
    dict(), dict(train_cfg=dict(by_epoch=False, max_iters=28))], ids=['epochs', 'iterations'])
def test_every_row_is_asked_for_before_it_is_read(tmp_path, asked, loop):
    train(tmp_path, seed=0, num_images=56, head=dict(storage=dict(type='mmap')), **loop)
    rows, missed = asked
    assert rows == set(range(56)) and not missed


def test_training_is_the_same_with_rows_on_disk(tmp_path):
    states = []
    for name in ('memory', 'mmap'):
        runner = train(tmp_path / name, seed=0, head=dict(storage=dict(type=name)))
        assert (runner.model.head.bank.store is not None)
        states.append(snapshot(runner))
    assert_equal(*states)


def test_what_failed_is_raised(tmp_path, monkeypatch):
    def fail(self, rows):
        raise OSError(5, 'Input/output error')

    monkeypatch.setattr(RowStore, 'prefetch', fail)
    with pytest.raises(OSError, match='Input/output'):
        train(tmp_path, seed=0, head=dict(storage=dict(type='mmap')))


@pytest.mark.parametrize('options', [dict(), dict(head=dict(num_negatives=None))])
def test_nothing_is_prefetched_from_memory(tmp_path, options):
    runner = train(tmp_path, seed=0, max_epochs=1, **options)
    assert next(hook for hook in runner.hooks
                if type(hook).__name__ == 'InstanceBankHook').prefetcher is None


def test_the_file_is_gone_afterwards(tmp_path):
    runner = train(tmp_path, seed=0, max_epochs=1, head=dict(storage=dict(type='mmap')))
    path = tmp_path / 'class_weights.bank-0of1'
    assert path.exists()
    runner.model.head.bank.store.close()
    assert not path.exists()
    assert np.isfinite(runner.losses).all()
