# SPDX-License-Identifier: Apache-2.0
"""What the plan of a training says of its data."""
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.datasets import CustomDataset

from pic_plugin.datasets import ImageFiles
from pic_plugin.datasets.plan import describe_data


def test_every_data_set_says_what_it_found_and_left_out(tmp_path, images):
    images(tmp_path / 'a', ['1.png', 'x.dcm', '@eaDir/1.png'])
    images(tmp_path / 'b', ['2.png', '3.jpg'], first=5)
    text = '\n'.join(describe_data(ConcatDataset([
        ImageFiles(str(tmp_path / 'a'), pipeline=[]), ImageFiles(str(tmp_path / 'b'), pipeline=[])
    ])))
    assert f'{tmp_path}/a:\nPictures: 1 (1 .png).' in text
    assert 'Left out: 1 picture in folders that are of the system (@eaDir/1.png).' in text
    assert 'Left out: 1 .dcm file,' in text
    assert f'{tmp_path}/b:\nPictures: 2 (1 .png, 1 .jpg).' in text
    assert 'samples' not in text


def test_black_and_white_are_said(tmp_path, images):
    images(tmp_path, ['1.png'])
    dataset = ImageFiles(str(tmp_path), pipeline=[
        dict(type='DecodeRandomCrop', size=8, value_range=(1003, 1241))])
    assert 'Pixels: 1003 is taken for black and 1241 for white.' in describe_data(dataset)


def test_a_data_set_of_mmpretrain_leaves_nothing_out_in_silence(tmp_path, images):
    images(tmp_path, ['1.png', '2.webp', 'a.heic', '.thumbnails/1.png'])
    dataset = CustomDataset(data_root=str(tmp_path), with_label=False, pipeline=[])
    assert len(dataset) == 2
    text = '\n'.join(describe_data(dataset))
    assert f'CustomDataset of {tmp_path}:\nPictures: 1 (1 .png).' in text
    assert '1 .heic file,' in text and '1 .webp file, whose ending is not asked for' in text
    assert 'CustomDataset trains on 1 of those left out all the same' in text


def test_endings_as_people_write_them(tmp_path, images):
    images(tmp_path, ['1.png', '2.jpg'])
    dataset = CustomDataset(data_root=str(tmp_path), with_label=False, pipeline=[],
                            extensions=['png'])
    assert 'Pictures: 1 (1 .png).' in '\n'.join(describe_data(dataset))


def test_copies_are_said(tmp_path, images):
    images(tmp_path, ['1.png', '2.png'])
    text = '\n'.join(describe_data(RepeatDataset(ImageFiles(str(tmp_path)), times=3)))
    assert 'RepeatDataset shows 2 images as 6 samples: copies of an image are one class' in text
    assert describe_data(range(5)) == []
