# SPDX-License-Identifier: Apache-2.0
"""Bank files: what is written is read again, and nothing else is ever taken for it."""
from __future__ import annotations

import io
import json
import pickle
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pic_plugin.bank import BankFileError, bank_file, read_bank, write_bank

HEADER = dict(num_instances=10, num_negatives=None, seed=2**40, correct=True, token='ab"\nß')
FUZZ = settings(max_examples=300,
                suppress_health_check=[HealthCheck.function_scoped_fixture])


def transitions(count=5):
    products = np.random.default_rng(1).normal(size=(count, 2, 2))
    return dict(closed_0=products, open_0=products[:0])


def chunks():
    rng = np.random.default_rng(0)
    for count in (3, 0, 2):
        values = rng.normal(size=(count, 2, 4)).astype(np.float32)
        yield rng.integers(0, 2**60, count), rng.integers(0, 9, count), values


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp('bank') / 'whole.bank'
    write_bank(path, HEADER, transitions(), chunks())
    return path.read_bytes()


def read_all(path):
    return list(read_bank(path))


def test_round_trip(tmp_path, monkeypatch):
    monkeypatch.setattr(bank_file, 'SECTION_STEPS', 2)
    path = tmp_path / 'a.bank'
    path.write_bytes(b'an old file')
    write_bank(path, HEADER, transitions(), chunks())
    assert [file.name for file in tmp_path.iterdir()] == ['a.bank']
    sections = read_all(path)
    assert sections[0] == ('header', HEADER, {})
    found = {}
    for kind, values, arrays in sections[1:]:
        if kind == 'transitions':
            found.setdefault(values['name'], []).append(arrays['products'])
    assert len(found['closed_0']) == 3, 'five steps in sections of two'
    for name, expected in transitions().items():
        np.testing.assert_array_equal(np.concatenate(found[name]), expected)
    rows = [arrays for kind, _, arrays in sections if kind == 'rows']
    for arrays, (ids, steps, values) in zip(rows, chunks()):
        for name, expected in (('ids', ids), ('steps', steps), ('values', values)):
            np.testing.assert_array_equal(arrays[name], expected)
            assert arrays[name].dtype == expected.dtype and arrays[name].shape == expected.shape
    assert len(rows) == 3


def test_other_byte_orders_and_layouts(tmp_path):
    ids = np.arange(6, dtype='>i8')[::2]
    values = np.asfortranarray(np.arange(24, dtype='>f4').reshape(3, 2, 4))
    write_bank(tmp_path / 'a.bank', {}, {}, iter([(ids, ids, values)]))
    arrays = read_all(tmp_path / 'a.bank')[1][2]
    np.testing.assert_array_equal(arrays['ids'], [0, 2, 4])
    np.testing.assert_array_equal(arrays['values'], values)


