# SPDX-License-Identifier: Apache-2.0
"""DecodeImage and DecodeRandomCrop: the loader's part where augmentation is on the device."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.registry import TRANSFORMS

from pic_plugin.datasets.decoding import (
    ChooseReduction,
    Decoded,
    choose_decoder,
    decode,
)
from pic_plugin.datasets.file_names import hash_names
from pic_plugin.datasets.members import read_bytes
from pic_plugin.datasets.random_crop import (
    REDUCTIONS,
    CropRecipe,
    crop_and_resize,
    draw_box,
    reduction_for,
    shrink_to,
)
from pic_plugin.datasets.transforms import LoadImageOrSkip
from pic_plugin.datasets.window_cache import WindowCache

DEPTHS = ('uint8', 'own')
# torch knows unsigned numbers of 16 bits from 2.3 on.
_DELIVERED_AS = {} if hasattr(torch, 'uint16') else {np.dtype(np.uint16): np.dtype(np.int32)}
MAX_KEY = 2**63 - 1  # of an image in the cache


@TRANSFORMS.register_module()
class DecodeImage(LoadImageOrSkip):
    """Loads an image in the depth of its file.

    Images that cannot be read or decoded are skipped as :class:`LoadImageOrSkip` does. An image
    that the data set delivers as an array (``img``) is taken as it is.

    **Required Keys:** ``img_path`` or ``img``. **Added Keys:** ``img`` (H, W, C), BGR if C is 3,
    ``img_shape`` and ``ori_shape`` (H, W).

    Args:
        channels (int): 3 for BGR (grey, palette and CMYK are turned to it), 1 for grey, or the
            number that files have: ``.npy`` arrays, pages of a TIFF. Defaults to 3.
        depth (str): 'uint8', or 'own' for the file's: uint16 and others stay what they are
            (before torch 2.3 uint16 becomes int32), and ``AugmentPreprocessor(value_range=...)``
            takes them. Defaults to 'uint8'.
        value_range (tuple[float, float], optional): Values that become 0 and 255 of images of
            another depth than uint8, or with depth 'own' stay; what lies beyond is cut off, and NaN
            is black. Defaults to None: such images stop the run with depth 'uint8', since 12 bits
            in a 16-bit file would come out black; with depth 'own' nothing is cut off here, as
            ``AugmentPreprocessor`` does that. With a range, images of uint8 stop the run.
        decoder (str): 'simplejpeg', 'cv2', or 'auto' for the first of these that is installed.
            Defaults to 'auto'.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None: by the path's
            prefix.

    Raises:
        ValueError: If a setting is unknown; for an image of another depth without a range, or one
            of uint8 with a range or, with depth 'own', among others.
        ImportError: If simplejpeg is asked for and not installed.
    """

    def __init__(self, channels: int = 3, depth: str = 'uint8',
                 value_range: tuple[float, float] | None = None, decoder: str = 'auto', *,
                 backend_args: dict | None = None) -> None:
        super().__init__(backend_args=backend_args)
        if depth not in DEPTHS:
            raise ValueError(f'depth {depth!r} is unknown: choose one of {DEPTHS}.')
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f'value_range must be (black, white) in order, not {value_range}.')
        if channels < 1:
            raise ValueError(f'channels must be at least 1, not {channels}.')
        self.channels = channels
        self.depth = depth
        self.value_range = value_range
        self.decoder = choose_decoder(decoder)
        self._first_type: np.dtype | None = None  # of pixels

    def transform(self, results: dict) -> dict | None:
        """Load the image, or return None if it is broken."""
        decoded = self._load(results, None)
        if decoded is None:
            return None
        self._check_depth(decoded.pixels, results)
        results['img'] = self._in_depth(np.ascontiguousarray(decoded.pixels), decoded.pixels.dtype)
        results['img_shape'] = results['ori_shape'] = decoded.full_size
        return results

    def _load(self, results: dict, choose_reduction: ChooseReduction | None,
              quick: bool = False) -> Decoded | None:
        """The image, perhaps at a fraction of its size; None if it is broken."""
        if 'img' in results:
            pixels = results['img']
            pixels = pixels if pixels.ndim == 3 else pixels[..., None]
            return Decoded(pixels, pixels.shape[:2])
        try:
            content = read_bytes(results, self.backend_args)
            return decode(content, self.channels, self.decoder, choose_reduction, quick)
        except MemoryError:
            raise
        except Exception as error:
            # Decoders meet arbitrary bytes with arbitrary exceptions.
            self._count_skipped(results['img_path'], error)
            return None

    def _check_depth(self, pixels: np.ndarray, results: dict) -> None:
        """Stop at an image whose black and white are not known."""
        name = results.get('img_path', results.get('sample_idx'))
        if self.depth == 'own':
            # Each by itself may be right; a batch of both would have one type, and one range.
            first = self._first_type = (
                pixels.dtype if self._first_type is None else self._first_type)
            if (first == np.uint8) != (pixels.dtype == np.uint8):
                raise ValueError(
                    f'{name} has pixels of type {pixels.dtype}, and another image before it of '
                    f'type {first}: train on files of one depth.')
        elif pixels.dtype != np.uint8 and self.value_range is None:
            raise ValueError(
                f'{name} has pixels of type {pixels.dtype}, here from {pixels.min():g} to '
                f'{pixels.max():g}, and it is not known which are black and white. Give '
                f'value_range=(black, white) to {type(self).__name__}; `python -m '
                'pic_plugin.tools.value_range FOLDER` measures them.')
        if pixels.dtype == np.uint8 and not is_of_uint8(self.value_range):
            raise ValueError(f'{name} is uint8, and value_range={self.value_range} is for images '
                             'of another depth: train on files of one depth, or leave '
                             'value_range out if all are of 8 bits.')

    def _in_depth(self, pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Pixels (H, W, C) of a file of type ``dtype``, perhaps float32 by now, as they leave."""
        if self.depth == 'own':
            if self.value_range is not None:
                pixels = cut_off(pixels, self.value_range)
            return as_depth(pixels, _DELIVERED_AS.get(dtype, dtype))
        if dtype == np.uint8 and self.value_range is None:
            return pixels
        return to_uint8(pixels, self.value_range or (0, 255))

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(channels={self.channels}, depth={self.depth!r}, '
                f'value_range={self.value_range}, decoder={self.decoder!r})')


