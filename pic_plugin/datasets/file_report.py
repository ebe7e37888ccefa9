# SPDX-License-Identifier: Apache-2.0
"""The report of a search for pictures: files found and files left out, with the reason."""
from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pic_plugin.datasets.file_names import printable
from pic_plugin.wording import counted

NUM_NAMED = 3  # examples of each reason that are printed
NUM_KEPT = 100  # that are remembered


def counted_reason(count: int, reason: str) -> str:
    """'1 other file', '2 other files': a reason begins with what it counts, in the plural."""
    one = re.sub(r'(file|folder|key|link|member|picture)s', r'\1', reason, count=1)
    return counted(count, one, reason)


@dataclass
class FileReport:
    """Counts of files by ending and of what was left out by reason.

    Attributes:
        read (Counter): Pictures by ending.
        left_out (Counter): Things by the reason for which they were left out.
        examples (dict[str, list[str]]): Up to NUM_KEPT names for each reason.
        notes (list[str]): What else is to be said of the data set, a sentence each.
    """

    read: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, state: dict[str, Any]) -> FileReport:
        """From ``vars()`` of one that went through JSON."""
        return cls(Counter(state['read']), Counter(state['left_out']), state['examples'],
                   state['notes'])

    def leave_out(self, reason: str, name: bytes, count: int = 1) -> None:
        """Note that something is not read."""
        self.left_out[reason] += count
        named = self.examples.setdefault(reason, [])
        if len(named) < NUM_KEPT:
            named.append(printable(name))

    def add(self, other: FileReport) -> None:
        """Take in what was found in another place."""
        self.read.update(other.read)
        self.left_out.update(other.left_out)
        for reason, names in other.examples.items():
            mine = self.examples.setdefault(reason, [])
            mine += names[:NUM_KEPT - len(mine)]
        self.notes += other.notes

    @property
    def num_left_out(self) -> int:
        """Things that were left out."""
        return sum(self.left_out.values())

    def __str__(self) -> str:
        kinds = ', '.join(f'{count:,} {ending or "without an ending"}'
                          for ending, count in self.read.most_common())
        lines = [f'Pictures: {sum(self.read.values()):,}' + (f' ({kinds}).' if kinds else '.')]
        for reason, count in self.left_out.most_common():
            names = self.examples.get(reason, [])[:NUM_NAMED]
            more = ', ...' if count > len(names) else ''
            lines.append(f'Left out: {counted_reason(count, reason)}' + (
                f' ({", ".join(names)}{more}).' if names else '.'))
        return '\n'.join(lines + self.notes)
