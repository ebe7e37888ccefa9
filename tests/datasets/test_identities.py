# SPDX-License-Identifier: Apache-2.0
"""What images are known by when folders move, are joined and grow."""
import numpy as np
import pytest

from pic_plugin.datasets.file_names import hash_names
from pic_plugin.datasets.identities import PartNames, short_labels, tell_apart


def part(label, *names, named=False):
    return PartNames(hash_names(name.encode() for name in names), label, label if named else None)


def by_name(*parts_and_names):
    """Identity of each (label, name)."""
    parts = [part(label, *names, named=named) for label, names, named in parts_and_names]
    keys = [(label, name) for label, names, _ in parts_and_names for name in names]
    return dict(zip(keys, tell_apart(parts).tolist()))


def test_one_folder_is_known_by_names_alone():
    np.testing.assert_array_equal(tell_apart([part('/a', 'x', 'y')]), part('/b', 'x', 'y').hashes)


def test_folders_without_a_common_name_can_be_joined_and_reordered():
    one = by_name(('/a', 'xy', False))
    both = by_name(('/a', 'xy', False), ('/b', 'z', False))
    assert both == {**one, **by_name(('/b', 'z', False))}
    assert by_name(('/b', 'z', False), ('/a', 'xy', False)) == both


def test_common_names_are_told_apart_by_folder_wherever_it_lies():
    both = by_name(('/d/a', 'xy', False), ('/d/b', 'xz', False))
    assert len(set(both.values())) == 4
    moved = by_name(('/e/b', 'xz', False), ('/e/a', 'xy', False))
    assert {(k[0][-1], k[1]): v for k, v in moved.items()} == {
        (k[0][-1], k[1]): v for k, v in both.items()}
    assert both['/d/a', 'y'] == by_name(('/q', 'y', False))['/q', 'y']


def test_a_part_with_a_name_leaves_others_as_they_were():
    alone = by_name(('/d/a', 'xy', False))
    both = by_name(('/d/a', 'xy', False), ('new', 'xz', True))
    assert {key: both[key] for key in alone} == alone and len(set(both.values())) == 4


def test_parts_of_one_name_are_told_apart_by_folder():
    hashes = hash_names([b'x', b'y'])
    keys = tell_apart([PartNames(hashes, '/a', 'n'), PartNames(hashes[:1], '/b', 'n')])
    assert len(set(keys.tolist())) == 3
    # What only one of them has is known by the name alone, as before they were two.
    assert keys[1] == tell_apart([PartNames(hashes, '/a', 'n')])[1]


def test_lists_of_one_folder_share_its_images():
    keys = tell_apart([part('/a', 'x', 'y'), part('/a/', 'x', 'z'), part('/b', 'x')])
    assert keys[0] == keys[2] and len(set(keys.tolist())) == 4


@pytest.mark.parametrize('paths, labels', [
    (['/a/x', '/b/x'], ['a/x', 'b/x']), (['/a/x', '/b/y/'], ['x', 'y']),
    (['/x', '/a/x'], ['x', 'a/x']), ([], []), (['/a/x', '/a/x'], ['/a/x', '/a/x'])])
def test_labels(paths, labels):
    assert short_labels(paths) == labels
