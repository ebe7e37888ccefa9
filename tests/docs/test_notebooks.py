# SPDX-License-Identifier: Apache-2.0
"""The notebooks, each run from its first cell to its last with fewer pictures and steps."""
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pic_plugin.pretrain import measure

FOLDER = Path(__file__).resolve().parents[2] / 'docs' / 'notebooks'
NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))
SHORTER = {'num_pictures': 60, 'images_seen': 96}


def read(file):
    """Text of the code cells, with smaller numbers."""
    content = json.loads(file.read_text(encoding='utf-8'))
    assert content['nbformat'] == 4
    cells = [cell for cell in content['cells'] if cell['cell_type'] == 'code']
    # Outputs would be of one machine, and large.
    assert not any(cell['outputs'] for cell in cells)
    return [''.join(cell['source']) for cell in cells]


def run(file, monkeypatch, folder):
    """Run the cells in one namespace; returns it."""
    pytest.importorskip('matplotlib', reason="pip install '.[analysis]'").use('Agg')
    monkeypatch.chdir(folder)
    monkeypatch.setattr(measure, 'LOADER_SECONDS', 0.0)
    monkeypatch.setattr(measure, 'STEP_SECONDS', 0.0)
    namespace = {}
    shortened = set()
    for number, text in enumerate(read(file)):
        for name, value in SHORTER.items():
            text, count = re.subn(rf'^{name} = \d+$', f'{name} = {value}', text, flags=re.M)
            shortened |= {name} if count else set()
        exec(compile(text, f'{file.name}, cell {number}', 'exec'), namespace)
    assert shortened == set(SHORTER)
    return namespace


def test_there_are_two():
    assert [file.stem for file in NOTEBOOKS] == ['checkpoint_to_classifier', 'pretrain_and_search']


def test_pretrain_and_search(tmp_path, monkeypatch, work_dir):
    namespace = run(FOLDER / 'pretrain_and_search.ipynb', monkeypatch, tmp_path)
    assert namespace['features'].shape == (61, 512)
    assert namespace['nearest'].shape == (61, 5)
    # No picture is its own neighbour.
    assert not (namespace['nearest'] == np.arange(61)[:, None]).any()


def test_checkpoint_to_classifier(tmp_path, monkeypatch, work_dir):
    namespace = run(FOLDER / 'checkpoint_to_classifier.ipynb', monkeypatch, tmp_path)
    assert set(namespace['missing'].missing_keys) == {'fc.weight', 'fc.bias'}
    assert not namespace['missing'].unexpected_keys
    assert namespace['found']['trained'].num_train + namespace['found']['trained'].num_test == 61
    assert len(namespace['losses']) == 10 and np.isfinite(namespace['losses']).all()
