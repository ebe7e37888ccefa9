# SPDX-License-Identifier: Apache-2.0
"""Pictures of other depths and channels come to a network as its training reads them."""
import struct
import zlib
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from PIL import Image

import pic_plugin
from pic_plugin.analysis import picture_reader
from pic_plugin.analysis.images import FolderImages, training_side
from pic_plugin.analysis.picture_reader import PictureReader, reader_of
from pic_plugin.datasets.decode_random_crop import DecodeRandomCrop
from pic_plugin.models.pooling import pooled
from toys.pictures import write_pictures

SIDE = 32
RANGE = [1003, 1241]
EIGHT_BITS = dict(type='SelfSupDataPreprocessor', mean=[120.0], std=[60.0], to_rgb=False)
KINDS = {
    # Files, what the transform says beside its size, preprocessor, channels of the network.
    'sixteen bits, grey': (
        '.png', dict(channels=1, value_range=RANGE), EIGHT_BITS, 1),
    'sixteen bits as colours': (
        '.png', dict(value_range=RANGE),
        dict(type='AugmentPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True), 3),
    'own depth': (
        '.tiff', dict(channels=1, depth='own'),
        dict(type='AugmentPreprocessor', mean=[1100.0], std=[70.0], to_rgb=False,
             value_range=RANGE), 1),
    'five channels': (
        '.npy', dict(channels=5, depth='own'),
        dict(type='AugmentPreprocessor', mean=[1100.0] * 5, std=[70.0] * 5, to_rgb=False,
             value_range=RANGE), 5),
}


def write(folder, ending, channels):
    generator = np.random.default_rng(0)
    folder.mkdir()
    for number in range(3):
        shape = (SIDE, SIDE, channels) if ending == '.npy' else (SIDE, SIDE)
        pixels = generator.integers(990, 1250, shape).astype(np.uint16)
        path = folder / f'{number}{ending}'
        if ending == '.npy':
            np.save(path, pixels)
        else:
            kind = np.float32 if ending == '.tiff' else np.uint16
            assert cv2.imwrite(str(path), pixels.astype(kind))


@pytest.mark.parametrize('kind', KINDS)
def test_embed_takes_what_a_runner_would(tmp_path, kind):
    ending, says, preprocessor, channels = KINDS[kind]
    write(tmp_path / 'data', ending, 5)
    backbone = dict(type='ResNet', depth=18, in_channels=channels)
    torch.manual_seed(0)
    network = MODELS.build(backbone)
    network.init_weights()
    cfg = Config(dict(
        model=dict(type='PIC', backbone=backbone, data_preprocessor=preprocessor),
        train_dataloader=dict(dataset=dict(pipeline=[
            dict(type='DecodeRandomCrop', size=SIDE, **says)], extensions=(ending, )))))
    torch.save(dict(state_dict={f'backbone.{name}': value
                                for name, value in network.state_dict().items()},
                    meta=dict(cfg=cfg.pretty_text, epoch=1)), tmp_path / 'epoch_1.pth')

    found, names = pic_plugin.embed(tmp_path / 'data', tmp_path / 'epoch_1.pth', device='cpu')

    load = TRANSFORMS.build(dict(type='DecodeImage', **says))
    pack = TRANSFORMS.build(dict(type='PackInputs'))
    batch = default_collate([pack(load(dict(img_path=str(tmp_path / 'data' / name))))
                             for name in names])
    inputs = MODELS.build(preprocessor)(batch, False)['inputs']
    network.eval()
    with torch.no_grad():
        expected = pooled(network(inputs if torch.is_tensor(inputs) else inputs[0]))
    assert len(names) == 3 and expected.std(dim=0).max() > 1e-4  # the pictures differ
    # float32: the normalisations multiply and add in different orders.
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_what_people_are_shown(tmp_path, kind):
    ending, says, preprocessor, channels = KINDS[kind]
    write(tmp_path / 'data', ending, 5)
    reader = reader_of(Config(dict(
        model=dict(data_preprocessor=preprocessor),
        train_dataloader=dict(dataset=dict(
            pipeline=[dict(type='DecodeImage', **says)], extensions=(ending, ))))))
    assert reader == PictureReader(channels, tuple(RANGE), says.get('depth') == 'own',
                                   (ending, ))
    images = FolderImages(tmp_path / 'data', reader)
    (_, pictures), = images.shown(range(3), SIDE, 8)
    assert pictures.shape == (3, SIDE, SIDE, 3) and pictures.dtype == np.uint8
    assert pictures.min() == 0 and pictures.max() == 255 and not images.skipped
    # 238 values of the files are 238 shades.
    assert len(np.unique(pictures)) > 200


@pytest.mark.parametrize('given', [['npy'], ('.NPY', ), 'npy'])
def test_the_files_that_the_training_reads(tmp_path, given):
    write(tmp_path / 'data', '.npy', 2)
    dataset = dict(type='ImageFiles', data_root=str(tmp_path / 'data'), extensions=given)
    reader = reader_of(Config(dict(train_dataloader=dict(dataset=dataset))))
    assert len(FolderImages(tmp_path / 'data', reader)) == len(DATASETS.build(dataset)) == 3


@pytest.mark.parametrize('kind', [
    'mmpretrain.DecodeRandomCrop', 'pic_plugin.datasets.decode_random_crop.DecodeRandomCrop',
    DecodeRandomCrop])
def test_a_class_has_several_names(kind):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[
        dict(type=kind, size=96, channels=1, value_range=RANGE)]))))
    assert reader_of(cfg) == PictureReader(1, tuple(RANGE)) and training_side(cfg) == 96


