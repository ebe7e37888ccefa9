# SPDX-License-Identifier: Apache-2.0
"""Words for people."""
from __future__ import annotations

import math
from collections.abc import Sequence


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number and what it counts: '1 picture', '3,068 pictures'.

    Args:
        number (int): How many.
        one (str): Word for one of them.
        several (str, optional): Word for others. Defaults to None, ``one`` with an s.
    """
    return f'{number:,} {one if number == 1 else several or one + "s"}'


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ', '.join(names[:most]) + (f' and {more:,} more' if more > 0 else '')


def duration(seconds: float) -> str:
    """Time for people: 42 s, 12 min, 3.4 h, 2.1 days."""
    if not math.isfinite(seconds):
        return 'unknown'
    for limit, unit, name, digits in ((120, 1, 's', 0), (7200, 60, 'min', 0),
                                      (172_800, 3600, 'h', 1)):
        if seconds < limit:
            return f'{seconds / unit:.{digits}f} {name}'
    return f'{seconds / 86400:.1f} days'
