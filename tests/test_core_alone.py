# SPDX-License-Identifier: Apache-2.0
"""The core without OpenMMLab, in a fresh interpreter where its packages cannot be imported."""
import math
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / 'docs' / 'examples' / 'plain_loop.py'
HIDDEN = textwrap.dedent('''
    import sys
    import importlib.abc

    class Hide(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split('.')[0] in {hidden}:
                raise ModuleNotFoundError('No module named ' + repr(name), name=name)

    hide = Hide()
    sys.meta_path.insert(0, hide)
    import importlib.util
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: (
        None if name.split('.')[0] in {hidden} else find_spec(name, package))
''')
OPENMMLAB = ('mmengine', 'mmcv', 'mmpretrain')


def run(code, hidden=OPENMMLAB):
    return subprocess.run([sys.executable, '-c', HIDDEN.format(hidden=hidden) + code],
                          capture_output=True, text=True, cwd=ROOT, check=False)


def test_plain_loop_trains_where_openmmlab_is_absent():
    done = run(f'''
import runpy
import pic_plugin
example = runpy.run_path({str(EXAMPLE)!r})
network, class_weights, loss = example['train']()
print(loss, len(class_weights.active), class_weights.rows([0, 499]).isfinite().all().item())
assert not [name for name in sys.modules if name.split('.')[0] in {OPENMMLAB + ('torchvision',)}]
''')
    assert done.returncode == 0, done.stderr
    loss, active, finite = done.stdout.split()
    assert float(loss) < 0.8 * math.log(128) and active == '128' and finite == 'True'
    assert "pip install 'pic_plugin[lite]'" in done.stderr


def test_without_mmcv_alone_the_message_is_the_usual_one():
    done = run('import pic_plugin', hidden=('mmcv',))
    assert done.returncode != 0
    assert 'pic_plugin needs mmcv>=2.0,<2.4, and there is none: run `pip install' in done.stderr


def test_the_example_fits_on_a_page():
    lines = EXAMPLE.read_text().split('def train')[1].split("if __name__")[0].splitlines()
    assert len([line for line in lines if line.strip()]) <= 40
    network, class_weights, loss = runpy.run_path(str(EXAMPLE))['train'](num_steps=20)
    assert class_weights.bank.step == 20 and class_weights.bank.store is not None and loss > 0
