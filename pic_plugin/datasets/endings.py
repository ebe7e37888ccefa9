# SPDX-License-Identifier: Apache-2.0
"""Which files are pictures by their name's ending, for training and for all tools alike."""
from __future__ import annotations

import importlib.util
from collections.abc import Iterable

# What every build of OpenCV decodes.
PLAIN = ('.bmp', '.dib', '.jfif', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.pnm', '.ppm',
         '.tif', '.tiff', '.webp')
AVIF = ('.avif', '.avifs')
HEIF = ('.heic', '.heif', '.hif')

INSTALL_HEIF = "pip install 'pic_plugin[heif]'"
_CONVERT = 'convert them to PNG or JPEG'

# Pictures that are not read, and what to do about it.
_NOT_READ: dict[str, str] = {
    **dict.fromkeys(HEIF, f'needs `{INSTALL_HEIF}`'),
    **dict.fromkeys(AVIF, f'needs `{INSTALL_HEIF}`'),
    **dict.fromkeys(('.dcm', '.dicom'), 'DICOM: write its pixels as 16-bit PNG or TIFF'),
    **dict.fromkeys(('.nii', '.mha', '.mhd', '.nrrd'), 'volumes: write their slices as 16-bit PNG'),
    **dict.fromkeys(('.svs', '.ndpi', '.mrxs', '.vsi', '.czi', '.lif', '.nd2'),
                    'microscopes\' files: write tiles of them as PNG or TIFF'),
    **dict.fromkeys(('.arw', '.cr2', '.cr3', '.dng', '.nef', '.orf', '.raf', '.raw', '.rw2'),
                    'raw pictures of cameras: develop them to JPEG, PNG or TIFF'),
    **dict.fromkeys(('.gif', '.apng', '.mng'), 'animations: write the frames as PNG'),
    **dict.fromkeys(('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv'),
                    'videos: write frames as JPEG, and see instance_key'),
    **dict.fromkeys(('.ai', '.eps', '.pdf', '.svg'), 'drawings: render them as PNG'),
    **dict.fromkeys(('.7z', '.bz2', '.gz', '.rar', '.tar', '.tgz', '.xz', '.zip', '.zst'),
                    'archives: name them in data_root (.tar and .zip), or unpack them'),
    **dict.fromkeys(('.npy', '.npz'), "arrays: name the ending in `extensions` if your loader "
                                      'reads them'),
    **dict.fromkeys(('.exr', '.hdr', '.ico', '.j2k', '.jp2', '.jpf', '.jpx', '.jxl', '.jxr', '.pcx',
                     '.psb', '.psd', '.qoi', '.tga', '.xcf'), _CONVERT),
}


def has_heif() -> bool:
    """Whether Pillow's plug-in for HEIC is installed."""
    return importlib.util.find_spec('pillow_heif') is not None


def has_avif() -> bool:
    """Whether Pillow decodes AVIF, as it does by itself from version 11.3 on."""
    from PIL import features
    return 'avif' in features.get_supported_modules()


def readable_endings() -> tuple[str, ...]:
    """Endings of files that are read here and now, in lower case, each with its point."""
    return (*PLAIN, *(AVIF if has_avif() else ()), *(HEIF if has_heif() else ()))


def as_endings(given: str | Iterable[str]) -> tuple[str, ...]:
    """Endings as people write them ('npy', '.NPY'), in lower case, each with its point."""
    return tuple(f'.{ending.lower().lstrip(".")}'
                 for ending in ([given] if isinstance(given, str) else given))


def why_not_read(ending: str) -> str | None:
    """What to do about a file whose ending is not read; None if it is no picture at all."""
    return _NOT_READ.get(ending)


def ending_of(name: bytes) -> str:
    """Lower case, with its point; '' for none: of ``a/B.JPG`` it is ``.jpg``."""
    base = name.rpartition(b'/')[2]
    stem, point, ending = base.rpartition(b'.')
    return '.' + ending.decode('latin-1').lower() if point and stem else ''
