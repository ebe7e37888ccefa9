# SPDX-License-Identifier: Apache-2.0
"""Figure of neighbours: each row a query and the pictures nearest to it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, List, NamedTuple, Optional

import numpy as np

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
    agrees: Optional[bool]


def draw_neighbours(rows: Sequence[List[Cell]]) -> Figure:
    """A grid; frames are solid where labels agree and dashed where they do not.

    Args:
        rows (Sequence[list[Cell]]): A query and its neighbours, nearest first, in each.
    """
    from matplotlib.figure import Figure
    width = max(len(row) for row in rows)
    figure = Figure(figsize=(1.05 * width + 0.2, 1.3 * len(rows) + 0.1), layout='constrained')
    ratios = [1, 0.12, *[1] * (width - 1)]
    grid = figure.subplots(len(rows), len(ratios), squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    for line, row in zip(grid, rows):
        for axes, cell in zip([line[0], *line[2:]], row):
            axes.imshow(cell.picture[:, :, ::-1])
            axes.set_title(cell.title, fontsize=6.5)
            if cell.agrees is not None:
                for spine in axes.spines.values():
                    spine.set(visible=True, linewidth=2.5, edgecolor='C2' if cell.agrees else 'C5',
                              linestyle='-' if cell.agrees else (0, (2, 2)))
    return figure