def assert_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(BankFileError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert 'resume from an earlier checkpoint' in str(caught.value)


def test_truncated_anywhere(tmp_path, content):
    for length in range(len(content)):
        assert_refused(tmp_path / 'cut.bank', content[:length])


def flip(content, bit):
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_a_flipped_bit_in_each_byte(tmp_path, content):
    for byte in range(len(content)):
        assert_refused(tmp_path / 'flipped.bank', flip(content, 8 * byte + byte % 8))


@FUZZ
@given(st.data())
def test_any_flipped_bit(tmp_path, content, data):
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    assert_refused(tmp_path / 'flipped.bank', flip(content, bit))


def test_something_after_the_end(tmp_path, content):
    assert_refused(tmp_path / 'long.bank', content + b'\0')
    assert_refused(tmp_path / 'long.bank', content + content)


def test_sections_that_are_missing_or_there_twice(tmp_path, content):
    file, bounds = io.BytesIO(content), []
    file.seek(len(bank_file.MAGIC))
    while not bounds or bounds[-1] < len(content):
        bounds.append(file.tell())
        if bounds[-1] < len(content):
            skip_section(file)
    assert len(bounds) == 8, 'header, two parts of transitions, three of rows, the end'
    for start, end in zip(bounds, bounds[1:]):
        assert_refused(tmp_path / 'lacking.bank', content[:start] + content[end:])
        assert_refused(tmp_path / 'doubled.bank', content[:end] + content[start:])


def skip_section(file):
    sizes = dict(zip(('<i8', '<f4', '<f8'), (8, 4, 8)))
    for _, dtype, shape in json.loads(file.readline())['arrays']:
        file.seek(sizes[dtype] * int(np.prod(shape)), io.SEEK_CUR)
    file.seek(4, io.SEEK_CUR)


@FUZZ
@given(st.data())
def test_spliced_content(tmp_path, content, data):
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    spliced = content[:start] + data.draw(st.binary(max_size=80)) + content[end:]
    if spliced != content:
        assert_refused(tmp_path / 'spliced.bank', spliced)


class Alarm:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return pytest.fail, ('a foreign file was executed', )


def foreign_files():
    tensors = io.BytesIO()
    torch.save(dict(weight=torch.ones(3)), tensors)
    arrays = io.BytesIO()
    np.save(arrays, np.array([Alarm()], dtype=object), allow_pickle=True)
    alarm = pickle.dumps(Alarm())
    return dict(empty=b'', text=b'PICBANK2\nnot this one', checkpoint=tensors.getvalue(),
                numpy=arrays.getvalue(), pickled=alarm, pickled_inside=bank_file.MAGIC + alarm)


@pytest.mark.parametrize('name', foreign_files())
def test_foreign_files(tmp_path, name):
    assert_refused(tmp_path / f'{name}.bank', foreign_files()[name])


def section(header, body=b''):
    """A section whose checksum is right, whatever it says."""
    line = header if isinstance(header, bytes) else json.dumps(header).encode()
    line += b'\n'
    return line + body + zlib.crc32(body, zlib.crc32(line)).to_bytes(4, 'little')


def announcing(*arrays):
    return dict(kind='rows', values={}, arrays=list(arrays))


@pytest.mark.parametrize('header', [
    b'[' * 60000,
    b'1' * 60000,
    b'{"kind": "rows"}',
    b'\xff\xfe',
    [],
    'rows',
    announcing(['ids', '|O', [1]]),
    announcing(['ids', 'O', [1]]),
    announcing(['ids', ['<i8'], [1]]),
    announcing(['ids', '<i8', [-1]]),
    announcing(['ids', '<i8', ['1']]),
    announcing(['ids', '<i8', 1]),
    announcing(['ids', '<i8', [2**39]]),
    announcing(['ids', '<i8', [2**39, 2**39, 2**39]]),
    announcing(['ids', '<i8', [0, 2**39, 2**39]]),
    announcing(['ids', '<i8', [0] * 1000]),
    announcing(['ids', '<i8']),
], ids=lambda header: repr(header)[:50])
def test_headers_that_no_writer_makes(tmp_path, header):
    assert_refused(tmp_path / 'odd.bank', bank_file.MAGIC + section(header))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=4)
    | st.sampled_from(['<i8', '<f4', '<f8', 'O', 'ids']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(['kind', 'values', 'arrays']), inner, max_size=3), max_leaves=12)


@FUZZ
@given(JSON, st.binary(max_size=64))
def test_any_header_is_read_or_refused(tmp_path, header, body):
    path = tmp_path / 'fuzz.bank'
    path.write_bytes(bank_file.MAGIC + section(header, body) + b'\n')
    with pytest.raises(BankFileError, match='fuzz.bank'):  # there is never a proper end
        read_all(path)


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(['<i8', '<f4', '<f8', '|O', '<i4']),
                          st.lists(st.integers(-1, 5) | st.just(2**38), max_size=4)), max_size=3),
       st.binary(max_size=200))
def test_any_announcement_is_read_or_refused(tmp_path, arrays, body):
    header = announcing(*([f'array_{i}', *array] for i, array in enumerate(arrays)))
    path = tmp_path / 'fuzz.bank'
    path.write_bytes(bank_file.MAGIC + section(header, body))
    with pytest.raises(BankFileError, match='fuzz.bank'):
        read_all(path)


def test_missing_file_and_folder(tmp_path):
    (tmp_path / 'folder.bank').mkdir()
    for name in ('none.bank', 'folder.bank'):
        with pytest.raises(BankFileError, match=f'{name} cannot be read.*copy it beside'):
            read_all(tmp_path / name)


def test_failed_write_leaves_the_old_file(tmp_path, content):
    path = tmp_path / 'a.bank'
    path.write_bytes(content)

    def breaks_down():
        yield next(chunks())
        raise OSError(28, 'No space left on device')

    with pytest.raises(OSError, match='No space'):
        write_bank(path, HEADER, transitions(), breaks_down())
    with pytest.raises(TypeError):
        write_bank(path, dict(seed=object()), {}, chunks())
    with pytest.raises(ValueError, match='section header of .* bytes is too long'):
        write_bank(path, dict(token='x' * 2**16), {}, chunks())
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ['a.bank']
