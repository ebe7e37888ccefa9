# SPDX-License-Identifier: Apache-2.0
"""The header of a JPEG file: size, channels and EXIF orientation."""
from __future__ import annotations

import struct
from typing import NamedTuple

# Start of frame: baseline, progressive and the rest, without DHT, JPG and DAC in between.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_ORIENTATION = 0x0112


class JpegHeader(NamedTuple):
    """Size as stored, before ``orientation`` (EXIF, 1 to 8; 1 where there is none) is applied."""

    height: int
    width: int
    channels: int
    orientation: int


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """Read the segments before the image data; nothing is decoded.

    Args:
        content (bytes): A whole file, or its beginning.

    Returns:
        JpegHeader | None: None if it is no JPEG file, or one whose header cannot be followed.
    """
    if content[:2] != b'\xff\xd8':
        return None
    orientation, at = 1, 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == 0xFF or marker in _STANDALONE:  # fill bytes; markers without a segment
            at += 1 if marker == 0xFF else 2
            continue
        length, = struct.unpack_from('>H', content, at + 2)
        segment = content[at + 4:at + 2 + length]
        if marker in _FRAMES:
            if len(segment) < 6:
                return None
            _, height, width, channels = struct.unpack_from('>BHHB', segment)
            return JpegHeader(height, width, channels, orientation) if height and width else None
        if marker == 0xE1 and segment[:6] == b'Exif\0\0' and orientation == 1:
            orientation = _exif_orientation(segment[6:])
        at += 2 + length
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Of the first directory; 1 if there is none or it cannot be read."""
    order = {b'II': '<', b'MM': '>'}.get(tiff[:2])
    if order is None:
        return 1
    try:
        directory, = struct.unpack_from(order + 'I', tiff, 4)
        number, = struct.unpack_from(order + 'H', tiff, directory)
        for i in range(number):
            tag, kind, _, value = struct.unpack_from(order + 'HHIH', tiff, directory + 2 + 12 * i)
            if tag == _ORIENTATION:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
