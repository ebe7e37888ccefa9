# SPDX-License-Identifier: Apache-2.0
"""DecodeImage and DecodeRandomCrop in data sets, on ordinary, odd and broken files."""
import struct

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.datasets import CustomDataset
from PIL import Image
from torch.utils.data import DataLoader

from pic_plugin.analysis.images import FolderImages
from pic_plugin.datasets import DecodeImage, DecodeRandomCrop, ImageGrid, LoadImageOrSkip
from pic_plugin.models import AugmentPreprocessor

PACK = dict(type='PackInputs', meta_keys=('sample_idx', ))


def write(path, pixels):
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), pixels)


def dataset_of(folder, transform, **settings):
    return CustomDataset(data_root=str(folder), with_label=False, pipeline=[transform, PACK],
                         extensions=('.png', '.jpg', '.tiff', '.npy'), **settings)


@pytest.fixture
def folder(tmp_path):
    """Odd images that all become 3 channels: by name, of what size and kind."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    images = tmp_path / 'images'
    write(images / 'colour.png', noise)
    write(images / 'grey.png', noise[..., 0])
    write(images / 'small.jpg', noise[:5, :7])
    write(images / 'one.png', noise[:1, :1])
    Image.fromarray(noise).convert('CMYK').save(images / 'cmyk.jpg')
    return images


@pytest.mark.parametrize('num_workers', [0, 2])
def test_odd_images_train_and_broken_ones_are_skipped(folder, num_workers):
    whole = (folder / 'small.jpg').read_bytes()
    (folder / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    (folder / 'empty.png').touch()
    dataset = dataset_of(folder, dict(type='DecodeRandomCrop', size=16))
    loader = DataLoader(dataset, batch_size=7, collate_fn=default_collate,
                        num_workers=num_workers)
    batch, = loader
    assert batch['inputs'].shape == (7, 3, 16, 16) and batch['inputs'].dtype == torch.uint8
    names = {dataset.get_data_info(sample.sample_idx)['img_path'].split('/')[-1]
             for sample in batch['data_samples']}
    assert not names & {'cut.jpg', 'empty.png'}
    assert dataset.pipeline.transforms[0].num_skipped >= 2
    view, = AugmentPreprocessor([120.] * 3, [60.] * 3, to_rgb=True)(batch, True)['inputs']
    assert view.shape == (7, 3, 16, 16) and view.isfinite().all()


def test_several_crops_come_from_one_decoding(folder, monkeypatch):
    from pic_plugin.datasets import decode_random_crop
    decoded = []
    original = decode_random_crop.decode
    monkeypatch.setattr(decode_random_crop, 'decode',
                        lambda *args: decoded.append(1) or original(*args))
    transform = dict(type='DecodeRandomCrop', crops=[
        dict(size=16, scale=(0.14, 1.0)), dict(size=(8, 6), scale=(0.08, 0.14), num_views=2)])
    sample = dataset_of(folder, transform)[0]
    assert [tuple(view.shape) for view in sample['inputs']] == [(3, 16, 16), (3, 8, 6), (3, 8, 6)]
    assert len(decoded) == 1
    assert not torch.equal(*sample['inputs'][1:])


def test_large_photos_are_decoded_at_a_fraction(tmp_path, monkeypatch):
    from pic_plugin.datasets import decode_random_crop
    seen = []
    original = decode_random_crop.decode

    def spy(*args):
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr(decode_random_crop, 'decode', spy)
    across, down = np.meshgrid(np.arange(640), np.arange(480))
    write(tmp_path / 'a.jpg', np.dstack([across // 3, down // 2, across // 3]).astype(np.uint8))
    transform = DecodeRandomCrop(size=32, scale=(1.0, 1.0), ratio=(4 / 3, 4 / 3))
    found = transform(dict(img_path=str(tmp_path / 'a.jpg')))
    assert seen[0].pixels.shape == (60, 80, 3) and seen[0].full_size == (480, 640)
    assert found['ori_shape'] == (480, 640) and found['img_shape'] == (32, 32)
    # Corners of the whole image.
    assert abs(int(found['img'][0, -1, 0]) - 210) < 6 and abs(int(found['img'][-1, 0, 1]) - 236) < 6


def test_arrays_of_a_data_set_are_cropped():
    grid = ImageGrid('cifar10_test_1000.webp', pipeline=[
        dict(type='DecodeRandomCrop', size=24), PACK])
    np.random.seed(0)
    first, second = (grid[5]['inputs'] for _ in range(2))
    assert first.shape == (3, 24, 24) and first.dtype == torch.uint8
    assert not torch.equal(first, second)
    whole = DecodeRandomCrop(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0))(grid.get_data_info(5))
    np.testing.assert_array_equal(whole['img'], grid.get_data_info(5)['img'])


@pytest.fixture
def scan(tmp_path):
    """A CT's values, 1003 to 1241, in a 16-bit PNG."""
    values = np.linspace(1003, 1241, 40 * 40).astype(np.uint16).reshape(40, 40)
    write(tmp_path / 'scan.png', values)
    return tmp_path / 'scan.png'


