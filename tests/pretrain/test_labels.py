# SPDX-License-Identifier: Apache-2.0
"""Labels from folders and from CSV files."""
import os
from contextlib import contextmanager

import numpy as np
import pytest

from pic_plugin.analysis.picture_reader import PictureReader
from pic_plugin.pretrain import labels
from pic_plugin.pretrain.labels import read_labels
from toys.pictures import write_classes, write_pictures, write_scans


def test_folders(tmp_path):
    folder = write_classes(tmp_path, 5)
    (folder / 'dark' / '9.png').write_bytes(b'no picture')
    found = read_labels(folder)
    assert found.classes == ['dark', 'light'] and found.num_broken == 1
    assert len(found.references) == 6 and len(found.queries) == 4
    assert not set(found.references) & set(found.queries)
    for file, label in [*found.references, *found.queries]:
        assert found.classes[label] in file and os.path.isabs(file)


def test_parts_of_a_data_set_are_no_classes(tmp_path):
    for part in ('train', 'Val', 'test'):
        write_classes(tmp_path / part, 3)
    with pytest.raises(ValueError, match='Val, test, train, which are parts.*not classes: '):
        read_labels(tmp_path)
    write_classes(tmp_path / 'cats', 3)
    assert len(read_labels(tmp_path).classes) == 4


def test_reading_many_pictures_is_counted(tmp_path, monkeypatch):
    done = []

    @contextmanager
    def counter(total):
        yield done.append
        assert total == sum(done) == 10

    monkeypatch.setattr(labels, 'progress', counter)
    read_labels(write_classes(tmp_path, 5))


@pytest.mark.parametrize('header', ['', 'file,class\n'])
def test_csv(tmp_path, header):
    write_pictures(tmp_path / 'a b', 4)
    rows = ''.join(f'a b/{number:04d}.png,{label}\n' for number, label in enumerate('xyxy'))
    (tmp_path / 'labels.csv').write_text(header + rows)
    found = read_labels(tmp_path / 'labels.csv')
    assert found.classes == ['x', 'y']
    assert [label for _, label in found.references] == [0, 1]
    assert [os.path.basename(file) for file, _ in found.queries] == ['0002.png', '0003.png']


def test_a_picture_of_several_rows_comes_once(tmp_path):
    write_pictures(tmp_path, 4)
    (tmp_path / 'link.png').symlink_to('0001.png')
    (tmp_path / 'labels.csv').write_text(''.join(
        f'{path},{label}\n' for path, label in (
            ('0000.png', 'x'), ('./0000.png', 'x'), ('0001.png', 'x'), ('link.png', 'x'),
            ('0002.png', 'y'), (f'../{tmp_path.name}/0002.png', 'y'), ('0003.png', 'y'))))
    found = read_labels(tmp_path / 'labels.csv')
    assert [os.path.basename(file) for file, _ in found.references] == ['0000.png', '0002.png']
    assert [os.path.basename(file) for file, _ in found.queries] == ['0001.png', '0003.png']


def test_any_bytes_in_a_csv(tmp_path):
    write_pictures(tmp_path, 4)
    os.rename(tmp_path / '0003.png', os.fsencode(tmp_path) + b'/caf\xe9.png')
    (tmp_path / 'x.csv').write_bytes(b'0000.png,a\n0001.png,a\n0002.png,b\ncaf\xe9.png,b\n')
    assert os.fsencode(read_labels(tmp_path / 'x.csv').queries[1][0]).endswith(b'/caf\xe9.png')


def test_what_a_network_does_not_take_is_not_readable(tmp_path):
    """Scans of 16 bits are, by Pillow; arrays are not looked for without it."""
    for name in 'ab':
        write_scans(tmp_path / 'scans' / name, 2)
        (tmp_path / 'arrays' / name).mkdir(parents=True)
        for number in range(2):
            np.save(tmp_path / 'arrays' / name / f'{number}.npy', np.zeros((8, 8, 5), np.float32))
    assert len(read_labels(tmp_path / 'scans').queries) == 2
    scans = PictureReader(channels=1, value_range=(1003, 1241))
    assert len(read_labels(tmp_path / 'scans', reader=scans).queries) == 2
    with pytest.raises(ValueError, match='has two readable pictures .not .*0.png because its '
                       'pixels are uint16'):
        read_labels(tmp_path / 'scans', reader=PictureReader())
    arrays = PictureReader(5, (0, 1), True, ('.npy', ))
    assert len(read_labels(tmp_path / 'arrays', reader=arrays).queries) == 2
    with pytest.raises(ValueError, match='has fewer than two classes'):
        read_labels(tmp_path / 'arrays')


def test_what_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='there are no labels'):
        read_labels(tmp_path / 'none')
    write_pictures(tmp_path / 'one' / 'class', 3)
    with pytest.raises(ValueError, match='has fewer than two classes'):
        read_labels(tmp_path / 'one')
    write_pictures(tmp_path / 'one', 2)
    with pytest.raises(ValueError, match='2 pictures outside of class folders'):
        read_labels(tmp_path / 'one')
    (tmp_path / 'short.csv').write_text('one/0000.png\n')
    with pytest.raises(ValueError, match='row 1: there must be a path and a label'):
        read_labels(tmp_path / 'short.csv')
    for row in ('one/0001.png,', 'one/0001.png, ', ',a'):
        (tmp_path / 'empty.csv').write_text(f'path,label\n{row}\n')
        with pytest.raises(ValueError, match='row 2: there must be a path and a label'):
            read_labels(tmp_path / 'empty.csv')
    (tmp_path / 'both.csv').write_text('one/0000.png,a\n./one/0000.png,b\none/0001.png,b\n')
    with pytest.raises(ValueError, match="0000.png the labels 'a' and 'b': give each picture one"):
        read_labels(tmp_path / 'both.csv')
    (tmp_path / 'gone.csv').write_text('one/0000.png,a\none/0009.png,b\n')
    with pytest.raises(FileNotFoundError, match='names .*0009.png'):
        read_labels(tmp_path / 'gone.csv')
    write_pictures(tmp_path / 'two' / 'a', 1)
    write_pictures(tmp_path / 'two' / 'b', 1)
    with pytest.raises(ValueError, match='no class of .* has two'):
        read_labels(tmp_path / 'two')
