# SPDX-License-Identifier: Apache-2.0
"""Which pictures the tools take where none are named."""
import zipfile

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from pic_plugin.analysis.inputs import open_inputs
from pic_plugin.engine.config_file import find_config

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def write_config(folder, **settings):
    """Of a training on the pictures in a folder, as its user copies it."""
    cfg = Config.fromfile(find_config('pic_folder.py'))
    cfg.merge_from_dict(settings)
    cfg.dump(folder / 'config.py')
    return str(folder / 'config.py')


def copied(folder, data_root):
    text = find_config('pic_folder.py').read_text()
    (folder / 'config.py').write_text(text.replace("'data/images'", repr(str(data_root))))
    return str(folder / 'config.py')


@pytest.mark.parametrize('ending', ['.webp', '.tiff', '.jpg'])
def test_pictures_of_a_folder_of_any_ending(tmp_path, ending):
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / f'a{ending}'), PICTURE)
    cv2.imwrite(str(tmp_path / 'images' / 'b.png'), PICTURE)
    images = open_inputs(copied(tmp_path, tmp_path / 'images')).images
    assert [name.rpartition('/')[2] for name in images.names] == [f'a{ending}', 'b.png']
    assert [images.read(index).shape for index in range(2)] == [PICTURE.shape] * 2
    assert images.note == ''


def test_pictures_in_an_archive(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), PICTURE)
    with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as archive:
        archive.write(tmp_path / 'a.png', 'a.png')
    images = open_inputs(copied(tmp_path, tmp_path / 'images.zip')).images
    np.testing.assert_array_equal(images.read(0), PICTURE)


@pytest.mark.parametrize('evaluated', ['CustomDataset', 'ImageFiles'])
@pytest.mark.parametrize('elsewhere', [False, True])
def test_pictures_of_the_training_where_others_cannot_be_read(tmp_path, evaluated, elsewhere,
                                                              capsys):
    """Arrays, which the data set of the training alone is told to read."""
    (tmp_path / 'images').mkdir()
    np.save(tmp_path / 'images' / 'a.npy', PICTURE)
    place = str(tmp_path / 'images')
    config = write_config(tmp_path, **{
        'train_dataloader.dataset.data_root': place,
        'train_dataloader.dataset.extensions': ['.npy'],
        'test_dataloader.dataset.type': evaluated,
        'test_dataloader.dataset.data_root': str(tmp_path / 'gone') if elsewhere else place})
    images = open_inputs(config).images
    np.testing.assert_array_equal(images.read(0), PICTURE)
    assert 'those of its training' in images.note
    assert 'gone' in images.note if elsewhere else place in images.note


def test_where_nothing_can_be_read_the_first_reason_is_told(tmp_path):
    config = write_config(tmp_path, **{
        'train_dataloader.dataset.data_root': str(tmp_path / 'neither'),
        'test_dataloader.dataset.data_root': str(tmp_path / 'gone')})
    with pytest.raises(FileNotFoundError, match='gone'):
        open_inputs(config)
    (tmp_path / 'empty').mkdir()
    config = write_config(tmp_path, **{
        'train_dataloader.dataset.data_root': str(tmp_path / 'neither'),
        'test_dataloader.dataset.type': 'CustomDataset',
        'test_dataloader.dataset.data_root': str(tmp_path / 'empty')})
    with pytest.raises(ValueError, match='Found 0 files'):
        open_inputs(config)
