# SPDX-License-Identifier: Apache-2.0
"""Features of pictures from Python: a backbone as a plain module, and arrays with file names."""
from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.device import get_device
from PIL import Image, ImageOps
from torch import Tensor, nn

from pic_plugin.analysis.images import (
    DEFAULT_SIDE,
    FolderImages,
    Images,
    Skipped,
    report_skipped,
    training_side,
)
from pic_plugin.analysis.inputs import progress as progress_bar
from pic_plugin.analysis.network import RANDOM, Network, check_device, open_network, pooled
from pic_plugin.analysis.picture_reader import PictureReader, reader_of
from pic_plugin.engine.checkpoint.foreign_checkpoint import find_checkpoint
from pic_plugin.features.files import check_writable, write_features


class LoadedBackbone(nn.Module):
    """A backbone that gives one feature for each image.

    Args:
        backbone (nn.Module): mmpretrain's.
        mean (Sequence[float]): Of R, G and B (or of B, G and R, see ``channel_order``), 0 to 255.
        std (Sequence[float]): Likewise.
        channel_order (str): 'RGB' or 'BGR', what the network wants.
        image_size (int): Pixels that it was trained with.
        normalise (bool): Whether ``forward`` takes RGB pixels from 0 to 255 and normalises them.
        reader (PictureReader): How the training read its pictures. Defaults to colours of 8 bits.

    Attributes:
        mean, std, channel_order, image_size, normalise, reader: As given.
        feature_dim (int): C.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float],
                 channel_order: str, image_size: int, normalise: bool,
                 reader: PictureReader = PictureReader()) -> None:  # noqa: B008  unchangeable
        super().__init__()
        self.backbone = backbone
        self.mean = tuple(map(float, mean))
        self.std = tuple(map(float, std))
        self.channel_order = channel_order
        self.image_size = image_size
        self.normalise = normalise
        self.reader = reader
        # Not saved: the names of the weights stay the backbone's.
        self.register_buffer('_mean', torch.tensor(self.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('_std', torch.tensor(self.std).view(-1, 1, 1), persistent=False)
        self.eval()
        with torch.no_grad():
            empty = torch.zeros(1, len(self.mean), image_size, image_size)
            self.feature_dim = pooled(self.backbone(empty)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C); of another number of channels where the network has one.

        Args:
            images (Tensor): Normalised by ``mean`` and ``std`` in ``channel_order``; or, with
                ``normalise=True``, RGB pixels from 0 to 255 of any dtype (a network that was
                trained on pixels of another depth takes those).
        """
        if self.normalise:
            images = images.float()
            if self.channel_order == 'BGR' and images.shape[1] == 3:
                images = images.flip(1)
            images = (images - self._mean) / self._std
        return pooled(self.backbone(images))


def load_backbone(checkpoint: str | Path, normalise: bool = False,
                  device: str = 'cpu') -> LoadedBackbone:
    """A backbone out of a checkpoint, ready to give features.

    Args:
        checkpoint (str | Path): Of a pre-training, an exported backbone, or a work folder (its
            newest checkpoint).
        normalise (bool): Whether the module takes RGB pixels from 0 to 255 and normalises them
            itself. Defaults to False: it takes what ``(pixels - mean) / std`` gives.
        device (str): Defaults to 'cpu'.

    Returns:
        LoadedBackbone: A plain module in evaluation mode, (B, 3, H, W) -> (B, C). Train it further
        like any other.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or its network is unknown.
    """
    return _loaded(open_network(find_checkpoint(checkpoint)), normalise).to(check_device(device))


def untrained_twin(checkpoint: str | Path, normalise: bool = False, device: str = 'cpu',
                   seed: int = 0) -> LoadedBackbone:
    """The same network with the weights that it would start from, to compare with.

    Args:
        checkpoint (str | Path): As for :func:`load_backbone`, likewise the others.
        seed (int): Of the weights. Defaults to 0.
    """
    trained = open_network(find_checkpoint(checkpoint))
    return _loaded(open_network(RANDOM, like=trained.settings, seed=seed), normalise).to(
        check_device(device))


def _loaded(network: Network, normalise: bool) -> LoadedBackbone:
    training, channels = network.settings.training, len(network.grey)
    mean, std, to_rgb = network.settings.normalisation
    # One number may stand for all channels.
    mean, std = (values if len(values) > 1 else [*values] * channels
                 for values in (mean or [0.0], std or [1.0]))
    reader = reader_of(training)
    if channels != 3:  # which a pipeline of other transforms does not tell
        reader = reader._replace(channels=channels)
    return LoadedBackbone(network.backbone, mean, std, 'RGB' if to_rgb else 'BGR',
                          training_side(training) or DEFAULT_SIDE, normalise, reader)


class Embedding(NamedTuple):
    """Features and whose they are.

    Attributes:
        features (np.ndarray): (n, C) float32.
        names (list[str]): n file names, below the folder or as given; of arrays their numbers.
    """

    features: np.ndarray
    names: list[str]


