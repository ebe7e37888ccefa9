# SPDX-License-Identifier: Apache-2.0
"""Tools that compute for long refuse an ``--out`` that they could not write, before they begin."""
from importlib import import_module
from pathlib import Path

import pytest

TINY = Path(__file__).with_name('tiny_config.py')
TOOLS = {  # arguments before --out: they name no checkpoints and pictures
    'embed': ['none', 'none.pth'], 'probe': ['none.pth', 'none'], 'finetune': ['none.pth', 'none'],
    'neighbours': ['none.py', 'none.pth'], 'saliency': ['none.py', 'none.pth'],
    'embedding': ['none.py', 'none.pth'], 'report': ['.'], 'browse_views': ['none.py'],
    'test': [str(TINY), str(TINY)],
}


@pytest.mark.parametrize('tool', TOOLS)
def test_a_folder_that_cannot_be(tool, tmp_path):
    (tmp_path / 'file').touch()
    ending = dict(embed='.npy', test='.json').get(tool, '')
    with pytest.raises(SystemExit, match=f'^{tool}: .*cannot be written to .*file: Not a direct'):
        import_module(f'pic_plugin.tools.{tool}').main(
            [*TOOLS[tool], '--out', str(tmp_path / 'file' / 'new' / f'out{ending}')])
    assert [file.name for file in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('tool', ['embed', 'probe', 'test', 'browse_views'])
def test_a_folder_in_the_place_of_a_file(tool, tmp_path):
    out = tmp_path / ('out' + dict(embed='.npy', test='.json').get(tool, ''))
    out.mkdir()
    with pytest.raises(SystemExit, match=f'^{tool}: .*out.* is a folder: give the name of a file'):
        import_module(f'pic_plugin.tools.{tool}').main([*TOOLS[tool], '--out', str(out)])
