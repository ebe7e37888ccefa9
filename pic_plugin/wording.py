# SPDX-License-Identifier: Apache-2.0
"""Words for people."""
from __future__ import annotations

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
