# SPDX-License-Identifier: Apache-2.0
"""The set-up script, as far as it goes without compiling: .ci/run lets it do its work."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / '.ci' / 'downstream_env'

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason='.ci comes with a clone only')


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('precious')
    result = subprocess.run([SCRIPT, tmp_path], capture_output=True, text=True,
                            env=dict(os.environ, PIC_PLUGIN_CACHE=str(tmp_path / 'cache')))
    assert result.returncode == 2
    assert f'{tmp_path} exists and is no virtual environment' in result.stderr
    assert (tmp_path / 'thesis.txt').read_text() == 'precious'


def test_a_missing_compiler_is_said_before_anything_is_installed(tmp_path):
    tools = tmp_path / 'bin'
    tools.mkdir()
    for name in ('bash', 'env', 'dirname', 'python3', 'sha256sum', 'cut', 'cat'):
        (tools / name).symlink_to(shutil.which(name))
    result = subprocess.run([SCRIPT, tmp_path / 'venv'], capture_output=True, text=True,
                            env=dict(PATH=str(tools), PIC_PLUGIN_CACHE=str(tmp_path / 'cache')))
    assert result.returncode == 2 and 'apt-get install g++' in result.stderr
    assert not (tmp_path / 'venv').exists()


def test_versions_are_those_of_the_project():
    """One set of versions in what users are told and in what is built."""
    text = SCRIPT.read_text()
    setup = SCRIPT.parents[1].joinpath('setup.py').read_text()
    for requirement in ('mmdet==3.3.0', 'mmsegmentation==1.2.2'):
        assert requirement in setup
    assert "-e '.[downstream,tests]'" in text and 'mmcv=2.1.0' in text
    assert "torch='torch==2.14.1 torchvision==0.29.1'" in text
    assert "openmim==0.3.9" in text and "openmim==0.3.9" in setup
