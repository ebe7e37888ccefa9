# SPDX-License-Identifier: Apache-2.0
"""Millions of names in one array, against a list."""
import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pic_plugin.datasets import file_names
from pic_plugin.datasets.file_names import NameList, hash_names, printable


@given(st.lists(st.binary(max_size=20)))
def test_it_is_a_list(names):
    kept = NameList.of(iter(names))
    assert list(kept) == names and len(kept) == len(names)
    assert [kept[i] for i in range(len(names))] == names
    assert list(pickle.loads(pickle.dumps(kept))) == names


@pytest.mark.parametrize('count', [0, 6, 7, 8, 50])
def test_chunks(monkeypatch, count):
    monkeypatch.setattr(file_names, 'CHUNK', 7)
    names = [b'x' * (i % 5) + str(i).encode() for i in range(count)]
    assert list(NameList.of(names)) == names


def test_hash_is_blake2b():
    digest = hashlib.blake2b(b'caf\xe9', digest_size=8).digest()
    assert hash_names([b'caf\xe9']).tolist() == [int.from_bytes(digest, 'little', signed=True)]


def test_bytes_that_are_no_text_are_printed():
    assert printable(b'caf\xe9') == 'caf\\xe9' == printable('caf\udce9')
    assert printable('café') == 'café'
    printable('caf\udce9').encode('utf-8')
