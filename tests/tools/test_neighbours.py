# SPDX-License-Identifier: Apache-2.0
"""The neighbours tool on pictures of CIFAR-10."""
import csv

import cv2
import pytest

from pic_plugin.datasets import ImageGrid
from pic_plugin.tools import neighbours
from pic_plugin.tools.neighbours import main


def read(file):
    with open(file, newline='') as stream:
        return list(csv.DictReader(stream))


def write(folder, numbers):
    grid = ImageGrid('cifar10_test_1000.webp', indices=numbers)
    for number, sample in zip(numbers, grid):
        file = folder / str(sample['gt_label']) / f'{number}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), sample['img'])
    return sample['img']


def test_a_planted_copy_is_found(tmp_path, capsys):
    last = write(tmp_path / 'images', [0, 1, 150, 151, 152])
    cv2.imwrite(str(tmp_path / 'images' / '1' / 'copy.png'), last)
    (tmp_path / 'images' / '1' / 'broken.png').touch()
    out = tmp_path / 'out'
    main(['pic_demo.py', 'random', '--images', str(tmp_path / 'images'), '--out', str(out),
          '--queries', '1/152.png', '0/0.png', '--count', '3', '--duplicates', '0.999999',
          '--device', 'cpu'])
    rows = read(out / 'neighbours.csv')
    assert [(row['query'], row['rank']) for row in rows] == [
        (query, str(rank)) for query in ('1/152.png', '0/0.png') for rank in (1, 2, 3)]
    assert rows[0]['neighbour'] == '1/copy.png' and float(rows[0]['similarity']) > 0.9999
    assert all(row['neighbour'] != row['query'] for row in rows)
    pairs = read(out / 'duplicates.csv')
    assert [(pair['first'], pair['second'], pair['kind']) for pair in pairs] == [
        ('1/152.png', '1/copy.png', 'identical')]
    assert '1 pair with a similarity of 0.999999 and above, 1 of them' in capsys.readouterr().out
    assert cv2.imread(str(out / 'neighbours.png')).std() > 10
    assert '<svg' in (out / 'neighbours.svg').read_text()


@pytest.mark.parametrize('numbers, arguments, message', [
    ([3], [], 'one picture has no neighbours'),
    ([3, 4], ['--queries', 'x.png'], 'x.png is not one of'),
    ([3, 4], ['--duplicates', '0'], 'above 0')])
def test_bad_input_is_one_line(tmp_path, monkeypatch, numbers, arguments, message):
    write(tmp_path / 'images', numbers)
    if arguments:  # before hours of computing
        monkeypatch.setattr(neighbours, 'extract', None)
    with pytest.raises(SystemExit, match=message):
        main(['pic_demo.py', 'random', '--images', str(tmp_path / 'images'), '--device', 'cpu',
              '--out', str(tmp_path / 'out'), *arguments])
