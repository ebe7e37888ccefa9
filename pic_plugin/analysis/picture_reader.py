# SPDX-License-Identifier: Apache-2.0
"""How a network's config reads pictures: channels, depth, and which values are black and white."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pic_plugin.datasets.decode_random_crop import cut_off, is_of_uint8, to_uint8
from pic_plugin.datasets.decoding import decode
from pic_plugin.datasets.endings import as_endings
from pic_plugin.datasets.members import read_bytes
from pic_plugin.engine.type_names import type_name


class PictureReader(NamedTuple):
    """Reads pictures as a training does.

    Attributes:
        channels (int): Of the pictures: 3 for colours, to which grey ones are turned; 1 for grey.
            Defaults to 3.
        value_range (tuple[float, float], optional): Pixel values that count as black and white.
            Defaults to None: 0 and 255, and pictures of other depths than 8 bits are refused.
        own_depth (bool): Whether the network takes pixels in the files' own units, and not brought
            to 8 bits by ``value_range``. Defaults to False.
        extensions (tuple[str, ...], optional): Endings of files. Defaults to None: those of
            pictures.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    own_depth: bool = False
    extensions: tuple[str, ...] | None = None

    def read(self, info: dict) -> np.ndarray:
        """Read the picture of a data info: its ``img`` or, without one, its file.

        Returns:
            np.ndarray: (H, W, C), BGR if C is 3; see :meth:`fit`.

        Raises:
            ValueError: If it cannot be read.
        """
        if 'img' in info:
            pixels = np.asarray(info['img'])
            return self.fit(pixels if pixels.ndim == 3 else pixels[..., None])
        try:
            content = read_bytes(info)
            pixels = decode(content, self.channels).pixels
        except MemoryError:
            raise
        except OSError as error:
            raise ValueError(f'it cannot be read ({error.strerror or error})') from error
        except Exception as error:  # decoders meet arbitrary bytes with arbitrary exceptions
            raise ValueError('it is not a picture that OpenCV can decode: '
                             f'{str(error).strip()}') from error
        return self.fit(pixels)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (H, W, C) of any type, as the network's normalisation takes them.

        Returns:
            np.ndarray: uint8; with ``own_depth`` float32 in the files' units, within the range.
            NaN is black.

        Raises:
            ValueError: If the pixels are not uint8 and the range is not known, or uint8 and the
                range is that of another depth.
        """
        if pixels.dtype == np.uint8 and not is_of_uint8(self.value_range):
            raise ValueError('its pixels are uint8, and the network was trained on another depth '
                             f'(value_range={self.value_range})')
        if self.own_depth and self.value_range is not None:
            return cut_off(pixels, self.value_range)
        if self.value_range is not None:
            return to_uint8(pixels, self.value_range)
        if pixels.dtype != np.uint8:
            raise ValueError(f'its pixels are {pixels.dtype}, and the config of the network does '
                             'not say which are black and white (value_range)')
        return pixels

    def shown(self, pictures: np.ndarray) -> np.ndarray:
        """(..., C) as :meth:`fit` gives them -> (..., 3) uint8, BGR, for people."""
        if self.own_depth and self.value_range is not None:
            pictures = to_uint8(pictures, self.value_range)
        return in_three_channels(pictures)


def in_three_channels(pictures: np.ndarray) -> np.ndarray:
    """(..., C) -> (..., 3): the first three of more, or the first of one or two as grey."""
    return pictures[..., :3] if pictures.shape[-1] > 2 else pictures[..., [0, 0, 0]]


def reader_of(cfg: Mapping[str, Any]) -> PictureReader:
    """What the training pipeline and the data preprocessor of a config say."""
    parts = list(dicts_in(cfg.get('train_dataloader') or {}))
    extensions = next((part['extensions'] for part in parts if part.get('extensions')), None)
    transform = next((step for step in parts
                      if type_name(step) in ('DecodeRandomCrop', 'DecodeImage')), {})
    own_depth = transform.get('depth') == 'own'
    value_range = transform.get('value_range')
    if own_depth and value_range is None:
        model = cfg.get('model') or {}
        preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        value_range = preprocessor.get('value_range')
    return PictureReader(int(transform.get('channels', 3)),
                         None if value_range is None else (value_range[0], value_range[1]),
                         own_depth, None if extensions is None else as_endings(extensions))


def dicts_in(node: Any) -> Iterator[dict]:
    """All dicts in a part of a config, at any depth."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from dicts_in(part)
