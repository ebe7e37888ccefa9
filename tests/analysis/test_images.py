# SPDX-License-Identifier: Apache-2.0
"""Pictures of any kind and size, good and bad."""
import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from pic_plugin.analysis.images import (
    DatasetImages,
    FolderImages,
    evaluated_dataset,
    square,
    training_side,
)
from toys.networks import write_pictures


def test_pictures_of_all_sizes_and_bad_ones(tmp_path):
    write_pictures(tmp_path, [(40, 40), (1, 1), (7, 90), (64, 32), (1, 3000)])
    (tmp_path / 'cat' / 'empty.png').touch()
    (tmp_path / 'dog' / 'text.JPG').write_text('no picture')
    cv2.imwrite(str(tmp_path / 'dog' / 'grey.png'), np.full((9, 9), 77, np.uint8))
    (tmp_path / 'dog' / 'notes.txt').write_text('not looked at')
    images = FolderImages(tmp_path)
    assert len(images) == 8
    assert images.labels == [name.split('/')[0] for name in images.names]
    batches = list(images.batches(range(8), 16, batch_size=4))
    assert [pixels.shape for _, pixels in batches] == [(4, 16, 16, 3), (2, 16, 16, 3)]
    assert sum((indices for indices, _ in batches), []) == [
        i for i in range(8) if images.names[i] not in ('cat/empty.png', 'dog/text.JPG')]
    list(images.batches(range(8), 16, batch_size=4))  # a second reading does not count them twice
    assert sorted(skipped.name for skipped in images.skipped) == ['cat/empty.png', 'dog/text.JPG']
    assert 'not a picture' in images.skipped[0].reason


def test_labels_are_folders_only_if_all_pictures_are_in_one(tmp_path):
    write_pictures(tmp_path, [(8, 8)] * 2)
    cv2.imwrite(str(tmp_path / 'loose.png'), np.zeros((8, 8, 3), np.uint8))
    assert FolderImages(tmp_path).labels is None


def test_no_pictures_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        FolderImages(tmp_path / 'missing')
    with pytest.raises(ValueError, match='holds no pictures'):
        FolderImages(tmp_path)


def test_square_is_the_middle():
    picture = np.zeros((4, 10, 3), np.uint8)
    picture[:, 3:7] = 200
    assert (square(picture, 4) == 200).all()
    assert (square(picture, 8) == 200).all() and (square(picture, 2) == 200).all()
    assert (square(picture.transpose(1, 0, 2), 4) == 200).all()
    assert square(np.zeros((9, 7, 6), np.float32), 4).shape == (4, 4, 6)


def test_data_set_of_the_demo():
    grid = dict(type='ImageGrid', img_file='cifar10_test_1000.webp', indices=[0, 150])
    cfg = Config(dict(val_dataloader=dict(dataset=dict(
        type='ConcatDataset', datasets=[dict(type='ImageGrid', img_file='no.webp'), grid]))))
    images = DatasetImages(evaluated_dataset(cfg))
    assert images.labels == ['airplane', 'automobile']
    assert images.read(1).shape == (32, 32, 3)
    assert evaluated_dataset(Config(dict())) is None


def test_pictures_of_several_classes_have_no_label(tmp_path):
    write_pictures(tmp_path, [(8, 8)] * 2, classes=())
    (tmp_path / 'labels.json').write_text(json.dumps(dict(
        metainfo=dict(classes=['cat', 'dog']), data_list=[
            dict(img_path='00.png', gt_label=[0, 1]), dict(img_path='01.png', gt_label=[1])])))
    images = DatasetImages(dict(type='MultiLabelDataset', data_root=str(tmp_path),
                                ann_file='labels.json'))
    assert len(images) == 2 and images.labels is None


def test_batches_have_a_size(tmp_path):
    """Without, all pictures would be read at once."""
    images = FolderImages(write_pictures(tmp_path, [(8, 8)] * 2))
    with pytest.raises(ValueError, match='batch size must be at least 1, not 0'):
        next(images.batches([0, 1], 8, batch_size=0))


def test_joined_data_sets_show_each_picture_once(tmp_path):
    write_pictures(tmp_path, [(8, 8)] * 4)
    part = dict(type='ImageFiles', data_root=str(tmp_path), pipeline=[dict(type='LoadImageOrSkip')])
    cfg = dict(type='ConcatDataset', datasets=[
        dict(part, data_root=str(tmp_path / 'dog')), part,
        dict(type='RepeatDataset', times=2, dataset=dict(part, data_root=str(tmp_path / 'cat')))])
    images = DatasetImages(Config(cfg))
    assert len(images) == 4 == len(set(images.names))
    assert images.names[0].startswith(str(tmp_path / 'dog'))
    for index, name in enumerate(images.names):
        assert (images.read(index) == cv2.imread(name)).all()


def test_side_is_the_largest_crop():
    crops = [dict(type='MultiView', transforms=[
        [dict(type='torchvision/RandomResizedCrop', size=(96, 96))],
        [dict(type='RandomResizedCrop', scale=224)]])]
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=crops))))
    assert training_side(cfg) == 224
    assert training_side(Config(dict(train_dataloader=dict(dataset=dict())))) is None