def test_sixteen_bits_without_a_range_stop_the_run(scan):
    for transform in (DecodeRandomCrop(size=16), DecodeImage(), DecodeImage(channels=1)):
        with pytest.raises(ValueError, match='uint16, here from 1003 to 1241.*value_range'):
            transform(dict(img_path=str(scan)))


def big_tiff(pixels):
    """A BigTIFF, which not all versions of Pillow write, of (H, W) uint16."""
    (height, width), start = pixels.shape, 212
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: start, 277: 1, 278: height,
            279: pixels.nbytes}
    entries = b''.join(struct.pack('<HHQQ', tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack('<4sHHQQ', b'II+', 8, 0, 16, 9) + entries + bytes(8) + pixels.tobytes()


@pytest.mark.parametrize('kind', ['.pgm', '.ppm', '.tif', 'ascii', 'big'])
def test_no_format_loads_sixteen_bits_black(tmp_path, kind):
    values = np.linspace(3, 4095, 12, dtype=np.uint16).reshape(3, 4)
    file = tmp_path / 'scan'
    if kind == 'big':
        file.write_bytes(big_tiff(values))
    elif kind == 'ascii':
        file.write_text('P2 4 3\n4095\n' + ' '.join(map(str, values.ravel())) + '\n')
    else:
        pixels = np.dstack([values] * 3) if kind == '.ppm' else values
        file.write_bytes(cv2.imencode(kind, pixels)[1].tobytes())
    with pytest.raises(ValueError, match='type uint16, here from 3 to 4095, .*DecodeRandomCrop'):
        LoadImageOrSkip()(dict(img_path=str(file)))


@pytest.mark.parametrize('ending', [
    '.bmp', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.webp'])
def test_every_format_of_eight_bits_loads(tmp_path, ending):
    file = tmp_path / 'picture'
    pixels = np.full((6, 8) if ending in ('.pbm', '.pgm') else (6, 8, 3), 200, np.uint8)
    file.write_bytes(cv2.imencode(ending, pixels)[1].tobytes())
    assert LoadImageOrSkip()(dict(img_path=str(file)))['img'].max() in range(198, 256)


def test_a_picture_of_too_many_pixels_is_skipped(tmp_path):
    (tmp_path / 'huge').write_bytes(b'P5\n200000 200000\n255\n')
    assert LoadImageOrSkip()(dict(img_path=str(tmp_path / 'huge'))) is None


def test_sixteen_bits_are_not_loaded_black_either(scan, tmp_path):
    with pytest.raises(ValueError, match='uint16, here from 1003 to 1241.*DecodeRandomCrop'):
        LoadImageOrSkip()(dict(img_path=str(scan)))
    write(tmp_path / 'float.tiff', np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
    with pytest.raises(ValueError, match='float32'):
        LoadImageOrSkip()(dict(img_path=str(tmp_path / 'float.tiff')))
    write(tmp_path / 'eight.tiff', np.zeros((3, 4), np.uint8))
    assert LoadImageOrSkip()(dict(img_path=str(tmp_path / 'eight.tiff')))['img'].shape == (3, 4, 3)
    images = FolderImages(scan.parent)
    with pytest.raises(ValueError, match='uint16, and the config of the network does not say'):
        images.read(images.names.index('scan.png'))


def test_a_stated_range_keeps_the_grey_levels(scan):
    found = DecodeImage(channels=1, value_range=(1003, 1241))(dict(img_path=str(scan)))['img']
    assert found.dtype == np.uint8 and found.shape == (40, 40, 1)
    assert found.min() == 0 and found.max() == 255 and len(np.unique(found)) > 200
    crop = DecodeRandomCrop(size=16, channels=1, value_range=(1003, 1241))(
        dict(img_path=str(scan)))['img']
    assert crop.dtype == np.uint8 and crop.shape == (16, 16, 1)
    cut = DecodeImage(channels=1, value_range=(1100, 1200))(dict(img_path=str(scan)))['img']
    assert (cut == 0).mean() > 0.3 and (cut == 255).mean() > 0.1


def test_own_depth_reaches_the_device(scan):
    dataset = dataset_of(scan.parent, dict(type='DecodeRandomCrop', size=16, channels=1,
                                           depth='own'))
    batch = default_collate([dataset[0], dataset[0]])
    assert batch['inputs'].dtype == getattr(torch, 'uint16', torch.int32)
    preprocessor = AugmentPreprocessor([1100.], [100.], value_range=(1003, 1241))
    view, = preprocessor(batch, True)['inputs']
    assert view.shape == (2, 1, 16, 16)
    assert -0.98 < view.min() and view.max() < 1.42


@pytest.mark.filterwarnings('error')
def test_pixels_without_a_value_are_black(tmp_path):
    values = np.full((20, 20), 1200, np.float32)
    values[:5], values[5:10], values[10:15] = np.nan, -np.inf, np.inf
    write(tmp_path / 'a.tiff', values)
    info = dict(img_path=str(tmp_path / 'a.tiff'))
    found = DecodeImage(channels=1, value_range=(1000, 1200))({**info})['img']
    np.testing.assert_array_equal(found[:, 0, 0], np.repeat([0, 0, 255, 255], 5))
    crop = DecodeRandomCrop(size=8, channels=1, value_range=(1000, 1200))({**info})['img']
    assert crop.dtype == np.uint8


@pytest.mark.parametrize('value_range', [(0, 4095), (0., 1.), [0, 200], (-3, 255)])
def test_files_of_eight_bits_among_others_stop_the_run(folder, value_range):
    for transform in (DecodeImage(value_range=value_range),
                      DecodeRandomCrop(size=16, value_range=value_range)):
        with pytest.raises(ValueError, match='colour.png is uint8, and value_range'):
            transform(dict(img_path=str(folder / 'colour.png')))


def test_eight_bits_have_a_range_too(folder):
    info = dict(img_path=str(folder / 'colour.png'))
    np.testing.assert_array_equal(DecodeImage(value_range=[0, 255])({**info})['img'],
                                  DecodeImage()({**info})['img'])


@pytest.mark.parametrize('make', [DecodeImage, lambda **kwargs: DecodeRandomCrop(8, **kwargs)])
def test_own_depths_are_not_mixed(scan, tmp_path, make):
    write(tmp_path / 'eight.png', np.zeros((40, 40), np.uint8))
    np.save(tmp_path / 'float.npy', np.zeros((40, 40), np.float32))
    transform = make(channels=1, depth='own')
    for name in ('scan.png', 'float.npy'):  # perhaps of the same units
        assert transform(dict(img_path=str(tmp_path / name))) is not None
    with pytest.raises(ValueError, match='eight.png.* type uint8, and another .* type uint16'):
        transform(dict(img_path=str(tmp_path / 'eight.png')))
    transform = make(channels=1, depth='own')
    transform(dict(img_path=str(tmp_path / 'eight.png')))
    with pytest.raises(ValueError, match='float.npy.* type float32, and another .* type uint8'):
        transform(dict(img_path=str(tmp_path / 'float.npy')))


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('kind', [np.uint16, np.float32])
def test_own_depth_within_a_range(tmp_path, kind):
    values = np.linspace(900, 1300, 400).reshape(20, 20).astype(kind)
    expected = values.clip(1000, 1200)
    if kind == np.float32:
        values[:2], expected[:2] = np.nan, 1000
    np.save(tmp_path / 'a.npy', values)
    for transform in (DecodeImage, lambda **more: DecodeRandomCrop(20, scale=(1, 1), ratio=(1, 1),
                                                                   **more)):
        found = transform(channels=1, depth='own', value_range=(1000, 1200))(
            dict(img_path=str(tmp_path / 'a.npy')))['img']
        assert found.dtype in (kind, np.int32)  # int32: uint16 before torch 2.3
        np.testing.assert_array_equal(found[..., 0], expected)


def test_arrays_of_many_channels(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 24, 5)).astype(np.float32)
    np.save(tmp_path / 'a.npy', values)
    dataset = dataset_of(tmp_path, dict(type='DecodeRandomCrop', size=12, channels=5,
                                        depth='own'))
    batch = default_collate([dataset[0]])
    assert batch['inputs'].shape == (1, 5, 12, 12) and batch['inputs'].dtype == torch.float32
    view, = AugmentPreprocessor([0.], [1.], value_range=(-3, 3))(batch, True)['inputs']
    assert view.shape == (1, 5, 12, 12)


def test_a_whole_image(folder):
    found = DecodeImage()(dict(img_path=str(folder / 'colour.png')))
    np.testing.assert_array_equal(found['img'], cv2.imread(str(folder / 'colour.png')))
    assert found['ori_shape'] == found['img_shape'] == (40, 50)


@pytest.mark.parametrize('settings, message', [
    (dict(), 'give size, or crops'), (dict(size=8, crops=[dict(size=8)]), 'give size, or crops'),
    (dict(crops=[]), 'crops is empty'), (dict(size=8, depth='int8'), 'depth'),
    (dict(size=8, value_range=(9, 3)), 'black, white'), (dict(size=8, channels=0), 'channels'),
    (dict(size=8, decoder='turbo'), 'turbo')])
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        DecodeRandomCrop(**settings)


def test_the_cache_gives_the_same_crops_without_the_file(folder, monkeypatch):
    cache = dict(short_edge=64, max_bytes=10**6, window_size=100, folder=str(folder.parent),
                 image_bytes=100)
    transform = DecodeRandomCrop(size=16, cache=cache)
    sample = dict(img_path=str(folder / 'colour.png'), sample_idx=7)
    plain = DecodeRandomCrop(size=16)
    np.random.seed(0)
    expected = [plain(dict(sample))['img'] for _ in range(3)]
    np.random.seed(0)
    first = transform(dict(sample))['img']
    (folder / 'colour.png').unlink()
    found = [first, *(transform(dict(sample))['img'] for _ in range(2))]
    np.testing.assert_array_equal(found, expected)
    assert transform.cache.hits == 2


def test_the_cache_limits_the_short_edge(tmp_path):
    across, down = np.meshgrid(np.arange(240), np.arange(120))
    write(tmp_path / 'a.jpg', np.dstack([across, down, across]).astype(np.uint8))
    transform = DecodeRandomCrop(
        size=12, scale=(1.0, 1.0), ratio=(2.0, 2.0),
        cache=dict(short_edge=24, max_bytes=10**6, window_size=9, folder=str(tmp_path)))
    for _ in range(2):
        found = transform(dict(img_path=str(tmp_path / 'a.jpg'), sample_idx=0))
        assert found['ori_shape'] == (120, 240)
        assert abs(int(found['img'][0, -1, 0]) - 230) < 8
        assert abs(int(found['img'][-1, 0, 1]) - 115) < 8
    assert transform.cache._entries['height'].max() == 24
    assert transform.cache._entries['width'].max() == 48
    with pytest.raises(ValueError, match='short_edge'):
        DecodeRandomCrop(size=12, cache=dict(max_bytes=10**6, window_size=9))


@pytest.mark.parametrize('start', ['fork', 'forkserver'])
def test_workers_share_the_cache(folder, start):
    transform = dict(type='DecodeRandomCrop', size=8, cache=dict(
        short_edge=64, max_bytes=10**6, window_size=100, folder=str(folder.parent),
        image_bytes=100))
    dataset = dataset_of(folder, transform)
    for _ in range(3):
        for _ in DataLoader(dataset, batch_size=2, collate_fn=default_collate, num_workers=2,
                            multiprocessing_context=start):
            pass
    cache = dataset.pipeline.transforms[0].cache
    assert cache.num_images == 5 and cache.hits == 10
