# SPDX-License-Identifier: Apache-2.0
"""Transforms for folders of images that nobody has checked, and for kNN evaluation."""
from __future__ import annotations

import logging
import os
import zlib
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.image import io as mmcv_io
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS
from torch.utils.data import get_worker_info

from pic_plugin.datasets.file_names import printable
from pic_plugin.datasets.members import read_bytes
from pic_plugin.datasets.pillow_formats import decode_heif
from pic_plugin.wording import counted

# One slot for the main process and one for each loader worker: no two processes write the same.
_SLOTS = 256
# Places for files that a warning has named.
_NAMES = 2**16

# How JPEG, BMP, WebP and GIF files begin, which have 8 bits.
_EIGHT_BITS = (b'\xff\xd8', b'BM', b'RIFF', b'GIF8')

_DECODERS = ('cv2', 'pillow', 'tifffile')


class SharedCount:
    """A count that the main process and its loader workers share.

    Every copy counts into the same memory: forked and spawned workers by the way torch passes
    shared tensors on, deep copies (mmengine's ``get_subset`` makes one) because a tensor's own
    deep copy would leave shared memory.
    """

    def __init__(self) -> None:
        self._slots = torch.zeros(_SLOTS, dtype=torch.int64, device='cpu').share_memory_()
        #: (65536,) bool: true in one place for each file that was counted.
        self.seen = torch.zeros(_NAMES, dtype=torch.bool, device='cpu').share_memory_()

    def __deepcopy__(self, memo: dict) -> SharedCount:
        return self

    def __setstate__(self, state: dict) -> None:
        # Plain pickle brings values without the sharing.
        self._slots = state['_slots'].share_memory_()
        self.seen = state['seen'].share_memory_()

    def increase(self) -> int:
        """Count once more; the new value."""
        worker = get_worker_info()
        self._slots[0 if worker is None else 1 + worker.id % (_SLOTS - 1)] += 1
        return self.value

    def is_new(self, path: Any) -> bool:
        """Whether a file has not been asked for before; two of them may be taken for one."""
        place = zlib.crc32(os.fsencode(str(path))) % _NAMES
        is_new = not self.seen[place]
        self.seen[place] = True
        return is_new

    @property
    def value(self) -> int:
        """Times that something was counted."""
        return int(self._slots.sum())


def check_eight_bits(path: Any, content: bytes, color_type: str) -> None:
    """Stop at an image that has been cut down to 8 bits by taking 65,535, or 1.0, for white.

    Raises:
        ValueError: If its file has pixels of more than 8 bits.
    """
    is_shallow_png = content[:8] == b'\x89PNG\r\n\x1a\n' and content[24:25] != b'\x10'
    if color_type == 'unchanged' or is_shallow_png or content.startswith(_EIGHT_BITS):
        return
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    try:
        deep = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return  # a broken one
    if deep is not None and deep.dtype != np.uint8:
        raise ValueError(
            f'{path} has pixels of type {deep.dtype}, here from {deep.min():g} to {deep.max():g}, '
            'which would be cut down to 8 bits as if its range were that of the type: most such '
            'images come out black. Load them with DecodeRandomCrop(..., value_range=(black, '
            'white)) or DecodeImage; `python -m pic_plugin.tools.value_range FOLDER` measures the '
            'range.')


