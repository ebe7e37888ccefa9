# SPDX-License-Identifier: Apache-2.0
"""Means with standard errors, and differences of methods, where each setting has few runs.

One to three runs of a setting say little about how far runs lie apart. So the spread is pooled: the
squared deviations of all runs from their group's mean, over all groups of a data set, divided by
their degrees of freedom. A group of one run counts for nothing here, and gets its standard error
from the others.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Data set, images, passes, method.
Group = tuple[str, int, int, str]
OURS = 'PIC, refresh'


def group_runs(records: Sequence[dict[str, Any]], stages: Sequence[str]) -> \
        dict[Group, list[dict[str, Any]]]:
    """Runs of the same data, length and method.

    Raises:
        ValueError: If two runs of a group differ in more than the seed, so that their mean would
            be no mean of one setting.
    """
    groups: dict[Group, list[dict[str, Any]]] = {}
    for record in records:
        if record['stage'] in stages:
            setting = record['setting']
            key = (setting.data, setting.images, setting.passes, record['name'])
            groups.setdefault(key, []).append(record)
    for key, part in groups.items():
        kinds = {one['setting'].but(seed=0).key for one in part}
        if len(kinds) > 1:
            raise ValueError(f'{key} has runs of {len(kinds)} settings: {sorted(kinds)}. Make a '
                             'table for each stage.')
    return groups


def pooled_deviation(groups: dict[Group, list[dict[str, Any]]], data: str, metric: str) -> float:
    """Standard deviation of runs of one setting, over all groups of a data set; nan: unknown."""
    squares, freedom = 0.0, 0
    for key, part in groups.items():
        values = values_of(part, metric)
        if key[0] == data and len(values) > 1:
            squares += float(np.square(np.array(values) - np.mean(values)).sum())
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def values_of(part: list[dict[str, Any]], metric: str) -> list[float]:
    """Values of the runs that have the metric."""
    return [one[metric] for one in part if metric in one]


def with_error(mean: float, error: float, sign: bool = False) -> str:
    """Text of a mean and its standard error, which is left out if it is unknown."""
    text = f'{mean:+.1f}' if sign else f'{mean:.1f}'
    return text if math.isnan(error) else f'{text} ± {error:.1f}'


def mean_text(groups: dict[Group, list[dict[str, Any]]], key: Group, metric: str) -> str:
    """Mean ± standard error of a group."""
    values = values_of(groups[key], metric)
    if not values:
        return '–'
    return with_error(float(np.mean(values)),
                      pooled_deviation(groups, key[0], metric) / math.sqrt(len(values)))


def runs_text(part: list[dict[str, Any]]) -> str:
    """How many runs, and of how many seeds."""
    seeds = len({one['setting'].seed for one in part})
    return f'{len(part)}' if seeds == len(part) else f'{len(part)} (seeds: {seeds})'


def difference(groups: dict[Group, list[dict[str, Any]]], rival: Group, metric: str) -> \
        tuple[float, float]:
    """PIC with refresh minus another method, and the standard error of that; nan: unknown.

    It takes the two means as independent: seeds share the order of images at most.
    """
    mine, theirs = (values_of(groups.get(key, []), metric) for key in ((*rival[:3], OURS), rival))
    if not mine or not theirs:
        return math.nan, math.nan
    error = pooled_deviation(groups, rival[0], metric) * math.sqrt(1 / len(mine) + 1 / len(theirs))
    return float(np.mean(mine) - np.mean(theirs)), error


def difference_text(mean: float, error: float) -> str:
    """Text of a difference."""
    return '–' if math.isnan(mean) else with_error(mean, error, sign=True)


def difference_rows(groups: dict[Group, list[dict[str, Any]]], metrics: Sequence[str]) -> \
        list[list[str]]:
    """PIC with refresh minus each other method: rows of data, images, passes, method, metrics."""
    return [[key[0], f'{key[1]:,}', f'{key[2]:,}', key[3],
             *(difference_text(*difference(groups, key, metric)) for metric in metrics)]
            for key in sorted(groups) if key[3] != OURS and (*key[:3], OURS) in groups]
