# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with mmcv, mmdet and mmseg gives one line with the command to run."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pic_plugin.transfer.requirements import check_downstream

ROOT = Path(__file__).resolve().parents[2]
GOOD = {'mmcv': '2.1.0', 'mmcv._ext': '', 'mmdet': '3.3.0', 'mmseg': '1.2.2'}


def importer(**changes):
    def load(name):
        version = {**GOOD, **changes}[name]
        if isinstance(version, Exception):
            raise version
        module = ModuleType(name)
        if version:
            module.__version__ = version
        return module
    return load


def missing(name):
    return ModuleNotFoundError(f"No module named '{name}'", name=name)


def failure(library, changes):
    with pytest.raises(RuntimeError) as error:
        check_downstream(library, importer(**changes))
    assert '\n' not in str(error.value) and 'run `' in str(error.value)
    return str(error.value)


def test_good_versions_pass():
    for library in ('mmdet', 'mmseg'):
        check_downstream(library, importer())


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_each_fault_is_named(library):
    assert f'{library} refuses mmcv 2.2.0' in failure(library, {'mmcv': '2.2.0'})
    assert 'mmcv-lite 2.1.0, which has none, is installed' in failure(
        library, {'mmcv._ext': missing('mmcv._ext')})
    message = failure(library, {'mmcv._ext': ImportError('undefined symbol: _ZN3c10\nmore')})
    assert 'do not load (undefined symbol: _ZN3c10); they were made for another' in message
    assert 'pip install mmdet==3.3.0' in failure('mmdet', {'mmdet': missing('mmdet')})
    assert 'pip install mmsegmentation==1.2.2 ftfy regex' in failure(
        'mmseg', {'mmseg': missing('ftfy')})
    assert f'{library} 2.28.0 is installed' in failure(library, {library: '2.28.0'})


def test_every_command_removes_before_it_installs():
    """mmcv and mmcv-lite install the same folder."""
    for changes in ({'mmcv': '2.2.0'}, {'mmcv._ext': missing('mmcv._ext')}):
        assert 'pip uninstall -y mmcv mmcv-lite' in failure('mmdet', changes)


@pytest.mark.skipif(importlib.util.find_spec('mmdet') is not None,
                    reason='for an environment without mmdet; the downstream group has it')
@pytest.mark.parametrize('folder, name', [
    ('mmdetection', 'detection'), ('mmsegmentation', 'segmentation')])
def test_a_config_stops_with_the_line(tmp_path, folder, name):
    """As mmengine reads it: its own error for custom_imports would hide the reason."""
    config = tmp_path / 'config.py'
    config.write_text(f"custom_imports = dict(imports=['pic_plugin.transfer.{name}'], "
                      'allow_failed_imports=False)\n')
    code = f'from mmengine.config import Config; Config.fromfile({str(config)!r})'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            env=dict(os.environ, PYTHONPATH=str(ROOT)))
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith('RuntimeError: ') and 'mmcv-lite' in last
    assert '.ci/downstream_env .venv-downstream' in last