@TRANSFORMS.register_module()
class DecodeRandomCrop(DecodeImage):
    """Decodes an image and takes random crops of it, as torchvision's ``RandomResizedCrop``.

    One transform, because a JPEG whose crop is at least 2, 4 or 8 times as large as what it is
    scaled to is decoded at that fraction of its size. Several crops share one decoding.

    **Required Keys:** ``img_path`` or ``img``. **Added Keys:** ``img``, a crop (h, w, C) or a list
    of several, BGR if C is 3; ``img_shape`` of the first crop; ``ori_shape`` of the image.

    Args:
        size (int | tuple[int, int], optional): Side, or height and width of the crop, pixels.
        scale (tuple[float, float]): Its share of the image's area. Defaults to (0.2, 1.0).
        ratio (tuple[float, float]): Its width / height. Defaults to (3 / 4, 4 / 3).
        crops (Sequence[dict], optional): In place of the three, for several views: ``size``,
            ``scale``, ``ratio`` and ``num_views`` of each kind, in order. ``img`` is then a list.
        quick (bool): See :func:`~pic_plugin.datasets.decoding.decode`: less exact than in
            evaluation, but the augmentation changes pixels by far more. Defaults to True.
        cache (dict, optional): Keep decoded images while the sampler's window shows them:
            ``short_edge``, to which images are scaled down (pixels), and the arguments of
            :class:`~pic_plugin.datasets.window_cache.WindowCache`. Defaults to None, no cache.
        **kwargs: Of :class:`DecodeImage`.

    Raises:
        ValueError: If both or neither of ``size`` and ``crops`` are given, or out of range.
    """

    def __init__(self, size: Any = None, scale: tuple[float, float] = (0.2, 1.0),
                 ratio: tuple[float, float] = (3 / 4, 4 / 3),
                 crops: Sequence[dict] | None = None, quick: bool = True,
                 cache: dict | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if (size is None) == (crops is None):
            raise ValueError('give size, or crops for several views.')
        self.several = crops is not None
        self.quick = quick
        self.cache: WindowCache | None = None
        if cache is not None:
            settings = dict(cache)
            self.short_edge = settings.pop('short_edge', None)
            if not isinstance(self.short_edge, int) or self.short_edge < 1:
                raise ValueError('cache needs short_edge, the pixels to which the short edge of '
                                 f'images is scaled down, not {self.short_edge!r}.')
            self.cache = WindowCache(**settings)
        recipes = [CropRecipe(**crop) for crop in (
            [dict(size=size, scale=scale, ratio=ratio)] if crops is None else crops)]
        self.recipes = [recipe for recipe in recipes for _ in range(recipe.num_views)]
        if not self.recipes:
            raise ValueError('crops is empty: give at least one.')

    def transform(self, results: dict) -> dict | None:
        """Load the image and crop it, or return None if it is broken."""
        boxes: list[Any] = []
        sizes: list[Any] = [recipe.size for recipe in self.recipes]

        def choose_reduction(full_size: tuple[int, int]) -> int:
            boxes[:] = [draw_box(*full_size, recipe) for recipe in self.recipes]
            return reduction_for(boxes, sizes)

        if self.cache is None:
            decoded = self._load(results, choose_reduction, quick=self.quick)
        else:
            decoded = self.load_through_cache(results)
        if decoded is None:
            return None
        if not boxes:  # from the cache, or of a format that is always decoded whole
            choose_reduction(decoded.full_size)
        pixels, full_size = decoded
        self._check_depth(pixels, results)
        views = [self._in_depth(crop_and_resize(pixels, box, full_size, size), pixels.dtype)
                 for box, size in zip(boxes, sizes)]
        results['img'] = views if self.several else views[0]
        results['img_shape'] = views[0].shape[:2]
        results['ori_shape'] = full_size
        return results

    def load_through_cache(self, results: dict) -> Decoded | None:
        """The image, no larger than the cache keeps it; None if it is broken."""
        assert self.cache is not None
        # Not by its id: a class of several images shows now one and now another.
        path = results.get('img_path')
        key = results['sample_idx'] if path is None else int(
            hash_names([os.fsencode(path)])[0]) & MAX_KEY
        found = self.cache.get(key)
        if found is not None:
            return found

        def choose_reduction(full_size: tuple[int, int]) -> int:
            return next((reduction for reduction in REDUCTIONS
                         if min(full_size) >= reduction * self.short_edge), 1)

        decoded = self._load(results, choose_reduction, quick=self.quick)
        if decoded is None:
            return None
        decoded = decoded._replace(pixels=shrink_to(decoded.pixels, self.short_edge))
        self.cache.put(key, decoded)
        return decoded

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, crops={self.recipes})'


def is_of_uint8(value_range: Sequence[float] | None) -> bool:
    """Whether black and white are those of uint8: of another range such pixels have no place."""
    return value_range is None or tuple(value_range) == (0, 255)


def to_uint8(pixels: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Pixels of any type as uint8, with ``value_range`` (black, white) at 0 and 255; NaN is 0."""
    low, high = value_range
    scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
    return np.rint(np.nan_to_num(scaled, copy=False).clip(0, 255)).astype(np.uint8)


def cut_off(pixels: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Pixels of any type as float32 within ``value_range`` (black, white); NaN is black."""
    return np.nan_to_num(pixels.astype(np.float32), copy=False, nan=value_range[0]).clip(
        *value_range)


def as_depth(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Scaled pixels (float32, or uint8) rounded to the type that their file had."""
    if dtype.kind == 'f' or dtype == pixels.dtype:
        return pixels
    return np.rint(pixels).astype(dtype)
