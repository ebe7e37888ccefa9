# SPDX-License-Identifier: Apache-2.0
"""HEIC and AVIF through Pillow, as OpenCV would have given them."""
import importlib.util
import io

import cv2
import numpy as np
import pytest
from PIL import Image, features

from pic_plugin.datasets import endings
from pic_plugin.datasets.decode_random_crop import DecodeImage
from pic_plugin.datasets.pillow_formats import decode_heif, is_heif
from pic_plugin.datasets.transforms import LoadImageOrSkip


def colours(kind, **options):
    """A picture of a red and a blue half, and its bytes."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32, 0], pixels[:, 32:, 2] = 255, 255
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return np.ascontiguousarray(pixels[..., ::-1]), content.getvalue()


def assert_decoded(file, expected):
    """By the transform of the configs too, in colour and in grey."""
    for channels, pixels in ((3, expected), (1, cv2.cvtColor(expected, cv2.COLOR_BGR2GRAY))):
        found = DecodeImage(channels=channels)(dict(img_path=str(file)))['img']
        assert np.abs(found.astype(int) - pixels.reshape(found.shape)).mean() < 3


@pytest.mark.skipif(not endings.has_avif(), reason='this Pillow has no AVIF')
def test_avif(tmp_path, monkeypatch):
    expected, content = colours('AVIF', quality=100)
    assert is_heif(content)
    # Lossy, and colours run into each other in the middle.
    assert np.abs(decode_heif(content).astype(int) - expected).mean() < 3
    # Where OpenCV has no decoder.
    monkeypatch.setattr('mmcv.imfrombytes', lambda *args, **kwargs: None)
    (tmp_path / 'a.avif').write_bytes(content)
    results = LoadImageOrSkip()(dict(img_path=str(tmp_path / 'a.avif')))
    assert results['img'].shape == (32, 64, 3) and results['img_shape'] == (32, 64)
    monkeypatch.setattr('cv2.imdecode', lambda *args, **kwargs: None)
    assert_decoded(tmp_path / 'a.avif', expected)


@pytest.mark.skipif(importlib.util.find_spec('pillow_heif') is None,
                    reason='pillow_heif is not installed (pip install pillow-heif)')
def test_heic(tmp_path):
    import pillow_heif
    pillow_heif.register_heif_opener()
    expected, content = colours('HEIF', quality=-1)
    (tmp_path / 'a.heic').write_bytes(content)
    results = LoadImageOrSkip()(dict(img_path=str(tmp_path / 'a.heic')))
    assert np.abs(results['img'].astype(int) - expected).mean() < 3  # as above
    assert '.heic' in endings.readable_endings()
    assert_decoded(tmp_path / 'a.heic', expected)


def test_other_pictures_are_left_to_opencv():
    assert decode_heif(colours('PNG')[1]) is None and decode_heif(b'') is None


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr('pic_plugin.datasets.pillow_formats.has_heif', lambda: False)
    content = b'\0\0\0\x18ftypheic' + bytes(40)
    with pytest.raises(OSError, match=r'pip install .pic_plugin\[heif\]'):
        decode_heif(content)


def test_avif_is_pillows_own():
    assert endings.has_avif() == ('avif' in features.get_supported())
