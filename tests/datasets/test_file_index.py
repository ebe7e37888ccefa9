# SPDX-License-Identifier: Apache-2.0
"""Indices that are kept: mapped when they still hold, made anew when they do not."""
import pickle
import shutil

import numpy as np
import pytest

from pic_plugin.datasets.file_index import FileIndex, IndexStore
from pic_plugin.datasets.file_names import NameList
from pic_plugin.datasets.file_report import FileReport


def make_index(count, state=0):
    report = FileReport()
    report.read['.png'] += count
    report.leave_out('hidden', b'caf\xe9')
    return FileIndex(NameList.of(str(i).encode() for i in range(count)),
                     dict(label=np.arange(count, dtype=np.int32)), dict(state=state), report)


class Maker:
    """Makes indices and counts them."""

    def __init__(self, count=20):
        self.count, self.made = count, 0

    def __call__(self):
        self.made += 1
        return make_index(self.count, state=self.made)


def get(store, maker, state, place='here', smallest=10):
    return store.get(place, maker, lambda meta: meta['state'] == state, smallest)


def test_it_is_made_once(cache):
    maker = Maker()
    for _ in range(3):
        index = get(IndexStore(), maker, 1)
        assert list(index.names) == [str(i).encode() for i in range(20)]
        assert index.arrays['label'].tolist() == list(range(20)) and index.meta == dict(state=1)
        assert str(index.report) == str(make_index(20).report)
        assert isinstance(index.names.buffer, np.memmap)
    assert maker.made == 1
    assert get(IndexStore(), maker, 2, place='there').meta == dict(state=2)


def test_it_is_made_anew_where_it_does_not_hold(cache):
    maker = Maker()
    first = get(IndexStore(), maker, 1)
    assert get(IndexStore(), maker, 2).meta == dict(state=2) and maker.made == 2
    assert list(first.names)[5] == b'5'  # a run that uses the old one goes on
    assert get(IndexStore(), maker, 2).meta == dict(state=2) and maker.made == 2


def test_small_ones_are_not_kept(cache):
    maker = Maker(5)
    for _ in range(2):
        get(IndexStore(), maker, 1)
    assert maker.made == 2 and not list(cache.rglob('*.npy'))


@pytest.mark.parametrize('damage', ['index.json', 'label.npy', 'names_buffer.npy'])
def test_damage_is_noticed(cache, damage):
    maker = Maker()
    get(IndexStore(), maker, 1)
    next(cache.rglob(damage)).write_bytes(b'')
    assert len(get(IndexStore(), maker, 2).names) == 20
    assert maker.made == 2


def test_a_folder_that_takes_nothing(tmp_path):
    (tmp_path / 'file').touch()
    maker = Maker()
    index = get(IndexStore(tmp_path / 'file'), maker, 1)
    assert len(index.names) == 20 and maker.made == 1


def test_pickles_are_small_and_outlive_their_folder(cache):
    index = get(IndexStore(), Maker(1000), 1)
    content = pickle.dumps(index)
    assert len(content) < 500
    assert list(pickle.loads(content).names) == list(index.names)
    shutil.rmtree(cache / 'indices')
    assert list(pickle.loads(pickle.dumps(index)).names) == list(index.names)
