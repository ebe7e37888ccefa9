# SPDX-License-Identifier: Apache-2.0
"""Each thing that can be wrong with an installation gives one line with the command to run."""
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from pic_plugin import dependencies
from pic_plugin.dependencies import check_dependencies, check_numpy, parse_version

GOOD = {'torch': '2.14.1+cu130', 'numpy': '2.4.6', 'torchvision': '0.29.1', 'mmengine': '0.10.7',
        'mmcv': '2.1.0', 'mmpretrain': '1.2.0', 'mmdet': None}


def importer(**changes):
    """Imports modules with the versions of GOOD but for the changes.

    None: it is not installed; '': it has no version; an exception: the import raises it.
    """
    def load(name):
        version = {**GOOD, **changes}[name]
        if version is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        if isinstance(version, Exception):
            raise version
        module = ModuleType(name)
        if version:
            module.__version__ = version
        return module
    return load


def failure(**changes):
    with pytest.raises(ImportError) as error:
        check_dependencies(importer=importer(**changes))
    message = str(error.value)
    assert '\n' not in message
    return message


def test_this_environment_passes():
    check_dependencies()


def test_good_versions_pass_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_dependencies(importer=importer())
        check_dependencies(importer=importer(torch='2.1.2', torchvision='0.16.2', numpy='1.26.4'))


@pytest.mark.parametrize('name, command', [
    ('torch', 'pip install torch==2.14.1 torchvision==0.29.1'),
    ('torchvision', 'pip install torch==2.14.1 torchvision==0.29.1'),
    ('mmengine', "pip install 'mmengine>=0.10.3,<0.11'"),
    ('mmcv', 'pip install mmcv-lite==2.1.0'),
    ('mmpretrain', "pip install 'mmpretrain>=1.2,<2'"),
])
def test_a_missing_module_is_named_with_its_command(name, command):
    message = failure(**{name: None})
    assert f'needs {name}>=' in message and f'`{command}`' in message


@pytest.mark.parametrize('name, version', [
    ('torch', '1.13.1'), ('torch', '2.0.1'), ('torchvision', '0.15.2'), ('mmengine', '0.9.1'),
    ('mmengine', '1.0.0'), ('mmcv', '1.7.2'), ('mmcv', '2.4.0'), ('mmpretrain', '1.1.1'),
    ('mmpretrain', '2.0.0')])
def test_a_version_out_of_range_is_named(name, version):
    message = failure(**{name: version})
    assert f'{name} {version} is installed' in message and 'run `pip install' in message


@pytest.mark.parametrize('name, version', [
    ('torch', '2.1.0'), ('mmengine', '0.10.3'), ('mmengine', '0.10.7'), ('mmcv', '2.0.0'),
    ('mmpretrain', '1.2.0'), ('mmpretrain', '1.10')])
def test_ends_of_the_ranges_pass(name, version):
    check_dependencies(importer=importer(numpy='1.26.4', **{name: version}))


def test_the_first_fault_is_reported_before_later_imports_fail_obscurely():
    later = AssertionError('MMCV==2.4.0 is used but incompatible.')
    assert 'mmcv 2.4.0 is installed' in failure(mmcv='2.4.0', mmpretrain=later)


def test_an_import_that_fails_inside_is_told_from_a_missing_module():
    message = failure(mmpretrain=ModuleNotFoundError("No module named 'einops'", name='einops'))
    assert 'itself misses the module einops' in message


def test_only_the_first_line_of_a_broken_import_is_shown():
    broken = RuntimeError('operator torchvision::nms does not exist\nat /a/long/story')
    message = failure(torchvision=broken)
    assert 'does not import (operator torchvision::nms does not exist)' in message
    assert 'pip install torch==2.14.1 torchvision==0.29.1' in message


def test_the_ruins_of_mmcv_need_both_distributions_removed():
    assert ('pip uninstall -y mmcv mmcv-lite && pip install mmcv-lite==2.1.0'
            in failure(mmcv=''))


def test_new_mmcv_warns_what_breaks():
    with pytest.warns(UserWarning, match=r'mmcv 2\.2\.0 works .* mmdet .* mmseg'):
        check_dependencies(importer=importer(mmcv='2.2.0'))


def test_new_mmcv_beside_mmdet_stops_with_what_to_run():
    """Else the models of mmpretrain stop with an assertion of mmdet."""
    refusal = AssertionError('MMCV==2.2.0 is used but incompatible.')
    message = failure(mmcv='2.2.0', mmdet=refusal)
    assert 'mmdet refuses mmcv 2.2.0' in message
    assert '`.ci/downstream_env .venv-downstream`' in message
    assert '`pip uninstall -y mmdet`' in message
    # With an mmcv that it takes, mmdet is not even looked for.
    check_dependencies(importer=importer(mmdet=refusal))


def test_numpy_2_with_a_torch_built_for_numpy_1():
    message = failure(torch='2.1.2', numpy='2.0.0')
    assert "pip install 'numpy<2' 'opencv-python<4.12'" in message
    check_numpy('2.0.0', '2.3.0')
    check_numpy('1.26.4', '2.1.2')


@pytest.mark.parametrize('text, version', [
    ('2.1.0+cu121', (2, 1)), ('0.10.7', (0, 10, 7)), ('2', (2,)), ('2.0.0rc4', (2,)),
    ('10.0.10', (10, 0, 10)), ('0', (0,))])
def test_parse_version(text, version):
    assert parse_version(text) == version


def test_parse_version_refuses_what_is_none():
    with pytest.raises(ValueError, match="'unknown' is not a version"):
        parse_version('unknown')


def test_pkg_resources_is_explained_and_nothing_else():
    explain = dependencies.explain_missing_pkg_resources
    assert "pip install 'setuptools<82'" in explain(ModuleNotFoundError(name='pkg_resources'))
    assert explain(ModuleNotFoundError(name='einops')) is None


def test_import_of_the_package_checks_first(tmp_path):
    """A real import with a wrong mmcv in front: the line, and not mmpretrain's assertion."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').write_text("__version__ = '1.7.2'\n")
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import pic_plugin'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                         cwd=Path(dependencies.__file__).parents[1])
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1] == (
        'ImportError: pic_plugin needs mmcv>=2.0,<2.4, and mmcv 1.7.2 is installed: '
        'run `pip install mmcv-lite==2.1.0`.')
