# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""
import csv
import json
import os
from pathlib import Path

import pytest

from pic_plugin.files import (
    check_file,
    check_folder,
    csv_text,
    replacing,
    write_atomically,
    write_csv,
    write_json,
)


def test_text_and_bytes_replace_the_old_file_and_make_its_folder(tmp_path):
    file = tmp_path / 'a' / 'b.txt'
    write_atomically(file, 'ä\n')
    assert file.read_bytes() == 'ä\n'.encode()
    write_atomically(file, os.fsdecode(b'\xff.png'))  # a name that is not UTF-8
    assert file.read_bytes() == b'\xff.png'
    write_atomically(file, b'\x00')
    assert file.read_bytes() == b'\x00' and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / 'x'
    file.write_text('old')
    with pytest.raises(error), replacing(file) as partial:
        partial.write_text('half of the n')
        assert file.read_text() == 'old'
        raise error
    assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in (tmp_path / 'a' / 'b' / 'c.txt', Path('a/b/c.txt'), Path('c.txt')):
        check_file(file)
    assert not list(tmp_path.iterdir())  # nothing is left of the trial
    (tmp_path / 'file').touch()
    check_file(tmp_path / 'file')
    with pytest.raises(OSError, match='file/a cannot be written to .*file: Not a directory'):
        check_file(tmp_path / 'file' / 'a' / 'b.txt')
    with pytest.raises(OSError, match='file cannot be written to'):
        check_folder(tmp_path / 'file')
    with pytest.raises(IsADirectoryError, match='is a folder: give the name of a file'):
        check_file(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match='cannot be written to .*Permission denied'):
        check_file(tmp_path / 'a.txt')


def test_numbers(tmp_path):
    write_csv(tmp_path / 'x.csv', ['a', 'b', 'c'], [[1, 0.5, 'x,y'], [None, float('nan'), '']])
    with open(tmp_path / 'x.csv', newline='') as lines:
        assert list(csv.reader(lines)) == [['a', 'b', 'c'], ['1', '0.500000', 'x,y'], ['', '', '']]
    assert csv_text([dict(a=1, b=0.25), dict(b=2, c='z')]) == 'a,b,c\n1,0.25,\n,2,z\n'
    write_json(tmp_path / 'x.json', dict(a=[1, None]))
    assert json.loads((tmp_path / 'x.json').read_text()) == dict(a=[1, None])
    with pytest.raises(ValueError, match='JSON compliant'):
        write_json(tmp_path / 'x.json', float('nan'))
    assert json.loads((tmp_path / 'x.json').read_text()) == dict(a=[1, None])
