# SPDX-License-Identifier: Apache-2.0
"""Decoding of image files in their own depth, JPEG at a fraction of its size where that is enough.

JPEG goes through simplejpeg (libjpeg-turbo) if it is installed, else OpenCV; docs/gpu.md has the
measurement. All other formats, and JPEG files that simplejpeg cannot do or complains of, go
through OpenCV.
"""
from __future__ import annotations

import io
from functools import cache
from typing import Any, Callable, NamedTuple

import cv2
import numpy as np
from mmengine.logging import print_log

from pic_plugin.datasets.jpeg import JpegHeader, read_jpeg_header
from pic_plugin.datasets.pillow_formats import decode_heif, is_heif

try:
    import simplejpeg  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # the extra `fast`
    simplejpeg = None

DECODERS = ('auto', 'simplejpeg', 'cv2')
_REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8}
_REDUCED_GREY = {1: cv2.IMREAD_GRAYSCALE, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
                 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels (np.ndarray): (H, W, C), in the file's depth; BGR if C is 3.
        full_size (tuple[int, int]): Height and width of the whole image; ``pixels`` may be smaller
            by a factor of 2, 4 or 8.
    """

    pixels: np.ndarray
    full_size: tuple[int, int]


# Given the full size (height, width), how many times smaller the image may be: 1, 2, 4 or 8.
ChooseReduction = Callable[[tuple[int, int]], int]


def choose_decoder(name: str) -> str:
    """'simplejpeg' or 'cv2', what there is, for 'auto'.

    Raises:
        ValueError: If the name is unknown.
        ImportError: If simplejpeg is asked for by name and not installed.
    """
    if name not in DECODERS:
        raise ValueError(f'decoder {name!r} is unknown: choose one of {DECODERS}.')
    if name == 'auto':
        if simplejpeg is None:
            _say_once('simplejpeg is not installed: JPEG files are decoded by OpenCV, which takes '
                      "longer. `pip install 'pic_plugin[fast]'` installs it.")
        return 'cv2' if simplejpeg is None else 'simplejpeg'
    if name == 'simplejpeg' and simplejpeg is None:
        raise ImportError("decoder='simplejpeg' needs `pip install 'pic_plugin[fast]'`.")
    return name


def decode(content: bytes, channels: int = 3, decoder: str = 'cv2',
           choose_reduction: ChooseReduction | None = None, quick: bool = False) -> Decoded:
    """Decode an image file.

    EXIF orientation is applied, as OpenCV and so mmcv do.

    Args:
        content (bytes): JPEG, PNG, TIFF (also float, and of several pages) or another format of
            OpenCV; HEIC or AVIF; or a ``.npy`` array (H, W) or (H, W, C).
        channels (int): 3 for BGR, to which grey, palette and CMYK images are turned; 1 for grey;
            other numbers for files that have just so many. Defaults to 3.
        decoder (str): 'cv2' or 'simplejpeg', for JPEG. Defaults to 'cv2'.
        choose_reduction (callable, optional): For JPEG, asked with the full size. Defaults to None:
            not reduced.
        quick (bool): Let simplejpeg take libjpeg's faster cosine transform and repeat chroma pixels
            in place of interpolating them: a sixth less time; pixels of photos differ by 1 to 2.5
            levels of 256 on average, and are brighter by 0.8. Defaults to False.

    Raises:
        OSError: If it is HEIC or AVIF and Pillow cannot decode it, with what to install.
        ValueError: If it is not an image, or of another number of channels.
    """
    if not content:
        raise ValueError('the file is empty')
    header = read_jpeg_header(content)
    if header is not None and channels in (1, 3):
        return _decode_jpeg(content, header, channels, decoder, choose_reduction, quick)
    if content[:6] == b'\x93NUMPY':
        pixels = np.load(io.BytesIO(content), allow_pickle=False)
    elif is_heif(content):
        pixels = _with_channels(decode_heif(content), channels)
    elif channels in (1, 3):
        flags = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
        pixels = cv2.imdecode(_array(content), flags | cv2.IMREAD_ANYDEPTH)
        if pixels is None:
            # OpenCV does not turn a grey float TIFF to colour, nor a coloured one to grey.
            pixels = _with_channels(cv2.imdecode(_array(content), cv2.IMREAD_UNCHANGED), channels)
    else:
        found, pages = cv2.imdecodemulti(_array(content), cv2.IMREAD_UNCHANGED)
        pixels = np.dstack(pages) if found and pages else None
    return _checked(pixels, channels)


def _decode_jpeg(content: bytes, header: JpegHeader, channels: int, decoder: str,
                 choose_reduction: ChooseReduction | None, quick: bool) -> Decoded:
    size = (header.height, header.width)
    full_size = size[::-1] if header.orientation > 4 else size
    reduction = 1 if choose_reduction is None else choose_reduction(full_size)
    pixels: Any = None
    if decoder == 'simplejpeg' and header.channels in (1, 3):  # not CMYK
        least = [-(-side // reduction) for side in size]
        try:
            pixels = simplejpeg.decode_jpeg(
                content, 'BGR' if channels == 3 else 'GRAY', min_height=least[0],
                min_width=least[1], min_factor=1, fastdct=quick, fastupsample=quick)
        except ValueError:
            pass  # also what it only warns of: OpenCV decides, as it did before
    if pixels is None:
        flags = (_REDUCED if channels == 3 else _REDUCED_GREY)[reduction]
        pixels = cv2.imdecode(_array(content), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError('not an image that the decoder knows')
    pixels = _orient(pixels, header.orientation)
    return Decoded(pixels if pixels.ndim == 3 else pixels[..., None], full_size)


def _orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply EXIF's orientation to (H, W, ...); a view, nothing is copied."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    # After the exchange of the axes: which of them run backwards.
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _checked(pixels: np.ndarray | None, channels: int) -> Decoded:
    if pixels is None:
        raise ValueError('not an image that the decoder knows')
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(f'an array of shape {pixels.shape}, expected (height, width) or (height, '
                         'width, channels)')
    if pixels.shape[2] != channels:
        raise ValueError(f'{pixels.shape[2]} channels, expected channels={channels}')
    if pixels.dtype.kind not in 'uif' or pixels.dtype.itemsize > 8:
        raise ValueError(f'pixels of type {pixels.dtype}')
    return Decoded(pixels, pixels.shape[:2])


def _with_channels(pixels: np.ndarray | None, channels: int) -> np.ndarray | None:
    """Grey (H, W) as (H, W, 3), or BGR (H, W, 3) as grey; anything else as it is."""
    if pixels is not None and pixels.ndim == 2 and channels == 3:
        return pixels[..., None].repeat(3, axis=2)
    if pixels is not None and pixels.ndim == 3 and pixels.shape[2] == 3 and channels == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return pixels


def _array(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


@cache
def _say_once(message: str) -> None:
    print_log(message, logger='current')
