# SPDX-License-Identifier: Apache-2.0
"""The saliency tool on pictures of CIFAR-10 and on bad input."""
import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from pic_plugin.datasets import ImageGrid
from pic_plugin.tools.saliency import main

CONFIG = 'pic_demo.py'
FAST = ['--patch', '16', '--stride', '8', '--device', 'cpu']


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Two checkpoints of the demo's network with random weights, and CIFAR-10 by class."""
    folder = tmp_path_factory.mktemp('inputs')
    from pic_plugin.engine.config_file import find_config
    cfg = Config.fromfile(find_config(CONFIG))
    for name, seed in (('first', 0), ('second', 1)):
        torch.manual_seed(seed)
        model = MODELS.build(cfg.model)
        torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()),
                   folder / f'{name}.pth')
    grid = ImageGrid('cifar10_test_1000.webp', indices=[0, 1, 2, 150, 151, 152])
    for i in range(len(grid)):
        sample = grid[i]
        file = folder / 'images' / str(sample['gt_label']) / f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), sample['img'])
    return folder


def read(file):
    with open(file, newline='') as stream:
        return list(csv.DictReader(stream))


def pixels(file):
    picture = cv2.imread(str(file))
    assert picture is not None and picture.std() > 10, f'{file} shows nothing'
    return picture


def test_one_network(inputs, tmp_path, capsys):
    main([CONFIG, str(inputs / 'first.pth'), '--images', str(inputs / 'images'),
          '--out', str(tmp_path), *FAST])
    rows = read(tmp_path / 'saliency.csv')
    assert [row['image'] for row in rows] == ['0/0.png', '0/1.png', '0/2.png', '1/3.png', '1/4.png',
                                              '1/5.png']
    assert all(0 < float(row['region']) < 1 and float(row['largest_distance']) > 0 for row in rows)
    summary = json.loads((tmp_path / 'saliency.json').read_text())
    assert summary['images'] == 6 and summary['settings']['places'] == 9
    pixels(tmp_path / 'saliency.png')
    assert '6 images, 9 places' in capsys.readouterr().out


def test_series_against_another_with_a_bad_picture(inputs, tmp_path, capsys):
    images = tmp_path / 'images'
    shutil.copytree(inputs / 'images', images)
    (images / '0' / 'broken.png').write_bytes(b'\x89PNG')
    cv2.imwrite(str(images / '1' / 'large.jpg'), np.random.default_rng(0).integers(
        0, 256, (50, 90, 3), dtype=np.uint8))
    first, second = str(inputs / 'first.pth'), str(inputs / 'second.pth')
    main([CONFIG, second, first, '--images', str(images), '--against', first,
          '--out', str(tmp_path / 'out'), '--show', '3', *FAST])
    rows = read(tmp_path / 'out' / 'saliency.csv')
    assert len(rows) == 7
    assert all(float(row['iou']) == 1 for row in rows)  # the last checkpoint is the other network
    summary = json.loads((tmp_path / 'out' / 'saliency.json').read_text())
    assert [overlap['images'] for overlap in summary['overlap']] == [7, 7]
    assert summary['overlap'][1]['mean'] == summary['overlap'][1]['share_above'] == 1
    assert summary['overlap'][0]['mean'] < 1
    assert all(0 <= point['accuracy'] <= 100 for point in summary['series'])
    assert [skipped[0] for skipped in summary['skipped']] == ['0/broken.png']
    assert 'left out 0/broken.png' in capsys.readouterr().err
    for name in ('saliency', 'overlap', 'series'):
        pixels(tmp_path / 'out' / f'{name}.png')
        assert '<svg' in (tmp_path / 'out' / f'{name}.svg').read_text()


def test_one_picture_of_the_config_against_random(inputs, tmp_path):
    main([CONFIG, str(inputs / 'first.pth'), '--against', 'random', '--num-images', '1',
          '--out', str(tmp_path), *FAST])
    summary = json.loads((tmp_path / 'saliency.json').read_text())
    overlap = summary['overlap'][0]
    assert overlap['images'] == 1 and 0 <= overlap['mean'] <= 1
    assert overlap['standard_error'] is None and overlap['other_image_mean'] is None


@pytest.mark.parametrize('arguments, message', [
    (['missing.pth'], 'there is no checkpoint missing.pth'),
    (['{first}', '--images', '{first}'], 'give the folder of pictures that holds it'),
    (['{first}', '--patch', '33'], 'patch from 1 to 32'),
    (['{first}', '--num-images', '0'], 'at least 1'),
    (['{first}', '--region', '2'], 'between 0 and 1'),
    (['{text}'], 'is not a checkpoint'),
    (['{first}', '--device', 'cuda'], "saliency: torch cannot use the device 'cuda'")])
def test_bad_input_is_one_line(inputs, tmp_path, arguments, message):
    (tmp_path / 'text.pth').write_text('no checkpoint')
    given = [argument.format(first=inputs / 'first.pth', text=tmp_path / 'text.pth')
             for argument in arguments]
    with pytest.raises(SystemExit, match=message):
        main([CONFIG, '--out', str(tmp_path), '--device', 'cpu', *given])
