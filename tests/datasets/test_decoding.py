# SPDX-License-Identifier: Apache-2.0
"""Decoding against OpenCV and Pillow: depth, channels, orientation, reduced JPEG, broken files."""
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pic_plugin.datasets import decoding
from pic_plugin.datasets.decoding import choose_decoder, decode
from pic_plugin.datasets.jpeg import read_jpeg_header

DECODERS = ['cv2', pytest.param('simplejpeg', marks=pytest.mark.skipif(
    decoding.simplejpeg is None, reason='simplejpeg (extra `fast`) is not installed'))]


def photo(height=60, width=90, channels=3):
    """Smooth, so that lossy formats keep it."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, channels), np.uint8)
    return cv2.resize(noise, (width, height)).reshape(height, width, channels)


def jpeg(pixels, mode=None, **options):
    image = Image.fromarray(pixels.squeeze())
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, 'JPEG', quality=95, **options)
    return buffer.getvalue()


def encoded(ending, pixels):
    # Else OpenCV before 4.12 writes float colours as LogLuv, which is not exact.
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if ending == '.tiff' else []
    return cv2.imencode(ending, pixels, options)[1].tobytes()


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_applied_as_opencv_does(decoder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = jpeg(photo(), exif=exif)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    pixels, full_size = decode(content, decoder=decoder)
    assert read_jpeg_header(content) == (60, 90, 3, orientation)
    assert full_size == expected.shape[:2]
    # Decoders round differently, by a level or two.
    assert np.abs(pixels.astype(int) - expected).max() <= 3
    half = decode(content, 3, decoder, lambda size: 2).pixels
    smaller = cv2.resize(expected, half.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(half.astype(int) - smaller).mean() < 2


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('reduction', [1, 2, 4, 8])
@pytest.mark.parametrize('size', [(60, 90), (61, 87)])
def test_reduced_jpeg_has_a_fraction_of_the_size(decoder, reduction, size):
    asked = []

    def choose(full_size):
        asked.append(full_size)
        return reduction

    pixels, full_size = decode(jpeg(photo(*size)), 3, decoder, choose)
    assert asked == [size] and full_size == size
    assert pixels.shape == (*(-(-side // reduction) for side in size), 3)


@pytest.mark.parametrize('decoder', DECODERS)
def test_grey_cmyk_and_progressive_jpeg_become_bgr(decoder):
    for content in (jpeg(photo(), 'L'), jpeg(photo(), 'CMYK'), jpeg(photo(), progressive=True)):
        expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        pixels = decode(content, decoder=decoder).pixels
        assert pixels.shape == (60, 90, 3)
        assert np.abs(pixels.astype(int) - expected).max() <= 3
    grey = decode(jpeg(photo()), 1, decoder).pixels
    assert grey.shape == (60, 90, 1)


@pytest.mark.parametrize('decoder', DECODERS)
def test_quick_decoding_differs_little(decoder):
    content = jpeg(photo())
    exact, quick = (decode(content, 3, decoder, quick=quick).pixels for quick in (False, True))
    # Strong colours on few pixels: photos differ by 1 to 2.5 levels.
    assert np.abs(exact.astype(int) - quick).mean() < 5


@pytest.mark.parametrize('decoder', DECODERS)
def test_what_is_cut_off_or_no_image_is_refused(decoder):
    whole = jpeg(photo())
    for content in (b'', b'text', whole[:len(whole) // 2], whole[:-2], whole[:100], whole[:20],
                    encoded('.png', photo())[:200]):
        with pytest.raises(ValueError):
            decode(content, decoder=decoder)


@pytest.mark.parametrize('ending', ['.png', '.tiff'])
@pytest.mark.parametrize('channels', [1, 3])
def test_sixteen_bits_stay(ending, channels):
    values = photo(channels=channels).astype(np.uint16) * 17 + 1003
    pixels = decode(encoded(ending, values), channels).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, values)


@pytest.mark.parametrize('channels', [1, 3])
def test_float_tiff_stays(channels):
    values = photo(channels=channels).astype(np.float32) * 0.1 - 7
    pixels = decode(encoded('.tiff', values), channels).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, values)
    if channels == 3:
        assert decode(encoded('.tiff', values), 1).pixels.shape == (60, 90, 1)
    else:
        np.testing.assert_allclose(decode(encoded('.tiff', values), 3).pixels,
                                   values.repeat(3, axis=2), rtol=1e-6)


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_arrays_and_pages_are_channels():
    values = photo(channels=5).astype(np.uint16)
    np.testing.assert_array_equal(decode(npy(values), 5).pixels, values)
    pages = cv2.imencodemulti('.tiff', [np.ascontiguousarray(values[..., i]) for i in range(5)])[1]
    np.testing.assert_array_equal(decode(pages.tobytes(), 5).pixels, values)
    with pytest.raises(ValueError, match='5 channels, expected channels=3'):
        decode(npy(values), 3)
    assert decode(npy(values[..., 0]), 1).pixels.shape == (60, 90, 1)
    # What an array's channels are is for its owner to say: nothing is taken for colour or grey.
    with pytest.raises(ValueError, match='1 channels, expected channels=3'):
        decode(npy(values[..., 0]), 3)
    with pytest.raises(ValueError, match='3 channels, expected channels=1'):
        decode(npy(values[..., :3]), 1)
    with pytest.raises(ValueError, match='array of shape'):
        decode(npy(np.zeros(4)), 3)


def test_no_object_is_loaded_from_an_array_file():
    buffer = io.BytesIO()
    np.save(buffer, np.array([[dict(a=1)]]), allow_pickle=True)
    with pytest.raises(ValueError):
        decode(buffer.getvalue(), 1)


def test_palette_and_transparency_become_bgr():
    image = Image.fromarray(photo())
    for mode in ('P', 'RGBA', 'LA', '1'):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, 'PNG')
        assert decode(buffer.getvalue()).pixels.shape == (60, 90, 3)


def test_names_of_decoders(monkeypatch):
    monkeypatch.setattr(decoding, 'simplejpeg', None)
    assert choose_decoder('auto') == 'cv2'
    with pytest.raises(ImportError, match='pic_plugin\\[fast\\]'):
        choose_decoder('simplejpeg')
    with pytest.raises(ValueError, match='turbo'):
        choose_decoder('turbo')


def test_headers_that_cannot_be_followed():
    whole = jpeg(photo())
    assert read_jpeg_header(b'') is None
    assert read_jpeg_header(b'\x89PNG') is None
    assert read_jpeg_header(whole[:30]) is None
    assert read_jpeg_header(b'\xff\xd8\x00\x00\x00\x00') is None
    # An orientation outside of 1 to 8, or in a directory that is not there, is none.
    for tiff in (b'II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0', b'II*\0\xff\0\0\0',
                 b'XX'):
        segment = b'Exif\0\0' + tiff
        content = b'\xff\xd8\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + whole[2:]
        assert read_jpeg_header(content) == (60, 90, 3, 1)
