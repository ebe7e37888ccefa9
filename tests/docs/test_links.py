# SPDX-License-Identifier: Apache-2.0
"""Links in README.md and docs/ lead somewhere, also for who reads them in the repository."""
import re
from functools import cache

import pytest

from toys.pages import ROOT, blocks_of, pages

LINK = re.compile(r'\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)')
#: Files that pages speak of: `pic_plugin/models/pic.py`, `docs/drawings/draw.py`.
FILE = re.compile(r'`((?:pic_plugin|configs|tests|docs|\.ci)/[\w./-]*\w/?)`')


@cache
def text_of(page):
    """A page without its blocks."""
    text = page.read_text(encoding='utf-8')
    for block in blocks_of(page):
        text = text.replace(block.text, '\n')
    return text


@cache
def anchors(page):
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r'^#+ (.+)$', text_of(page), re.MULTILINE)
    plain = (re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading) for heading in headings)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in plain}


@pytest.mark.parametrize('page', pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if re.match(r'(https?|mailto):', link):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{page.name}: there is no {link}'
        if anchor:
            assert anchor in anchors(target), f'{page.name}: {target.name} has no heading #{anchor}'


@pytest.mark.parametrize('page', pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_spoken_of_exist(page):
    if page.name in ('upgrade.md', 'changelog.md'):
        return  # they speak of what was
    missing = [name for name in FILE.findall(text_of(page)) if not (ROOT / name).exists()]
    assert not missing, f'{page.name} speaks of files that are not there: {missing}'
