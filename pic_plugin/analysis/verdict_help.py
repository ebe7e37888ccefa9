# SPDX-License-Identifier: Apache-2.0
"""What to do about a verdict: the package has a copy of that page of the documentation."""
from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / 'data' / 'verdicts.md'


def explanation(page: str) -> str:
    """The section that a verdict's page names, as plain text.

    Args:
        page (str): As in :attr:`Verdict.page`, 'verdicts.md#the-loss-is-at-chance'.

    Raises:
        KeyError: If there is no such section.
    """
    return _sections()[page.rpartition('#')[2]]


@cache
def _sections() -> dict[str, str]:
    text = PAGE.read_text(encoding='utf-8')
    text = re.sub(r'<!--.*?-->\n', '', text)
    text = re.sub(r'\[([^]]+)\]\([^)]*\)', r'\1', text)  # links to other pages
    text = re.sub(r'^```.*\n', '', text, flags=re.MULTILINE)
    _, *sections = re.split(r'^## ', text, flags=re.MULTILINE)
    found = {}
    for section in sections:
        title, _, body = section.partition('\n')
        anchor = re.sub(r'[^a-z0-9 -]', '', title.lower()).replace(' ', '-')
        found[anchor] = body.strip()
    return found
