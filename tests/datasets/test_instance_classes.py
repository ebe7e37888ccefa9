# SPDX-License-Identifier: Apache-2.0
"""Which images are one class, against dicts and graphs walked by hand."""
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pic_plugin.datasets.instance_classes import (
    InstanceClasses,
    InstanceKey,
    join,
    keys_by_pattern,
    read_pairs,
)


@given(st.lists(st.integers(-3, 3), min_size=1))
def test_classes_are_numbered_by_their_first_image(values):
    classes = InstanceClasses(np.array(values))
    groups = defaultdict(list)
    for image, value in enumerate(values):
        groups[value].append(image)
    expected = list(groups.values())  # dicts keep the order of first insertion
    assert [classes.images_of(number).tolist() for number in range(len(classes))] == expected
    assert classes.firsts.tolist() == [group[0] for group in expected]
    assert all(image in expected[classes.class_of[image]] for image in range(len(values)))


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))),
       st.lists(st.integers(0, 9), min_size=30, max_size=30))
def test_join_is_what_a_walk_through_the_graph_finds(count, pairs, values):
    same = np.array(values[:count])
    pairs = [(a % count, b % count) for a, b in pairs]
    joined = join(same, [a for a, _ in pairs], [b for _, b in pairs])
    reach = np.eye(count, dtype=bool) | (same[:, None] == same)
    for a, b in pairs:
        reach[a, b] = reach[b, a] = True
    for _ in range(5):  # 2**5 steps
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    np.testing.assert_array_equal(joined[:, None] == joined, reach)


def test_draws_are_uniform_over_the_class_and_repeat_with_the_seed():
    classes = InstanceClasses(np.array([0, 1, 0, 0, 2]))
    np.random.seed(0)
    first = [classes.draw(0) for _ in range(3000)]
    np.random.seed(0)
    assert [classes.draw(0) for _ in range(3000)] == first
    counts = np.bincount(first, minlength=5)
    assert (counts[[1, 4]] == 0).all()
    assert (abs(counts[[0, 2, 3]] - 1000) < 130).all()  # 5 standard deviations of 25.8


def test_a_class_of_one_image_takes_no_random_number():
    classes = InstanceClasses(np.array([0, 1]))
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    assert classes.draw(1) == 1 and np.random.rand() == expected


def test_keys_by_pattern():
    names = [b'v1/f1.png', b'v1/f2.png', b'v2/f1.png', b'caf\xe9/f1.png', b'lone.png', b'also.png']
    keys, missed = keys_by_pattern(names, r'(.*)/f\d')
    assert missed == 2 and len(set(keys.tolist())) == 5 and keys[0] == keys[1]
    keys, missed = keys_by_pattern(names, r'v\d/')
    assert missed == 3 and keys[0] == keys[1] != keys[2]
    # A group that takes no part, or an empty one, is no key that images could share.
    for pattern in (r'(v\d/)?f', r'(x*)'):
        keys, missed = keys_by_pattern([b'f1.png', b'f2.png', b'v1/f1.png', b'v1/f2.png'], pattern)
        assert missed >= 2 and keys[0] != keys[1]


def test_pairs(tmp_path):
    file = tmp_path / 'duplicates.csv'
    file.write_bytes(b'first,second,kind,similarity,pixel_difference\n'
                     b'caf\xe9.png,b.png,identical,1.000000,0\nb.png,c.png,similar,0.981,3\n'
                     b'b.png,d.png,similar,0.95,3\n')
    places = {b'caf\xe9.png': 0, b'b.png': 1, b'd.png': 3}
    assert read_pairs(file, 0.98, places.get) == ([0], [1], ['c.png'])
    assert read_pairs(file, 0.0, places.get) == ([0, 1], [1, 3], ['c.png'])
    file.write_text('a,b\n')
    with pytest.raises(ValueError, match='columns first and second'):
        read_pairs(file, 0, {}.get)
    with pytest.raises(FileNotFoundError, match='neighbours'):
        read_pairs(tmp_path / 'no.csv', 0, {}.get)


@pytest.mark.parametrize('value', [
    'patient', {}, dict(column='a', pattern='b'), dict(colum='a'), dict(column='a', similarity=1)])
def test_unknown_keys(value):
    with pytest.raises(ValueError, match='instance_key=.* is unknown: choose'):
        InstanceKey.of(value)


def test_a_pattern_that_is_none():
    with pytest.raises(ValueError, match='not a regular expression: '):
        InstanceKey.of(dict(pattern='('))
    assert InstanceKey.of(None) is None
    assert InstanceKey.of(dict(column='a', _scope_='mmpretrain')).column == 'a'
