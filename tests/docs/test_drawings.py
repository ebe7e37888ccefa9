# SPDX-License-Identifier: Apache-2.0
"""The drawings of the documentation are what docs/drawings/draw.py draws."""
import runpy
import xml.etree.ElementTree as ElementTree

import pytest

from toys.pages import ROOT

SCRIPT = runpy.run_path(str(ROOT / 'docs' / 'drawings' / 'draw.py'))


@pytest.mark.parametrize('name', SCRIPT['render']())
def test_file_is_up_to_date(name):
    content = (ROOT / 'docs' / 'images' / name).read_text(encoding='utf-8')
    assert content == SCRIPT['render']()[name], 'run `python docs/drawings/draw.py`'
    drawing = ElementTree.fromstring(content)
    assert drawing.find('{http://www.w3.org/2000/svg}title').text  # for screen readers


def test_the_correction_is_drawn_from_numbers():
    """What the picture claims: a frozen row comes back elsewhere, and decay is at work."""
    dense, frozen, here = SCRIPT['correction_series']()
    away = [step for step, is_here in enumerate(here) if not is_here]
    assert dense[:away[0]] == frozen[:away[0]]
    assert len({frozen[step] for step in away}) == 1
    assert dense[away[-1]] > 1.2 * frozen[away[-1]]
    assert dense[away[-1]] < max(dense[step] for step in away)
