# SPDX-License-Identifier: Apache-2.0
"""Figure of neighbours: each row a query and the pictures nearest to it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from pic_plugin.analysis.images import Images
from pic_plugin.analysis.style import hide_axes, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Cell(NamedTuple):
    """One picture.

    Attributes:
        picture (np.ndarray): (H, W, 3) uint8, BGR.
        title (str): Above it.
        agrees (bool | None): Whether its label is the query's; None if unknown.
    """

    picture: np.ndarray
    title: str
    agrees: bool | None


def make_cells(images: Images, indices: Sequence[int], queries: Sequence[int], rows: Tensor,
               cosines: Tensor, side: int) -> list[list[Cell]]:
    """Pictures for :func:`draw_neighbours`.

    Args:
        images (Images): Pictures.
        indices (Sequence[int]): (n,) which of them were compared.
        queries (Sequence[int]): (Q,) positions in ``indices``.
        rows (Tensor): (Q, k) int64, positions of the neighbours, of :func:`nearest`.
        cosines (Tensor): (Q, k) float32, their similarities.
        side (int): Pixels to draw them at.
    """

    def cell(place: int, query: int, title: str) -> Cell:
        index = indices[place]
        # Unreadable pictures have class weights, too: a grey square that says so.
        pictures = next((batch for _, batch in images.shown([index], side, 1)), None)
        if pictures is None:
            pictures, title = np.full((1, side, side, 3), 128, np.uint8), 'unreadable'
        if images.labels is None:
            return Cell(pictures[0], title, None)
        label = images.labels[index]
        agrees = None if place == query else label == images.labels[indices[query]]
        return Cell(pictures[0], f'{label[:14]} {title}'.strip(), agrees)

    return [[cell(query, query, '' if images.labels else 'query'),
             *(cell(row, query, f'{cosine:.2f}') for row, cosine in zip(near, similar))]
            for query, near, similar in zip(queries, rows.tolist(), cosines.tolist())]


def draw_neighbours(rows: Sequence[list[Cell]]) -> Figure:
    """A grid; frames are solid where labels agree and dashed where they do not.

    Args:
        rows (Sequence[list[Cell]]): A query and its neighbours, nearest first, in each.
    """
    width = max(len(row) for row in rows)
    ratios = [1, 0.12, *[1] * (width - 1)]
    figure, grid = subplots(1.05 * width + 0.2, 1.3 * len(rows) + 0.1, len(rows), len(ratios),
                            squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        hide_axes(axes)
    for line, row in zip(grid, rows):
        for axes, cell in zip([line[0], *line[2:]], row):
            axes.imshow(cell.picture[:, :, ::-1])
            axes.set_title(cell.title, fontsize=6.5)
            if cell.agrees is not None:
                axes.spines[:].set(
                    visible=True, linewidth=2.5, edgecolor='C2' if cell.agrees else 'C5',
                    linestyle='-' if cell.agrees else (0, (2, 2)))
    return figure
