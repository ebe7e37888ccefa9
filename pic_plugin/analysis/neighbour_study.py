# SPDX-License-Identifier: Apache-2.0
"""Nearest pictures and duplicates of a data set as files, by feature or by class weight."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from pic_plugin.analysis.class_weights import read_class_weights
from pic_plugin.analysis.images import Images
from pic_plugin.analysis.inputs import open_trained
from pic_plugin.analysis.neighbour_figure import draw_neighbours, make_cells
from pic_plugin.analysis.neighbours import Pair, duplicates, find_queries, nearest
from pic_plugin.analysis.style import write_figure
from pic_plugin.files import write_csv


def training_images(cfg: Config, checkpoint: Path) -> tuple[Images, Tensor]:
    """The N images of a training, and their (N, d) float32 class weights out of a checkpoint.

    Raises:
        BankFileError: If a bank file is missing or damaged.
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it has no class weights, or not one for each image of the data set.
    """
    values = read_class_weights(checkpoint)
    images = open_trained(cfg)
    if len(values) != len(images):
        raise ValueError(f'{checkpoint} has {len(values)} class weights, and the training data '
                         f'set {len(images)} images: give the config and the data of its '
                         'training.')
    return images, values


def write_neighbours(images: Images, indices: Sequence[int], values: Tensor, side: int, out: Path,
                     queries: Sequence[str] | None, num_queries: int, count: int) -> int:
    """Write neighbours.csv, .png and .svg to ``out``, and return the number of queries.

    ``values`` are the (n, d) features or class weights of the pictures at ``indices``. ``queries``
    are names of pictures; None stands for ``num_queries`` of them.

    Raises:
        ValueError: If there are fewer than two pictures, or a query is not one of them.
    """
    if len(indices) < 2:
        raise ValueError('one picture has no neighbours: give more.')
    found = find_queries(images, queries, indices, num_queries)
    rows, cosines = nearest(values, found, count)
    write_csv(out / 'neighbours.csv', ['query', 'rank', 'neighbour', 'similarity'],
              [[images.names[indices[query]], rank + 1, images.names[indices[row]], float(cosine)]
               for query, near, similar in zip(found, rows.tolist(), cosines)
               for rank, (row, cosine) in enumerate(zip(near, similar))])
    cells = make_cells(images, indices, found, rows, cosines, side)
    write_figure(lambda: draw_neighbours(cells), out / 'neighbours')
    return len(found)


def write_duplicates(images: Images, indices: Sequence[int], values: Tensor, out: Path,
                     similarity: float, most: int) -> list[Pair]:
    """Write duplicates.csv: see :func:`duplicates`."""
    pairs = duplicates(values, indices, images, similarity, most)
    write_csv(out / 'duplicates.csv',
              ['first', 'second', 'kind', 'similarity', 'pixel_difference'],
              [[images.names[pair.first], images.names[pair.second], pair.kind,
                pair.similarity, pair.pixel_difference] for pair in pairs])
    return pairs
