# SPDX-License-Identifier: Apache-2.0
"""Which image is which, against a dict."""
from __future__ import annotations

import numpy as np
import pytest
from mmengine.dataset import BaseDataset

from pic_plugin.engine.checkpoint.instance_keys import instance_keys, match_instances


class Listed(BaseDataset):
    """A data set of named files."""

    def __init__(self, names, data_root='', **kwargs):
        self.names = names
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self):
        return [dict(img_path=f'{self.data_prefix["img_path"]}/{name}') for name in self.names]


def keys_of(names, root='/data', **kwargs):
    dataset = Listed(names, data_root=root, data_prefix=dict(img_path='train'), **kwargs)
    return instance_keys(dataset, 'img_path')


def test_keys_are_distinct_and_do_not_depend_on_the_folder():
    names = [f'{i // 10}/{i}.png' for i in range(100)]
    keys = keys_of(names)
    assert keys.shape == (100,) and keys.dtype == np.int64 and len(set(keys.tolist())) == 100
    np.testing.assert_array_equal(keys, keys_of(names, '/elsewhere/much/deeper'))
    np.testing.assert_array_equal(keys[::-1], keys_of(names[::-1], serialize_data=False))


def test_without_names_there_are_no_keys():
    assert instance_keys(range(3), 'img_path') is None
    dataset = Listed(['a.png'])
    assert instance_keys(dataset, None) is None and instance_keys(dataset, 'url') is None


@pytest.mark.parametrize('seed', range(20))
def test_matches_equal_a_dict(seed):
    rng = np.random.default_rng(seed)
    num_saved, num_new = rng.integers(1, 30), rng.integers(0, 30)
    current = rng.choice(2**40, num_saved + num_new, replace=False) - 2**39
    saved = rng.permutation(current)[:num_saved]
    place = {key: i for i, key in enumerate(current.tolist())}
    new_ids = match_instances(saved, len(saved), current, len(current))
    if new_ids is None:
        new_ids = np.arange(num_saved)
    assert new_ids.tolist() == [place[key] for key in saved.tolist()]


def test_appended_images_change_nothing():
    keys = keys_of(['a', 'b', 'c'])
    assert match_instances(keys[:2], 2, keys, 3) is None
    assert match_instances(keys, 3, keys, 3) is None
    assert match_instances(None, 3, None, 3) is None


def test_room_left_for_images_is_filled():
    keys = keys_of(['a', 'b', 'c', 'd'])
    # Two images, four classes; then two images more, one of them before the old ones.
    new_ids = match_instances(keys[1:3], 4, keys, 4)
    assert new_ids.tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize('saved, current, message', [
    ('abc', 'abd', r'1 of the 3 images .* are not in the data set now \(by their number then: 2\)'),
    ('abc', 'ab', 'had 3 instances and this one has 2'),
    ('abc', 'xyz', '3 of the 3 images'),
    ('abcdefg', 'ghijklmn', r'then: 0, 1, 2, 3, 4, \.\.\.\)'),
    ('aab', 'baa', 'listed more than once'),
])
def test_what_cannot_be_matched(saved, current, message):
    with pytest.raises(ValueError, match=message):
        match_instances(keys_of(list(saved)), len(saved), keys_of(list(current)), len(current))


def test_growth_without_names():
    with pytest.raises(ValueError, match='had 3 images and has 4, .* cannot be told'):
        match_instances(None, 3, keys_of(list('abcd')), 4)
