# SPDX-License-Identifier: Apache-2.0
"""ImageGrid: tiles, labels and ids, the shipped pictures, and what it refuses."""
import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, pseudo_collate
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from pic_plugin.datasets import ImageGrid
from pic_plugin.datasets.cifar10_archive import CLASSES

PACK = dict(type='PackInputs', meta_keys=('sample_idx', ))


@pytest.fixture
def picture(tmp_path):
    """A PNG of 3 rows of 4 tiles, 8 pixels each, of noise; its path and BGR pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'grid.png'), pixels)
    return tmp_path / 'grid.png', pixels


def tile(pixels, i):
    row, column = divmod(i, 4)
    return pixels[8 * row:8 * row + 8, 8 * column:8 * column + 8]


def test_tiles_labels_and_ids(picture):
    path, pixels = picture
    dataset = ImageGrid(str(path), tile_size=8, classes=['a', 'b', 'c'])
    assert len(dataset) == 12
    for i in range(12):
        sample = dataset[i]
        assert np.array_equal(sample['img'], tile(pixels, i)) and sample['img'].dtype == np.uint8
        assert sample['gt_label'] == i // 4 and sample['sample_idx'] == i
        assert sample['img_shape'] == sample['ori_shape'] == (8, 8)
    assert dataset.get_gt_labels().tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.metainfo['classes'] == ('a', 'b', 'c')
    assert str(path) in repr(dataset)


def test_samples_may_be_changed_in_place(picture):
    path, pixels = picture
    dataset = ImageGrid(str(path), tile_size=8, with_label=False)
    dataset[3]['img'][:] = 0
    assert np.array_equal(dataset[3]['img'], tile(pixels, 3))


def test_without_labels_and_with_padding(picture):
    path, pixels = picture
    dataset = ImageGrid(str(path), tile_size=8, num_images=10, with_label=False)
    assert len(dataset) == 10 and 'gt_label' not in dataset[0]
    assert np.array_equal(dataset[9]['img'], tile(pixels, 9))
    labelled = ImageGrid(str(path), tile_size=8, num_images=10, classes=list('abcde'))
    assert labelled.get_gt_labels().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('lazy', [True, False])
def test_indices_keep_each_tile_with_its_label(picture, serialize, lazy):
    path, pixels = picture
    dataset = ImageGrid(str(path), tile_size=8, classes=['a', 'b', 'c'], indices=[11, 0, 5],
                        serialize_data=serialize, lazy_init=lazy)
    samples = [dataset[i] for i in range(3)]
    for i, (sample, number) in enumerate(zip(samples, [11, 0, 5])):
        assert np.array_equal(sample['img'], tile(pixels, number))
        # The id is the index in this data set: 0 to N - 1 without gaps.
        assert (sample['gt_label'], sample['sample_idx']) == (number // 4, i)


@pytest.mark.parametrize('start, num_workers', [('fork', 2), ('forkserver', 1)])
def test_loader_workers(picture, start, num_workers):
    path, pixels = picture
    dataset = ImageGrid(str(path), tile_size=8, classes=['a', 'b'], pipeline=[PACK])
    loader = DataLoader(dataset, batch_size=5, num_workers=num_workers, collate_fn=pseudo_collate,
                        multiprocessing_context=start)
    seen = []
    for batch in loader:
        for image, sample in zip(batch['inputs'], batch['data_samples']):
            expected = tile(pixels, sample.sample_idx).transpose(2, 0, 1)
            assert np.array_equal(image.numpy(), expected)
            assert sample.gt_label.tolist() == [sample.sample_idx // 6]
            seen.append(sample.sample_idx)
    assert seen == list(range(12))


def test_relative_path_is_looked_up_in_data_root_first(picture, tmp_path, monkeypatch):
    path, _ = picture
    assert len(ImageGrid('grid.png', 8, data_root=str(tmp_path), with_label=False)) == 12
    monkeypatch.chdir(tmp_path)
    assert len(ImageGrid('grid.png', 8, with_label=False)) == 12
    # A file of one's own by a shipped picture's name comes first, and is no CIFAR-10.
    (tmp_path / 'cifar10_test_1000.webp').write_bytes(path.read_bytes())
    own = ImageGrid('cifar10_test_1000.webp', 8, with_label=False)
    assert len(own) == 12 and own.metainfo.get('classes') is None


@pytest.mark.parametrize('name, number', [('cifar10_train_5000.webp', 5000),
                                          ('cifar10_test_1000.webp', 1000)])
def test_shipped_pictures(name, number):
    dataset = DATASETS.build(dict(type='ImageGrid', img_file=name))
    assert len(dataset) == number and dataset.metainfo['classes'] == CLASSES
    labels = dataset.get_gt_labels()
    assert np.bincount(labels).tolist() == [number // 10] * 10
    # Photographs, not noise or a shifted grid: neighbouring pixels within a tile are alike (about
    # 5 grey values of 255 apart), which they are not across the border of two tiles.
    tiles = np.stack([dataset[i]['img'] for i in range(0, number, 10)]).astype(int)
    inside = np.abs(np.diff(tiles, axis=2)).mean()
    across = np.abs(tiles[:-1, :, -1] - tiles[1:, :, 0]).mean()
    assert 2 < inside < 20 < 3 * inside < across
    # Planes and ships are before sky and sea: the blue channel, first in BGR, stands out.
    of_class = [tiles[labels[::10] == label] for label in range(10)]
    blue = [images[..., 0].mean() - images[..., 2].mean() for images in of_class]
    assert sorted(range(10), key=lambda label: -blue[label])[:2] in ([0, 8], [8, 0])


def test_both_shipped_pictures_join_for_evaluation():
    both = ConcatDataset([
        ImageGrid('cifar10_train_5000.webp', pipeline=[dict(type='MarkReference'), PACK]),
        ImageGrid('cifar10_test_1000.webp', pipeline=[PACK])])
    assert len(both) == 6000 and both.metainfo['classes'] == CLASSES
    assert both[5999]['data_samples'].sample_idx == 999


@pytest.mark.parametrize('settings, message', [
    (dict(tile_size=7), 'is 32x24 pixels, which tiles of 7x7 do not fill'),
    (dict(tile_size=0), 'tile_size must be at least 1 pixel, not 0'),
    (dict(num_images=13), 'num_images is 13, but .*grid.png has 12 tiles'),
    (dict(num_images=0), 'num_images is 0'),
    (dict(), r'classes, which are unknown: give classes=\[...\] or with_label=False'),
    (dict(classes=list('abcde')), '12 images, which 5 classes cannot share equally'),
])
def test_bad_settings(picture, settings, message):
    with pytest.raises(ValueError, match=message):
        ImageGrid(str(picture[0]), **{'tile_size': 8, **settings})


@pytest.mark.parametrize('content', [b'', b'no picture'])
def test_bad_picture(tmp_path, content):
    (tmp_path / 'x.png').write_bytes(content)
    with pytest.raises(ValueError, match=rf'x.png \({len(content)} bytes\) is not a picture'):
        ImageGrid(str(tmp_path / 'x.png'))


def test_missing_picture_names_both_places(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        ImageGrid('nowhere.png', data_root=str(tmp_path))
    assert f'{tmp_path}/nowhere.png nor ' in str(error.value)
    assert 'pic_plugin/data/nowhere.png' in str(error.value)
    with pytest.raises(FileNotFoundError, match='there is no picture /nowhere.png: check'):
        ImageGrid('/nowhere.png')
