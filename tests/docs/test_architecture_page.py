# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md names the packages in the order in which they import each other."""
import re
import runpy

from toys.pages import ROOT

LAYERS = runpy.run_path(str(ROOT / 'tests' / 'test_architecture.py'))['LAYERS']
SMALL = {'command_line', 'files', 'output', 'random_bits', 'dependencies', 'version', 'data',
         'wording'}


def test_table_of_packages():
    page = (ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    table = re.search(r'^\| package \|.*?\n\n', page, re.MULTILINE | re.DOTALL)[0]
    rows = [re.findall(r'`pic_plugin/(\w+)', row.split('|')[1])
            for row in table.strip().splitlines()[2:]]
    rank = {part: i for i, parts in enumerate(LAYERS) for part in parts}
    named = [part for row in rows for part in row]
    there = {part for part in rank if list((ROOT / 'pic_plugin').glob(f'{part}/__init__.py'))
             or (ROOT / 'pic_plugin' / f'{part}.py').is_file()}
    assert set(named) == there - SMALL, 'a package has come or gone'
    ranks = [{rank[part] for part in row} for row in rows]
    assert all(max(above) <= min(below) for above, below in zip(ranks, ranks[1:])), ranks