@TRANSFORMS.register_module()
class LoadImageOrSkip(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` for folders in which some images may be broken.

    An image that cannot be read (missing, no permission) or decoded (empty, cut off, not an image)
    is skipped: the transform returns None, whereupon mmengine's data set in training mode takes
    another image at random, with that image's own ``sample_idx``. The first time a warning names
    the file, the reason and the number of loads skipped so far, in all worker processes together; a
    file is tried, and counted, again whenever the sampler asks for it. A data set with
    ``test_mode=True`` stops with mmengine's error instead.

    A file of more than 8 bits (PNG, TIFF, PGM, PPM) stops the run, since nothing says which of its
    values are black and white: see :class:`DecodeRandomCrop`.

    A file that is cut off is broken. What the decoder accepts is used: most formats have no
    checksum, so bytes that were changed inside of a JPEG, for instance, decode to wrong pixels.

    **Required Keys:** ``img_path``. **Added Keys:** ``img`` (H, W, 3) BGR, ``img_shape`` and
    ``ori_shape`` (H, W).

    Args:
        to_float32 (bool): float32 instead of uint8 pixels. Defaults to False.
        color_type (str): Flag of :func:`mmcv.imfrombytes`. Defaults to 'color'.
        imdecode_backend (str): Decoder of :func:`mmcv.imfrombytes`: 'cv2', 'pillow' or 'tifffile'.
            mmcv's fourth, 'turbojpeg', has to be switched on in each worker process and would
            fail for every image where it is not. Defaults to 'cv2'.
        backend_args (dict, optional): Arguments of mmengine's file backend. Defaults to None: by
            the path's prefix.

    Raises:
        ValueError: If the decoder or the colour type is unknown: no image would load with it; for
            an image of more than 8 bits.
        ImportError: If the decoder is not installed.
    """

    def __init__(self,
                 to_float32: bool = False,
                 color_type: str = 'color',
                 imdecode_backend: str = 'cv2',
                 *,
                 backend_args: dict | None = None) -> None:
        super().__init__(to_float32, color_type, imdecode_backend, backend_args=backend_args)
        if imdecode_backend not in _DECODERS:
            raise ValueError(f'imdecode_backend {imdecode_backend!r} is not supported: choose one '
                             f'of {_DECODERS}.')
        if imdecode_backend == 'tifffile' and mmcv_io.tifffile is None:
            raise ImportError("imdecode_backend='tifffile' needs `pip install tifffile`.")
        if color_type not in mmcv_io.imread_flags:
            raise ValueError(f'color_type {color_type!r} is unknown: choose one of '
                             f'{list(mmcv_io.imread_flags)}.')
        #: The count that this transform shares with its copies and with loader workers.
        self.skipped = SharedCount()

    @property
    def num_skipped(self) -> int:
        """Loads skipped so far, in this process and in every loader worker."""
        return self.skipped.value

    def transform(self, results: dict) -> dict | None:
        """Load the image, or return None if it is broken."""
        path = results['img_path']
        try:
            content = read_bytes(results, self.backend_args)
        except OSError as error:
            self._count_skipped(path, error)
            return None
        check_eight_bits(path, content, self.color_type)
        try:
            img = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
            if img is None and self.color_type == 'color':
                img = decode_heif(content)
        except MemoryError:
            raise
        except Exception as error:
            # Decoders meet arbitrary bytes with arbitrary exceptions (cv2.error, SyntaxError,
            # struct.error); settings that are wrong for every image are refused in __init__.
            self._count_skipped(path, error)
            return None
        if img is None:
            self._count_skipped(path, 'not an image that the decoder knows')
            return None
        if self.to_float32:
            img = img.astype(np.float32)
        results['img'] = img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _count_skipped(self, path: Any, reason: Any) -> None:
        if isinstance(reason, Exception):
            reason = f'{type(reason).__name__}: {str(reason).strip()}'
        count = self.skipped.increase()
        if self.skipped.is_new(path):
            print_log(
                f'Skipped an image that cannot be loaded ({counted(count, "load")} skipped so '
                f'far): {printable(path)}: {reason}',
                logger='current',
                level=logging.WARNING)


@TRANSFORMS.register_module()
class MarkReference(BaseTransform):
    """Mark the samples whose features and labels a kNN evaluation looks its neighbours up in.

    Goes into the pipeline of the reference split; the split that is evaluated has no such key.
    ``PackInputs(meta_keys=('sample_idx', 'reference'))`` carries it to the data sample of the one
    and leaves it out for the other.

    **Added Keys:** ``reference`` (True).
    """

    def transform(self, results: dict) -> dict:
        """Set ``reference``."""
        results['reference'] = True
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