class _ListedImages(Images):
    """Files and arrays, in the order given."""

    def __init__(self, images: Sequence[Any], reader: PictureReader) -> None:
        super().__init__([str(one) if isinstance(one, (str, os.PathLike)) else str(number)
                          for number, one in enumerate(images)], None, reader)
        self._images = images

    def read(self, index: int) -> np.ndarray:
        """See :meth:`Images.read`."""
        image = self._images[index]
        if isinstance(image, (str, os.PathLike)):
            return self.reader.read(dict(img_path=str(Path(image).expanduser().absolute())))
        channels = self.reader.channels
        pixels = (_pixels_of(image, channels) if isinstance(image, Image.Image) else
                  np.asarray(image))
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], channels, axis=2)
        if channels == 3 and pixels.ndim == 3 and pixels.shape[2] == 4:
            pixels = pixels[:, :, :3]  # without transparency
        if pixels.ndim != 3 or pixels.shape[2] != channels or (
                pixels.dtype != np.uint8 and self.reader.value_range is None):
            raise ValueError(f'image {index} is {pixels.shape} of {pixels.dtype}: give (H, W, '
                             f'{channels}) uint8{" in RGB" if channels == 3 else ""}')
        return self.reader.fit(pixels[:, :, ::-1] if channels == 3 else pixels)


def _pixels_of(image: Image.Image, channels: int) -> np.ndarray:
    """(H, W) or (H, W, C), upright as files are read; Pillow may read the file only now."""
    try:
        image = ImageOps.exif_transpose(image)
        # Palettes and the like, not what is deeper than 8 bits.
        if channels in (1, 3) and image.mode[0] not in 'IF':
            image = image.convert('RGB' if channels == 3 else 'L')
        return np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders meet arbitrary bytes with arbitrary exceptions
        raise ValueError(f'it cannot be read ({error})') from error


def embed(images: str | Path | Sequence[Any] | np.ndarray,
          checkpoint: str | Path | LoadedBackbone,
          out: str | Path | None = None,
          side: int | None = None,
          batch_size: int = 64,
          device: str | None = None,
          progress: bool = True) -> Embedding:
    """Features of pictures, for search, clustering and removing duplicates.

    Args:
        images (str | Path | Sequence | np.ndarray): A folder (with its subfolders), a list of files
            or of PIL images or (H, W, 3) uint8 arrays in RGB, or one array (n, H, W, 3).
        checkpoint (str | Path | LoadedBackbone): As for :func:`load_backbone`, or what that
            returned with ``normalise=True``.
        out (str | Path, optional): File to write, by its ending ``.npy`` (names in ``.txt`` beside
            it), ``.npz``, ``.csv`` or ``.parquet``. Defaults to None.
        side (int, optional): Pixels that the middle square of a picture is scaled to. Defaults to
            None: what the network was trained with.
        batch_size (int): Pictures at a time. Defaults to 64.
        device (str, optional): Defaults to None: a GPU if there is one.
        progress (bool): Whether to count on stderr, if that is a terminal. Defaults to True.

    Returns:
        Embedding: ``features`` (n, C) float32 and ``names``. Pictures that cannot be read, or
        whose feature is not finite, are left out and named on stderr.

    Raises:
        FileNotFoundError: If a folder or the checkpoint is not there.
        OSError: If ``out`` cannot be written.
        ValueError: If nothing can be read, no feature is finite, an argument is out of range, or
            ``out`` has another ending.
    """
    if side is not None and side < 1:
        raise ValueError(f'side must be at least 1 pixel, not {side}.')
    if isinstance(images, np.ndarray) and (images.ndim < 3 or images.shape[2:] in ((3, ), (4, ))):
        raise ValueError(f'an array of pictures must be (n, H, W, 3), not {images.shape}: for one '
                         'picture give picture[None].')
    if isinstance(images, Image.Image):
        raise ValueError('images must be a list, for one picture too: give [picture].')
    if out is not None:
        check_writable(out)
    if isinstance(checkpoint, LoadedBackbone):
        backbone = checkpoint if device is None else checkpoint.to(check_device(device))
        if not backbone.normalise:
            raise ValueError('embed needs a backbone that normalises: load_backbone(checkpoint, '
                             'normalise=True).')
        backbone.eval()
    else:
        backbone = load_backbone(checkpoint, normalise=True, device=device or get_device())
    given: Images = (FolderImages(images, backbone.reader) if isinstance(images, (str, Path)) else
                     _ListedImages(list(images), backbone.reader))
    if not len(given):
        raise ValueError('there are no images: the list is empty.')
    where = next(backbone.parameters()).device
    # Not joined from batches, which would take all features twice.
    features = np.empty((len(given), backbone.feature_dim), np.float32)
    names: list[str] = []
    num_read = 0
    bar = progress_bar(len(given)) if progress else nullcontext(lambda done: None)
    with bar as advance:
        for indices, pictures in given.batches(range(len(given)), side or backbone.image_size,
                                               batch_size):
            if backbone.reader.channels == 3:
                pictures = np.ascontiguousarray(pictures[..., ::-1])  # (B, side, side, 3), RGB
            pixels = torch.from_numpy(pictures).to(where).permute(0, 3, 1, 2)
            with torch.inference_mode():
                found = backbone(pixels).float().cpu().numpy()  # (B, C)
            num_read += len(indices)
            finite = np.isfinite(found).all(axis=1)
            given.skipped += [Skipped(given.names[index], 'its feature is not finite')
                              for index in np.array(indices)[~finite]]
            features[len(names):len(names) + finite.sum()] = found[finite]
            names += [given.names[index] for index in np.array(indices)[finite]]
            advance(len(indices))
    report_skipped('embed', given, most=len(given))
    if not num_read:
        raise ValueError(f'none of the {len(given)} images can be read.')
    if not names:
        raise ValueError('no feature is finite: the network gives nothing that could be used; '
                         'take an earlier checkpoint.')
    result = Embedding(features[:len(names)], names)
    if out is not None:
        write_features(result.features, result.names, out)
    return result
