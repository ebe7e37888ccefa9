# SPDX-License-Identifier: Apache-2.0
"""Nearest pictures by cosine similarity of features or class weights, and near-duplicates."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pic_plugin.analysis.images import Images, choose, square
from pic_plugin.analysis.inputs import progress

BLOCK_BYTES = 64 * 2**20  # of similarities at a time
THUMB = 32  # pixels; pictures of differing sizes are compared at this one


def _similarities(values: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (b,) and their (b, n) cosines to all of ``values``, a block at a time."""
    unit = F.normalize(values.float(), dim=1)
    for rows in wanted.split(max(1, BLOCK_BYTES // (4 * len(values)))):
        yield rows, unit[rows] @ unit.T


def nearest(values: Tensor, queries: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """The rows most similar to each query, without itself.

    Args:
        values (Tensor): (n, d) features or class weights.
        queries (Sequence[int]): Rows.
        count (int): How many neighbours; n - 1 if there are fewer.

    Returns:
        tuple[Tensor, Tensor]: (Q, k) int64 rows, nearest first, and their cosines, float32.
    """
    count = min(count, len(values) - 1)
    rows, cosines = [], []
    for block, similar in _similarities(values, torch.as_tensor(queries, dtype=torch.int64)):
        similar[torch.arange(len(block)), block] = -2.0
        best = similar.topk(count, dim=1)
        rows.append(best.indices)
        cosines.append(best.values)
    return torch.cat(rows), torch.cat(cosines)


class Pair(NamedTuple):
    """Two pictures that may be one.

    Attributes:
        first (int): Index of the picture.
        second (int): Index of the other, larger.
        similarity (float): Cosine of their features.
        pixel_difference (float): Mean absolute difference of the pictures at 32x32 pixels, grey
            levels from 0 to 255; 0 for pictures that are the same.
        kind (str): 'identical': all pixels are the same; or 'similar'.
    """

    first: int
    second: int
    similarity: float
    pixel_difference: float
    kind: str


def check_similarity(similarity: float) -> None:
    """Refuse what no pair would have, or all.

    Raises:
        ValueError: If it is not above 0 and at most 1.
    """
    if not 0 < similarity <= 1:
        raise ValueError(f'the similarity of duplicates must be above 0 and at most 1, not '
                         f'{similarity}.')


def duplicates(values: Tensor, indices: Sequence[int], images: Images, similarity: float,
               most: int) -> list[Pair]:
    """Pairs of pictures whose features are nearly the same, most similar first.

    Args:
        values (Tensor): (n, d) features.
        indices (Sequence[int]): (n,) which pictures they are of.
        images (Images): Pictures.
        similarity (float): Least cosine, up to 1.
        most (int): Pairs to look at; identical pictures are among the most similar.

    Raises:
        ValueError: If ``similarity`` is not above 0 and at most 1.
    """
    check_similarity(similarity)
    found: list[tuple[float, int, int]] = []
    with progress(len(values)) as advance:
        for block, similar in _similarities(values, torch.arange(len(values))):
            # Float32 rounding must not lose identical pictures at 1.
            close = similar >= similarity - 1e-5
            close &= torch.arange(len(values))[None] > block[:, None]
            places = close.nonzero()
            cosines = similar[close]
            keep = cosines.topk(min(most, len(cosines))).indices
            found += zip(cosines[keep].tolist(), block[places[keep, 0]].tolist(),
                         places[keep, 1].tolist())
            found = sorted(found, key=lambda pair: (-pair[0], pair[1], pair[2]))[:most]
            advance(len(block))
    return [_look_at(images, indices[first], indices[second], min(cosine, 1.0))
            for cosine, first, second in found]


def _look_at(images: Images, first: int, second: int, cosine: float) -> Pair:
    ours, theirs = images.read(first), images.read(second)
    thumbs = [cv2.cvtColor(images.reader.shown(square(one, THUMB)),
                           cv2.COLOR_BGR2GRAY).astype(int) for one in (ours, theirs)]
    difference = float(np.abs(thumbs[0] - thumbs[1]).mean())
    same = ours.shape == theirs.shape and np.array_equal(ours, theirs)
    return Pair(first, second, cosine, difference, 'identical' if same else 'similar')


def find_queries(images: Images, names: Sequence[str] | None, indices: Sequence[int],
                 count: int) -> list[int]:
    """Positions in ``indices`` of the pictures that are asked for, or of some, evenly from all.

    Args:
        images (Images): Pictures.
        names (Sequence[str], optional): Names of pictures. Defaults to None: ``count`` of them.
        indices (Sequence[int]): Pictures that could be read.
        count (int): How many without names.

    Raises:
        ValueError: If a name is not one of them.
    """
    if names is None:
        return choose(len(indices), count)
    places: dict[str, int] = {images.names[index]: place for place, index in enumerate(indices)}
    unknown = [name for name in names if name not in places]
    if unknown:
        raise ValueError(f'{unknown[0]} is not one of the {len(places)} pictures, which are named '
                         f'such as {next(iter(places))}: give names as they are in the CSV.')
    return [places[name] for name in names]
