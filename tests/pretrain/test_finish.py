# SPDX-License-Identifier: Apache-2.0
"""What is said at the end of a pre-training."""
from pathlib import Path

from pic_plugin.pretrain import finish


def test_the_lines_that_use_the_backbone_begin_with_their_imports():
    for made, needed in (
            (['network = torchvision.models.resnet18()'],
             ['import pic_plugin', 'import torch, torchvision']), ([], ['import pic_plugin'])):
        lines = [line.strip() for line in finish.usage(Path('b.pth'), made)]
        assert [line for line in lines if line.startswith('import')] == needed
        code = [line for line in lines if line.startswith('import') or ' = ' in line]
        compile('\n'.join(code), 'usage', 'exec')
        assert code[0] == 'import pic_plugin'


def test_without_the_libraries_of_the_report(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"{name} is not installed: pip install 'pic_plugin[analysis]'.")

    monkeypatch.setattr(finish, 'require', absent)
    said = []
    finish.report(Path('my runs'), None, 'cpu', said.append)
    assert said == ["no report: matplotlib is not installed: pip install 'pic_plugin[analysis]'. "
                    "Then: `python -m pic_plugin.tools.report 'my runs'`"]