def png_header(width, height):
    """A PNG that claims so many pixels, more than OpenCV takes."""
    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack(
            '>I', zlib.crc32(kind + body))
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b''))
            + chunk(b'IEND', b''))


def test_what_decoders_raise_leaves_a_picture_out(tmp_path, monkeypatch):
    write_pictures(tmp_path, 2)
    (tmp_path / 'huge.png').write_bytes(png_header(60000, 60000))
    images = FolderImages(tmp_path)
    (kept, _), = images.batches(range(3), SIDE, 8)
    assert len(kept) == 2 and images.skipped[0].name == 'huge.png'
    assert 'not a picture that OpenCV can decode: OpenCV' in images.skipped[0].reason
    for error in (SyntaxError('broken'), EOFError('broken'), OSError('broken'),
                  Image.DecompressionBombError('broken')):
        monkeypatch.setattr(picture_reader, 'decode', Mock(side_effect=error))
        with pytest.raises(ValueError, match='broken'):
            images.read(0)
    monkeypatch.setattr(picture_reader, 'decode', Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        images.read(0)


def test_without_a_config_pictures_have_eight_bits():
    assert reader_of({}) == PictureReader(3, None, False)
    with pytest.raises(ValueError, match='uint16, and the config of the network does not say'):
        PictureReader().fit(np.zeros((2, 2, 3), np.uint16))


@pytest.mark.parametrize('value_range', [(1003., 1241.), (0., 1.)])
@pytest.mark.parametrize('own_depth', [False, True])
def test_eight_bits_are_left_out_where_a_training_stops_at_them(tmp_path, value_range, own_depth):
    write(tmp_path / 'data', '.png', 3)
    cv2.imwrite(str(tmp_path / 'data' / 'preview.jpg'), np.full((SIDE, SIDE, 3), 99, np.uint8))
    images = FolderImages(tmp_path / 'data', PictureReader(3, value_range, own_depth))
    (kept, _), = images.batches(range(4), SIDE, 8)
    assert [images.names[index] for index in kept] == ['0.png', '1.png', '2.png']
    (name, reason), = images.skipped
    assert name == 'preview.jpg' and 'uint8, and the network was trained on' in reason
    pixels = np.full((2, 2, 3), 99, np.uint8)
    assert (PictureReader(3, (0, 255), own_depth).fit(pixels) == pixels).all()


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('own_depth', [False, True])
def test_pixels_without_a_value_are_black(own_depth):
    pixels = np.full((4, 4, 1), 1200, np.float32)
    pixels[0], pixels[1] = np.nan, np.inf
    found = PictureReader(1, (1003, 1241), own_depth).fit(pixels)[:, 0, 0]
    assert found[:2].tolist() == ([1003, 1241] if own_depth else [0, 255])
