# SPDX-License-Identifier: Apache-2.0
"""HEIC, HEIF and AVIF pictures, which Pillow decodes where OpenCV may not."""
from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pic_plugin.datasets.endings import INSTALL_HEIF, has_heif


def is_heif(content: bytes) -> bool:
    """Whether a file is of the HEIF family, of which AVIF is, by its first bytes."""
    return content[4:8] == b'ftyp' and content[8:12] in (
        b'heic', b'heix', b'heim', b'heis', b'hevc', b'mif1', b'msf1', b'avif', b'avis')


@contextmanager
def pillow_as_in_training() -> Iterator[None]:
    """Let ``Image.open`` take what training does: HEIC, if its package is there, and large ones."""
    if has_heif():
        import pillow_heif
        pillow_heif.register_heif_opener()
    # Pillow refuses what has more than twice this, OpenCV what has more than 2**30 pixels.
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 2**29
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def decode_heif(content: bytes) -> np.ndarray | None:
    """Decode a picture of the HEIF family, turned upright.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR; None if it is of another family.

    Raises:
        OSError: If Pillow cannot decode it, with what to install.
    """
    if not is_heif(content):
        return None
    try:
        with pillow_as_in_training(), Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except UnidentifiedImageError as error:
        if has_heif():
            raise OSError('the HEIC or AVIF file is broken, or of a kind that Pillow does not '
                          'know') from error
        raise OSError(f'Pillow does not decode this HEIC or AVIF picture: run `{INSTALL_HEIF}`, or '
                      'a newer Pillow for AVIF') from error
    return np.ascontiguousarray(pixels[..., ::-1])
