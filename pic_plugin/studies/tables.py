# SPDX-License-Identifier: Apache-2.0
"""Markdown tables, and mean ± sample standard deviation over seeds."""
from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Summary(NamedTuple):
    """One metric of one setting over its seeds.

    Attributes:
        mean (float): Mean.
        std (float | None): Sample standard deviation (n - 1); None for one seed.
        seeds (int): How many there are.
    """

    mean: float
    std: float | None
    seeds: int


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean and sample standard deviation; None if there are no values."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), std, len(values))


def mean_std(values: Sequence[float], digits: int, missing: str = '') -> str:
    """``mean ± std``, the mean alone for one value, ``missing`` for none.

    Args:
        values (Sequence[float]): One for each seed.
        digits (int): After the point.
        missing (str): Defaults to nothing.
    """
    summary = summarise(values)
    if summary is None:
        return missing
    spread = '' if summary.std is None else f' ± {summary.std:.{digits}f}'
    return f'{summary.mean:.{digits}f}{spread}'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, without an end of line."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
