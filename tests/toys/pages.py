# SPDX-License-Identifier: Apache-2.0
"""README.md and the pages of docs/: their code blocks and what these say of themselves."""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
#: Languages of blocks that a reader may copy and run.
RUNNABLE = {'bash', 'sh', 'shell', 'console', 'python', 'py', 'pycon'}
COMMENT = re.compile(r'<!-- (.*) -->')
FENCE = re.compile(r'(`{3,}|~{3,})(.*)')


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page (Path): File.
        line (int): Number of the line of its fence, from 1.
        language (str): What stands behind the fence.
        marks (list[str]): What the comments right before it say, without the comment's signs.
        text (str): The block.
    """

    page: Path
    line: int
    language: str
    marks: list[str]
    text: str

    @property
    def where(self) -> str:
        return f'{self.page.relative_to(ROOT)}:{self.line}'

    def mark(self, kind: str) -> str | None:
        """What follows ``kind: `` in the comment that has it."""
        return next((mark[len(kind) + 2:].strip() for mark in self.marks
                     if mark.startswith(f'{kind}: ')), None)

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block, with those that a backslash continues joined."""
        lines = re.sub(r'\\\n\s*', '', self.text).splitlines()
        return [line.split('  #')[0].strip() for line in lines if line.strip()]


def pages() -> list[Path]:
    """All pages: the README and what the site is made of."""
    built = ROOT / 'docs' / '_build'
    return [ROOT / 'README.md', *(path for path in sorted((ROOT / 'docs').rglob('*.md'))
                                  if built not in path.parents)]


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page.

    Raises:
        ValueError: If a fence is not closed.
    """
    lines = page.read_text(encoding='utf-8').splitlines()
    i = 0
    while i < len(lines):
        fence = FENCE.fullmatch(lines[i].strip())
        if fence is None:
            i += 1
            continue
        try:
            end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == fence[1])
        except StopIteration:
            raise ValueError(f'{page}:{i + 1}: this fence is not closed.') from None
        marks, above = [], i - 1
        while above >= 0 and (comment := COMMENT.fullmatch(lines[above].strip())):
            marks.append(comment[1])
            above -= 1
        yield Block(page, i + 1, fence[2].strip(), marks, '\n'.join(lines[i + 1:end]) + '\n')
        i = end + 1


def all_blocks() -> list[Block]:
    """The fenced blocks of all pages."""
    return [block for page in pages() for block in blocks_of(page)]


def block(name: str) -> Block:
    """The first block that says ``<!-- tested: name -->``.

    A name may stand at several places, if all of these blocks say the same.

    Raises:
        ValueError: If there is none, or they differ.
    """
    found = [one for one in all_blocks() if one.mark('tested') == name]
    if not found:
        raise ValueError(f'no block of README.md or docs/ says <!-- tested: {name} -->.')
    for other in found[1:]:
        if other.text != found[0].text:
            raise ValueError(f'{found[0].where} and {other.where} are both {name}, and differ.')
    return found[0]
