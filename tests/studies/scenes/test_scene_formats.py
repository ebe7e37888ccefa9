# SPDX-License-Identifier: Apache-2.0
"""The files of scenes, read back by rules of the formats that are written down here anew."""
import json
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from pic_plugin.studies.scenes import scene_formats as formats
from pic_plugin.studies.scenes.scenes import make_scene


@pytest.fixture(scope='module')
def scenes():
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    return [make_scene(photos, list(range(10)) * 2, (80, 60), np.random.default_rng(i), (2, 5))
            for i in range(8)]


def close(path, image):
    """JPEG loses little of a photo but much of noise: only gross faults show."""
    loaded = cv2.imread(str(path))
    return loaded.shape == image.shape and np.abs(loaded.astype(int) - image).mean() < 40


def test_voc(tmp_path, scenes):
    formats.write_voc(dict(train=scenes[:4], aug=scenes[4:6], val=scenes[6:]), tmp_path)
    difficult = 0
    for split, members in (('train', scenes[:4]), ('aug', scenes[4:6]), ('val', scenes[6:])):
        names = (tmp_path / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()
        assert names == (tmp_path / 'ImageSets/Segmentation' / f'{split}.txt').read_text().split()
        assert len(names) == len(members)
        for name, scene in zip(names, members):
            assert close(tmp_path / 'JPEGImages' / f'{name}.jpg', scene.image)
            root = ElementTree.parse(tmp_path / 'Annotations' / f'{name}.xml').getroot()
            assert (root.find('size/width').text, root.find('size/height').text) == ('80', '60')
            elements = root.findall('object')
            assert len(elements) == len(scene.objects)
            folder = 'SegmentationClassAug' if split == 'aug' else 'SegmentationClass'
            labels = np.asarray(Image.open(tmp_path / folder / f'{name}.png'))
            assert labels.shape == (60, 80)
            for element, item in zip(elements, scene.objects):
                # 1-based, the last pixel included.
                x0, y0, x1, y1 = (int(element.find(f'bndbox/{tag}').text)
                                  for tag in ('xmin', 'ymin', 'xmax', 'ymax'))
                assert item.mask[y0 - 1:y1, x0 - 1:x1].sum() == item.mask.sum()
                assert item.mask[y0 - 1].any() and item.mask[:, x1 - 1].any()
                number = formats.VOC_CLASSES.index(element.find('name').text)
                assert set(np.unique(labels[item.mask])) <= {number, 255}
                assert (labels[item.mask] == number).any()
                difficult += element.find('difficult').text == '1'
            outside = ~np.any([item.mask for item in scene.objects], axis=0)
            assert (labels[outside] == 0).all()
    assert difficult, 'these scenes have one'


def test_coco(tmp_path, scenes):
    formats.write_coco(dict(val2017=scenes), tmp_path)
    content = json.loads((tmp_path / 'annotations' / 'instances_val2017.json').read_text())
    assert [image['id'] for image in content['images']] == list(range(8))
    names = {category['id']: category['name'] for category in content['categories']}
    assert len(names) == 80 and (names[1], names[13], names[90]) == (
        'person', 'stop sign', 'toothbrush')
    used = {names[annotation['category_id']] for annotation in content['annotations']}
    assert used <= set(formats.COCO_NAMES) and len(used) > 5
    ids = [annotation['id'] for annotation in content['annotations']]
    assert ids == list(range(1, len(ids) + 1)), 'pycocotools takes 0 for no match'
    crowds = 0
    for image, scene in zip(content['images'], scenes):
        assert close(tmp_path / 'val2017' / image['file_name'], scene.image)
        annotations = [a for a in content['annotations'] if a['image_id'] == image['id']]
        union = np.zeros((60, 80), bool)
        for annotation in annotations:
            if annotation['iscrowd']:
                crowds += 1
                mask = decode_runs(annotation['segmentation'])
                assert mask.sum() == annotation['area']
            else:
                mask = np.zeros((60, 80), np.uint8)
                for polygon in annotation['segmentation']:
                    cv2.fillPoly(mask, [np.reshape(polygon, (-1, 2)).astype(int)], 1)
                mask = mask.astype(bool)
                # An outline through the centres of the outermost pixels.
                assert abs(mask.sum() - annotation['area']) <= 0.1 * annotation['area'] + 2
            x, y, width, height = annotation['bbox']
            assert mask[y:y + height, x:x + width].sum() == mask.sum()
            union |= mask
        expected = np.any([item.mask for item in scene.objects], axis=0)
        assert (union & expected).sum() / (union | expected).sum() > 0.95
    assert crowds


def decode_runs(encoding):
    """COCO's rule, pixel by pixel."""
    height, width = encoding['size']
    assert sum(encoding['counts']) == height * width
    values, value = [], 0
    for run in encoding['counts']:
        values += [value] * run
        value = 1 - value
    return np.array([[values[column * height + row] for column in range(width)]
                     for row in range(height)], dtype=bool)


@pytest.mark.parametrize('rows', ['100 010', '000', '111', '011'])
def test_run_lengths(rows):
    mask = np.array([[int(value) for value in row] for row in rows.split()], dtype=bool)
    assert np.array_equal(decode_runs(formats.run_lengths(mask)), mask)


def test_polygons_are_what_pycocotools_reads():
    mask_tools = pytest.importorskip('pycocotools.mask', reason='pycocotools comes with mmdet')
    mask = np.zeros((20, 30), bool)
    mask[3:9, 5:17] = True
    encoded = mask_tools.merge(mask_tools.frPyObjects(formats.polygons(mask), 20, 30))
    decoded = mask_tools.decode(encoded).astype(bool)
    assert (decoded & mask).sum() / (decoded | mask).sum() > 0.75


def test_cityscapes(tmp_path, scenes):
    formats.write_cityscapes(dict(train=scenes), tmp_path)
    images = sorted(tmp_path.glob('leftImg8bit/train/*/*_leftImg8bit.png'))
    assert len(images) == 8
    for path, scene in zip(images, scenes):
        assert np.array_equal(cv2.imread(str(path)), scene.image)
        labels = cv2.imread(
            str(path).replace('leftImg8bit.png', 'gtFine_labelTrainIds.png').replace(
                'leftImg8bit', 'gtFine'), cv2.IMREAD_UNCHANGED)
        assert labels.ndim == 2 and set(np.unique(labels)) <= {*range(19), 255}
        for item in scene.objects:
            inner = labels[item.mask]
            assert set(np.unique(inner)) <= {formats.CITYSCAPES_IDS[item.label], 255}
        outside = ~np.any([item.mask for item in scene.objects], axis=0)
        outside_above = outside[:scene.horizon]
        assert (labels[:scene.horizon][outside_above] == 10).all()
        assert (labels[scene.horizon:][outside[scene.horizon:]] == 0).all()
