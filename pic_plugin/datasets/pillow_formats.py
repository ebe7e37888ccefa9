# SPDX-License-Identifier: Apache-2.0
"""HEIC, HEIF and AVIF pictures, which Pillow decodes where OpenCV may not."""
from __future__ import annotations

import io

import numpy as np

from pic_plugin.datasets.endings import INSTALL_HEIF, has_heif


def is_heif(content: bytes) -> bool:
    """Whether a file is of the HEIF family, of which AVIF is, by its first bytes."""
    return content[4:8] == b'ftyp' and content[8:12] in (
        b'heic', b'heix', b'heim', b'heis', b'hevc', b'mif1', b'msf1', b'avif', b'avis')


def open_heif_with_pillow() -> None:
    """Let ``Image.open`` take HEIC pictures, where the package for them is installed."""
    if has_heif():
        import pillow_heif
        pillow_heif.register_heif_opener()


def decode_heif(content: bytes) -> np.ndarray | None:
    """Decode a picture of the HEIF family, turned upright.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR; None if it is of another family.

    Raises:
        OSError: If Pillow cannot decode it, with what to install.
    """
    if not is_heif(content):
        return None
    from PIL import Image, ImageOps, UnidentifiedImageError
    open_heif_with_pillow()
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except UnidentifiedImageError as error:
        raise OSError(f'Pillow does not decode this HEIC or AVIF picture: run `{INSTALL_HEIF}`, or '
                      'a newer Pillow for AVIF') from error
    return np.ascontiguousarray(pixels[..., ::-1])
