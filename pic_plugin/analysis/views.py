# SPDX-License-Identifier: Apache-2.0
"""Augmented views of training images, out of the training's own loader and data preprocessor."""
from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.utils import get_ori_model
from torch import Tensor

from pic_plugin.analysis.picture_reader import (
    PictureReader,
    dicts_in,
    in_three_channels,
    reader_of,
)
from pic_plugin.datasets.decode_random_crop import to_uint8
from pic_plugin.datasets.file_names import printable
from pic_plugin.engine.runner_private import gives_rgb


class Row(NamedTuple):
    """An image and what augmentation makes of it.

    Attributes:
        original (np.ndarray | None): (H, W, 3) uint8, RGB, the whole image; None where it cannot be
            read.
        draws (list[list[np.ndarray]]): For each draw its views, (h, w, 3) uint8, RGB.
        name (str): File, or number in the data set.
    """

    original: np.ndarray | None
    draws: list[list[np.ndarray]]
    name: str


def draw_views(runner: Runner, num_images: int, num_draws: int) -> list[Row]:
    """Augment images, evenly from the whole data set, several times each.

    Args:
        runner (Runner): Not yet trained; its loader is built here.
        num_images (int): At most this many.
        num_draws (int): Of each image.

    Returns:
        list[Row]: In the order of the data set.

    Raises:
        ValueError: If the views of a batch are no images.
    """
    cfg = copy.deepcopy(runner.cfg.train_dataloader)
    for part in dicts_in(cfg):
        part.pop('cache', None)  # it takes all its memory at once, for images that come often
    loader = runner.build_dataloader(cfg, seed=runner.seed)
    dataset, model = loader.dataset, get_ori_model(runner.model)
    count = min(num_images, len(dataset))
    reader = reader_of(runner.cfg)
    rows = []
    for place in (number * len(dataset) // count for number in range(count)):
        samples = [dataset[place] for _ in range(num_draws)]
        collate = loader.collate_fn or default_collate
        with torch.no_grad():
            # In training mode, as what is augmented on the device is not in evaluation.
            batch = model.data_preprocessor(collate(samples), True)
        views = batch['inputs'] if isinstance(batch['inputs'], (list, tuple)) else [batch['inputs']]
        pixels = [_to_pixels(view, model.data_preprocessor) for view in views]  # (B, h, w, 3) each
        info = dataset.get_data_info(place) if hasattr(dataset, 'get_data_info') else {}
        rows.append(Row(_original(reader, info), [[view[i] for view in pixels]
                                                  for i in range(num_draws)],
                        printable(str(info.get('img_path', place)))))
    return rows


def _to_pixels(view: Any, preprocessor: Any) -> np.ndarray:
    """(B, C, h, w) normalised -> (B, h, w, 3) uint8, from black to white of the pixels' range."""
    if not isinstance(view, Tensor) or view.dim() != 4:
        seen = tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__
        raise ValueError(f'a view is {seen} after the data preprocessor, not (B, C, h, w).')
    pixels = view.detach().float().cpu()
    if getattr(preprocessor, 'mean', None) is not None:
        pixels = (pixels * preprocessor.std.view(1, -1, 1, 1).cpu()
                  + preprocessor.mean.view(1, -1, 1, 1).cpu())
    if gives_rgb(preprocessor) and pixels.shape[1] == 3:
        pixels = pixels.flip(1)
    value_range = getattr(preprocessor, 'value_range', None) or (0, 255)
    in_bgr = in_three_channels(to_uint8(pixels.permute(0, 2, 3, 1).numpy(), value_range))
    return in_bgr[..., ::-1]


def _original(reader: PictureReader, info: dict) -> np.ndarray | None:
    try:
        return reader.shown(reader.read(info))[..., ::-1]
    except (KeyError, ValueError):  # no picture in the info, or none that can be read
        return None


def views_figure(rows: list[Row]) -> Figure:
    """A row for each image: the original, then its draws."""
    first = any(row.original is not None for row in rows)
    width = first + max(sum(map(len, row.draws)) for row in rows)
    figure = Figure(figsize=(1.5 * width, 1.6 * len(rows)), layout='constrained')
    axes = figure.subplots(len(rows), width, squeeze=False)
    for line, row in zip(axes, rows):
        pictures = [row.original] * first + [view for draw in row.draws for view in draw]
        for axis, picture in zip(line, pictures):
            if picture is not None:
                axis.imshow(picture)
        for axis in line:
            axis.axis('off')
        line[0].set_title(row.name.rsplit('/', 1)[-1][:20], fontsize=7)
    return figure
